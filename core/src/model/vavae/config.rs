//! The shape of an autoencoder.

use serde::{Deserialize, Serialize};

use crate::model::{InvalidConfig, MAX_DEPTH, MAX_WIDTH, bounded, ensure};

/// Shape of the autoencoder; keys are the `ddconfig` of its YAML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Base width, divisible by `num_groups`.
    pub ch: usize,
    /// Width of each level over `ch`, finest first; the latent is 2^(levels−1) times smaller.
    pub ch_mult: Vec<usize>,
    /// Residual blocks a level; the decoder has one more.
    pub num_res_blocks: usize,
    /// Channels of the latent inside the quant convolutions.
    pub z_channels: usize,
    /// Channels of the latent; `z_channels` if absent.
    #[serde(default)]
    pub embed_dim: Option<usize>,
    /// Image channels in.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Image channels out.
    #[serde(default = "three")]
    pub out_ch: usize,
    /// The image side that decides which levels have attention (not the actual input's).
    #[serde(default = "default_resolution")]
    pub resolution: usize,
    /// Level sides, in pixels of that level, with attention after every residual block.
    #[serde(default = "default_attn_resolutions")]
    pub attn_resolutions: Vec<usize>,
    /// Groups of every GroupNorm.
    #[serde(default = "default_groups")]
    pub num_groups: usize,
}

fn three() -> usize {
    3
}
fn default_resolution() -> usize {
    256
}
fn default_attn_resolutions() -> Vec<usize> {
    vec![16]
}
fn default_groups() -> usize {
    32
}

impl VaeConfig {
    /// VA-VAE f16d32, the autoencoder of LightningDiT, REPA-E and Hi-DiT.
    pub fn f16d32() -> Self {
        Self {
            ch: 128,
            ch_mult: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            z_channels: 32,
            embed_dim: None,
            in_channels: 3,
            out_ch: 3,
            resolution: 256,
            attn_resolutions: vec![16],
            num_groups: 32,
        }
    }

    /// The f8d4 autoencoder of Stable Diffusion.
    pub fn f8d4() -> Self {
        Self { ch_mult: vec![1, 2, 4, 4], z_channels: 4, ..Self::f16d32() }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        self.embed_dim.unwrap_or(self.z_channels)
    }

    /// How many times smaller than the image the latent is.
    ///
    /// # Panics
    ///
    /// If `ch_mult` is empty.
    pub fn downsampling(&self) -> usize {
        1 << (self.ch_mult.len() - 1)
    }

    /// Whether it is of Stable Diffusion's kind: 4 channels, 8 times smaller than the image. Without
    /// statistics its latents are scaled by 0.18215.
    ///
    /// # Panics
    ///
    /// If `ch_mult` is empty.
    pub fn is_f8d4(&self) -> bool {
        self.downsampling() == 8 && self.latent_channels() == 4
    }

    /// Values of the decoder's largest activation for one image of latents `[C, h, w]`: of the levels' widths
    /// times their pixels, where a level is entered with the width of the one before.
    ///
    /// # Panics
    ///
    /// If `ch_mult` is empty.
    pub fn largest_activation(&self, [h, w]: [usize; 2]) -> usize {
        let last = self.ch_mult.len() - 1;
        let values = |level: usize| {
            let width = self.width(level).max(self.width((level + 1).min(last)));
            let side = |side: usize| side.saturating_mul(1 << (last - level));
            width.saturating_mul(side(h)).saturating_mul(side(w))
        };
        (0..=last).map(values).max().unwrap_or(0)
    }

    pub(super) fn width(&self, level: usize) -> usize {
        self.ch * self.ch_mult[level]
    }

    pub(super) fn has_attention(&self, level: usize) -> bool {
        self.attn_resolutions.contains(&(self.resolution >> level))
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        ensure!(!self.ch_mult.is_empty() && self.ch_mult.len() < 16, "ch_mult has no sane length");
        ensure!(self.num_groups > 0, "num_groups must be positive");
        let widest = self.ch_mult.iter().copied().max().unwrap_or(0);
        ensure!(
            self.ch.checked_mul(widest).is_some_and(|width| width <= MAX_WIDTH),
            "ch {} times {widest} is too wide",
            self.ch
        );
        for level in 0..self.ch_mult.len() {
            ensure!(
                self.width(level) > 0 && self.width(level).is_multiple_of(self.num_groups),
                "level {level}: {} channels do not split into {} groups",
                self.width(level),
                self.num_groups
            );
        }
        ensure!(
            self.ch.is_multiple_of(self.num_groups),
            "ch {} does not split into {} groups",
            self.ch,
            self.num_groups
        );
        let most = MAX_DEPTH / self.ch_mult.len();
        ensure!(
            (1..=most).contains(&self.num_res_blocks),
            "num_res_blocks {} is not in 1…{most}",
            self.num_res_blocks
        );
        ensure!(self.z_channels > 0 && self.latent_channels() > 0, "z_channels must be positive");
        bounded([
            ("z_channels", self.z_channels, MAX_WIDTH),
            ("embed_dim", self.latent_channels(), MAX_WIDTH),
        ])?;
        for (name, channels) in [("in_channels", self.in_channels), ("out_ch", self.out_ch)] {
            ensure!(channels == 3, "{name} is {channels}; images have 3");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_three_channels() {
        assert_eq!(VaeConfig::f16d32().validate(), Ok(()));
        for channels in [0, 1, 2, 4] {
            let out = VaeConfig { out_ch: channels, ..VaeConfig::f8d4() };
            assert!(out.validate().expect_err("out").0.starts_with("out_ch is"));
            let into = VaeConfig { in_channels: channels, ..VaeConfig::f8d4() };
            assert!(into.validate().expect_err("in").0.starts_with("in_channels is"));
        }
    }

    #[test]
    fn the_largest_activation_is_the_finest_level_or_one_before() {
        // 128 channels of 256 by 256.
        assert_eq!(VaeConfig::f16d32().largest_activation([16, 16]), 128 * 256 * 256);
        // The finest level is entered with the 256 channels of the one before.
        assert_eq!(VaeConfig::f8d4().largest_activation([32, 16]), 256 * 256 * 128);
        assert_eq!(VaeConfig::f8d4().largest_activation([usize::MAX, 2]), usize::MAX);
    }

    #[test]
    fn absurd_sizes_are_refused_by_name() {
        let refused = |config: VaeConfig| config.validate().expect_err("absurd").0;
        let inner = VaeConfig { z_channels: usize::MAX, ..VaeConfig::f8d4() };
        assert!(refused(inner).starts_with("z_channels"));
        let latent = VaeConfig { embed_dim: Some(usize::MAX), ..VaeConfig::f8d4() };
        assert!(refused(latent).starts_with("embed_dim"));
        assert!(refused(VaeConfig { ch: 1 << 15, ..VaeConfig::f8d4() }).contains("too wide"));
        let deep = VaeConfig { num_res_blocks: 1025, ..VaeConfig::f8d4() };
        assert!(refused(deep).contains("num_res_blocks 1025 is not in 1…1024"));
    }
}
