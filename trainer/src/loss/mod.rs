//! Losses made of judging networks.

pub mod vf;
