//! What only training and evaluation need, and the command line.
//!
//! * [`data`] — from images as people have them to stores and latents, and other tools' formats
//! * [`train`] — the training of the four systems; [`samples`] — sets of samples on disk
//! * [`network`] — networks that judge: DINOv2, LPIPS, PatchGAN; [`loss`] — losses made of them
//! * [`evaluate`] — distances between distributions
//! * [`cli`] — the `tintype` program
#![recursion_limit = "256"]

pub mod bench;
pub mod cli;
pub mod data;
pub mod evaluate;
pub mod loss;
pub mod network;
pub mod rank;
pub mod samples;
pub mod train;
