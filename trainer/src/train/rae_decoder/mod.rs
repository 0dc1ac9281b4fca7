//! Training of RAE's decoder (Zheng et al., arXiv 2510.11690, stage 1): a ViT learns images from the tokens of a frozen
//! DINOv2, noised, by L1, LPIPS and a discriminator with an adaptive weight.
//!
//! `batch` makes images and noise on the host, `passes` has the generator's losses and gradients, `training` the steps.
//! The discriminator is that of the VA-VAE's training ([`adversary`](super::adversary)), behind
//! [`diff_augment`](super::diff_augment); the authors' looks at features of DINO.

mod batch;
mod encoder;
mod passes;
#[cfg(test)]
mod tests;
mod training;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tintype::model::rae::RaeDecoderConfig;

pub use encoder::FrozenEncoder;
pub use passes::{GeneratorPass, Inputs, generator_pass};
pub use training::{Networks, RaeDecoderTraining};

use super::random_crop::side_of_crops;
use crate::data::store::ImageStore;

/// The settings of the losses; names are those of RAE's YAML. Its epochs are steps here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaeDecoderLoss {
    /// Most noise of the latents: its standard deviation is uniform in 0…τ, one for each image.
    pub noise_tau: f64,
    /// Weight of LPIPS.
    pub perceptual_weight: f64,
    /// Weight of the adversarial loss, times its adaptive weight; 0 trains no discriminator.
    pub disc_weight: f64,
    /// Step from which the decoder learns from the discriminator.
    pub disc_start: u64,
    /// Step from which the discriminator learns.
    pub disc_upd_start: u64,
    /// Channels of the discriminator's first layer.
    pub disc_channels: usize,
    /// Whether the discriminator sees shifted and recoloured images.
    pub diff_augment: bool,
    /// Side of random crops of larger images; 0 takes images whole.
    pub crop: usize,
}

impl Default for RaeDecoderLoss {
    /// The authors', whose epochs on ImageNet have 2,502 steps.
    fn default() -> Self {
        Self {
            noise_tau: 0.8,
            perceptual_weight: 1.0,
            disc_weight: 0.75,
            disc_start: 8 * 2502,
            disc_upd_start: 6 * 2502,
            disc_channels: 64,
            diff_augment: true,
            crop: 0,
        }
    }
}

impl RaeDecoderLoss {
    /// Whether the decoder learns from the discriminator.
    fn is_adversarial(&self, step: u64) -> bool {
        self.disc_weight > 0.0 && step >= self.disc_start
    }

    /// The discriminator's own step, from 0; `None` while it does not learn.
    fn discriminator_step(&self, step: u64) -> Option<u64> {
        step.checked_sub(self.disc_upd_start).filter(|_| self.disc_weight > 0.0)
    }
}

/// Checks images against the decoder and the networks of the losses.
///
/// # Errors
///
/// If the decoder's configuration describes none, or the images, or crops of them, do not fit a network.
pub fn check_data(
    model: &RaeDecoderConfig,
    loss: &RaeDecoderLoss,
    images: &ImageStore,
    has_lpips: bool,
) -> Result<()> {
    model.validate()?;
    let side = side_of_crops(images, loss.crop, loss.disc_weight > 0.0, has_lpips)?;
    let made = model.image_size();
    ensure!(
        side == made,
        "the images have {side} pixels a side and the decoder makes {made}; set loss.crop, or prepare images of that size"
    );
    Ok(())
}
