//! Tintype: class-conditional image diffusion on Burn.
//!
//! * [`model`] — the networks: Hi-DiT, SiT, LightningDiT, DiT-DH, JiT, HDiT, iMF, pMF, VA-VAE, RAE
//! * [`diffusion`] — what noise means; [`sampler`] — the way from noise to an image
//! * [`weights`] — checkpoints by the authors' names; [`preset`] — published configurations
//! * [`catalogue`] — published models by name, where their files lie and what has been checked
//! * [`settings`] — names and ranges of what can be set; [`face`] — errors in the words of a program
//! * [`generate`] — a request in, a stream of events out: what every face of Tintype shares
//!
//! The crate knows no user interface and no particular backend; features `cpu`, `wgpu`, `vulkan`
//! and `cuda` forward to Burn, `files` adds opening checkpoints by path.
#![recursion_limit = "256"]

pub mod catalogue;
mod config;
pub mod device;
pub mod diffusion;
pub mod face;
mod file_names;
#[cfg(feature = "files")]
pub mod files;
pub mod generate;
pub mod image;
pub mod labels;
pub mod memory;
pub mod model;
pub mod nn;
pub mod noise;
pub mod precision;
pub mod preset;
pub mod resize;
pub mod sampler;
pub mod settings;
pub mod version;
pub mod weights;

/// The Burn that this library is built on.
pub use burn;
pub use precision::Precision;
/// The operations that networks are made of, with their kernels.
pub use tintype_shaders as shaders;
