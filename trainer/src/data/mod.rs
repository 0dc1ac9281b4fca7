//! Datasets: preparation, image stores, latents, augmentation, and the formats of other tools.

pub mod augment;
pub mod batch;
pub mod crop;
pub mod decode;
pub mod encode;
pub mod encoder;
pub mod fingerprint;
pub mod hdf5;
pub mod jpeg;
pub mod latents;
pub mod made;
pub mod npz;
mod positioned;
pub mod prepare;
pub mod pt;
pub mod resize;
mod rows;
pub mod running;
pub mod source;
pub mod store;
