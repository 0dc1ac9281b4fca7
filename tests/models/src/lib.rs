//! Tiny networks, and checkpoints of them as authors save them, for the tests of all rooms.
//!
//! * [`configs`] — configurations of networks that compute in a moment
//! * [`tensors`] — weights by a formula
//! * [`pickles`] — what `torch.save` writes, value by value, and whole checkpoints
//! * [`rae`] — the files of a RAE
#![allow(clippy::missing_panics_doc)] // what cannot be built fails the test that wants it

pub mod configs;
mod formula;
pub mod pickles;
pub mod rae;

pub use formula::tensors;
