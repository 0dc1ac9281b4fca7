//! Frozen DINOv2 teachers: REPA's for Hi-DiT, the vision foundation model of VA-VAE.

use std::path::Path;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use tintype::burn::tensor::{Device, Tensor};
use tintype::weights::open;

use super::epoch_sampler::SampleIndex;
use super::host::Values;
use crate::data::resize::{repa_teacher_input, vf_teacher_input};
use crate::data::store::ImageStore;
use tintype::model::dinov2::{DinoV2, Interpolation};

/// A frozen teacher.
pub struct Teacher {
    network: DinoV2,
    /// Features per token.
    pub width: usize,
    device: Device,
}

impl Teacher {
    /// Loads a published DINOv2 (`dinov2_vitb14_pretrain.pth`) for a grid of `side²` patches.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a DINOv2's.
    pub fn open(path: &Path, side: usize, device: &Device) -> Result<Self> {
        let network = DinoV2::from_weights(open(path)?, None, device)?;
        let network = network.with_grid([side; 2], Interpolation::Timm);
        Ok(Self { width: network.width(), network, device: device.clone() })
    }

    /// Preprocesses images for REPA.
    ///
    /// # Shapes
    ///
    /// * returns `[B, 3, s, s]` with `s = 224·⌊side/256⌋`
    ///
    /// # Panics
    ///
    /// If the item of a place is not in the store.
    pub fn repa_input(&self, images: &ImageStore, samples: &[SampleIndex]) -> Values<4> {
        let side = images.side();
        self.input(images, samples, 224 * (side / 256), |planes| repa_teacher_input(planes, side))
    }

    fn input(
        &self,
        images: &ImageStore,
        samples: &[SampleIndex],
        side: usize,
        resize: impl Fn(&[u8]) -> Vec<f32> + Sync,
    ) -> Values<4> {
        let one = |sample: &SampleIndex| {
            let pixels = images.pixels(sample.item);
            let planes: Vec<u8> =
                (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).copied()).collect();
            resize(&planes)
        };
        let parts: Vec<Vec<f32>> = samples.par_iter().map(one).collect();
        Values::new(parts.concat(), [samples.len(), 3, side, side])
    }

    /// The patch tokens after the final norm, `[B, N, width]`, detached.
    ///
    /// # Shapes
    ///
    /// * `input`: `[B, 3, side·patch, side·patch]`
    /// * returns `[B, side², width]`
    ///
    /// # Panics
    ///
    /// If `input` has another shape.
    pub fn features(&self, input: Values<4>) -> Tensor<3> {
        self.network.forward(input.tensor(&self.device)).patches
    }

    /// The vision-foundation loss's features `[B, width, 16, 16]` of 8-bit planes
    /// `[B, 3, side, side]`.
    ///
    /// # Shapes
    ///
    /// * `planes`: `[B, 3, side, side]`
    /// * returns `[B, width, 16, 16]`
    ///
    /// # Panics
    ///
    /// If the teacher was not opened for 16 × 16 patches.
    pub fn feature_map(&self, planes: &[u8], side: usize) -> Tensor<4> {
        let b = planes.len() / (3 * side * side);
        let input = Values::new(vf_teacher_input(planes, side), [b, 3, 224, 224]);
        let tokens = self.features(input); // [B, N, width]
        let grid = tokens.dims()[1].isqrt();
        tokens.swap_dims(1, 2).reshape([b, self.width, grid, grid])
    }
}

/// Checks that REPA's teacher, at resolution `224·(side/256)`, has as many tokens as the network.
///
/// # Errors
///
/// If the teacher's tokens are not as many as the network's.
pub fn check_repa(image: usize, tokens: usize) -> Result<()> {
    let side = 224 * (image / 256) / 14;
    ensure!(
        side * side == tokens,
        "REPA's teacher has {side}×{side} tokens for images of {image} pixels and the network {tokens}; use images of 256 or 512 pixels, or train without data.teacher"
    );
    Ok(())
}
