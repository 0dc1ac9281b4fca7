//! The teachers' inputs, resized as their authors do it.

use tintype::image::{IMAGENET_MEAN, IMAGENET_STD};
use tintype::resize::{Method, resize};

/// REPA's teacher input: 8-bit planes `[B, 3, side, side]` → ImageNet-normalised, **then**
/// bicubically resized without antialias to `224·(side/256)`.
///
/// # Panics
///
/// If `side` is 0.
pub fn repa_teacher_input(planes: &[u8], side: usize) -> Vec<f32> {
    let area = side * side;
    let normalised: Vec<f32> = planes
        .iter()
        .enumerate()
        .map(|(i, &v)| {
            let c = i / area % 3;
            (v as f32 / 255.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        })
        .collect();
    resize(&normalised, [side; 2], [224 * (side / 256); 2], Method::Bicubic)
}

/// The VF loss's teacher input: the training image in −1…1, bilinear to 224, **not** normalised.
///
/// # Panics
///
/// If `side` is 0.
pub fn vf_teacher_input(planes: &[u8], side: usize) -> Vec<f32> {
    let scaled: Vec<f32> = planes.iter().map(|&v| v as f32 / 127.5 - 1.0).collect();
    resize(&scaled, [side; 2], [224; 2], Method::Bilinear)
}
