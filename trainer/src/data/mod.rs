//! Image preparation and stores.

pub mod augment;
pub mod crop;
pub mod hdf5;
pub mod latents;
pub mod npz;
pub mod resize;
