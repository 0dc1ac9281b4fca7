//! Frozen feature extractors and loss networks, used by training and evaluation only.

pub mod clip;
pub mod convnext;
pub mod dinov2;
pub mod inception;
pub mod lpips;
pub mod patchgan;
pub mod vgg;
