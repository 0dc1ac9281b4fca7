//! Random square crops of stored images, for the training of autoencoders.

use anyhow::{Result, ensure};
use tintype::noise::{ImageKey, Stream, uniforms};

use super::epoch_sampler::SampleIndex;
use crate::data::store::ImageStore;
use crate::network::lpips::Lpips;
use crate::network::patchgan::PatchGanConfig;

/// 8-bit planes of the samples' crops; where one lies is drawn for each sample.
///
/// # Shapes
///
/// * returns `[B, 3, side, side]`
///
/// # Panics
///
/// If the images are smaller than `side`, or the item of a sample is not in the store.
pub fn crops(images: &ImageStore, samples: &[SampleIndex], seed: u64, side: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * 3 * side * side);
    for sample in samples {
        let key = ImageKey::new(seed, sample.global_index);
        let room = (images.side() - side + 1) as f64;
        let corner = uniforms(key, Stream::Choice, 0, 2);
        let [top, left] = [0, 1].map(|axis| (corner[axis] * room) as usize);
        let pixels = images.pixels(sample.item);
        for c in 0..3 {
            for y in top..top + side {
                let row = (y * images.side() + left) * 3;
                bytes.extend(pixels[row..row + 3 * side].iter().skip(c).step_by(3));
            }
        }
    }
    bytes
}

/// The side of the crops: `crop`, or that of the images where it is 0.
///
/// # Errors
///
/// If it is larger than the images, or too small for the discriminator or for LPIPS, where there is one.
pub fn side_of_crops(
    images: &ImageStore,
    crop: usize,
    has_discriminator: bool,
    has_lpips: bool,
) -> Result<usize> {
    let side = if crop > 0 { crop } else { images.side() };
    ensure!(side <= images.side(), "loss.crop is larger than the images");
    let smallest = PatchGanConfig::SMALLEST;
    ensure!(
        side >= smallest || !has_discriminator,
        "images of {side} pixels are too small for the discriminator, which needs {smallest}; set loss.disc_weight = 0"
    );
    ensure!(
        side >= Lpips::SMALLEST || !has_lpips,
        "images of {side} pixels are too small for LPIPS, which needs {}; leave out data.vgg and data.lpips",
        Lpips::SMALLEST
    );
    Ok(side)
}
