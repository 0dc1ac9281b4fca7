//! VA-VAE's training (`vavae` §5–7; LDM's `LPIPSWithDiscriminator`): reconstruction and perceptual
//! loss, KL, PatchGAN and vision foundation model alignment, the last two with adaptive weights.

mod cost;
mod networks;
mod passes;
#[cfg(test)]
pub(super) mod tests;
mod training;

use serde::{Deserialize, Serialize};

pub use cost::{decoder_macs, encoder_macs, macs};
pub use networks::{LinearProj, Networks};
pub use passes::{GeneratorPass, Inputs, adaptive, generator_pass};
pub use training::{LossNetworks, VaeTraining};

/// The settings of the losses; names are those of VA-VAE's YAML.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeLoss {
    /// Step from which the discriminator counts. As in the reference, steps of **both** optimizers
    /// are counted, two a batch.
    pub disc_start: u64,
    /// Weight of the adversarial loss, times its adaptive weight; 0 trains no discriminator.
    pub disc_weight: f64,
    /// Channels of the discriminator's first layer.
    pub disc_channels: usize,
    /// Weight of the divergence from N(0, 1).
    pub kl_weight: f64,
    /// Log-variance s of the reconstruction, `rec·e^(−s) + s`; the reference never trains it.
    pub logvar: f64,
    /// Weight of LPIPS.
    pub perceptual_weight: f64,
    /// Weight of the alignment, times its adaptive weight.
    pub vf_weight: f64,
    /// Whether the alignment's weight adapts.
    pub adaptive_vf: bool,
    /// Slack of the alignment's similarity matrices.
    pub distmat_margin: f64,
    /// Slack of the alignment's cosines.
    pub cos_margin: f64,
    /// Side of random crops of larger images; 0 takes images whole.
    pub crop: usize,
}

impl Default for VaeLoss {
    fn default() -> Self {
        Self {
            disc_start: 5001,
            disc_weight: 0.5,
            disc_channels: 64,
            kl_weight: 1e-6,
            logvar: 0.0,
            perceptual_weight: 1.0,
            vf_weight: 0.5,
            adaptive_vf: true,
            distmat_margin: 0.0,
            cos_margin: 0.0,
            crop: 0,
        }
    }
}
