//! Frozen feature extractors and loss networks, used by training and evaluation only. DINOv2 is the library's, since it
//! is RAE's encoder, too.

pub mod clip;
pub mod convnext;
pub mod inception;
pub mod lpips;
pub mod patchgan;
pub mod vgg;
