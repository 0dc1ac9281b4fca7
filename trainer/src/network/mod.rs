//! Networks that judge pictures or teach: nothing but training and evaluation needs them.

pub mod clip;
pub mod dinov2;
pub mod inception;
pub mod lpips;
pub mod patchgan;
pub mod vgg;
