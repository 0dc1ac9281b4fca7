//! What only training and evaluation need, and the command line.
//!
//! * [`data`] — image preparation and the stores that other tools write
//! * [`network`] — networks that judge: DINOv2, LPIPS; [`loss`] — losses made of them
//! * [`evaluate`] — distances between distributions
//! * [`cli`] — the `tintype` program
#![recursion_limit = "256"]

pub mod cli;
pub mod data;
pub mod evaluate;
pub mod files;
pub mod loss;
pub mod network;
pub mod rank;
pub mod samples;
pub mod train;
