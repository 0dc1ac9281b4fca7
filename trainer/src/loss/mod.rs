//! Losses computed from frozen networks.

pub mod vf;
