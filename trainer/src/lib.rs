//! Training, evaluation and the command line of Tintype.
//!
//! * [`data`] — image stores, latents, augmentation, and the formats of other tools
//! * [`train`] — the training recipes; [`samples`] — sets of samples on disk
//! * [`network`] — frozen networks and the discriminator: Inception, CLIP, LPIPS, ConvNeXt V2, PatchGAN;
//!   [`loss`] — losses computed from them
//! * [`evaluate`] — evaluation metrics
//! * [`cli`] — the `tintype` program
#![recursion_limit = "256"]

#[cfg(test)]
mod alone;
pub mod bench;
pub mod cli;
pub mod data;
pub mod evaluate;
pub mod launch;
pub mod loss;
pub mod network;
pub mod patience;
pub mod rank;
pub mod samples;
pub mod train;
