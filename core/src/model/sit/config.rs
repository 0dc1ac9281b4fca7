//! The shape of a SiT, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::FAMILY;
use crate::diffusion::guidance::Guidance;
use crate::model::vavae::VaeConfig;
use crate::model::{
    Clock, DiffusionModel, InvalidConfig, LatentSpace, MAX_CLASSES, MAX_DEPTH, MAX_PATCH, MAX_SIDE,
    MAX_WIDTH, Process, Untrained, bounded, ensure, patch_values,
};
use crate::settings::{Sampler, Settings};

/// Label dropout of every published SiT.
pub(super) const DROPOUT: f64 = 0.1;

/// Shape of a SiT. Keys are REPA-E's; Hi-DiT's short names are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiTConfig {
    /// Side of the latent image, in latent pixels; divisible by `patch_size`.
    #[serde(alias = "latent_size", default = "default_input_size")]
    pub input_size: usize,
    /// Side of a patch, in latent pixels.
    #[serde(alias = "patch", default = "one")]
    pub patch_size: usize,
    /// Latent channels.
    #[serde(alias = "latent_channels")]
    pub in_channels: usize,
    /// Width D, divisible by 4 and by `num_heads`.
    #[serde(alias = "hidden")]
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    #[serde(alias = "heads")]
    pub num_heads: usize,
    /// Width of the MLP over D.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Classes; the null class, where labels are dropped in training, is one more.
    pub num_classes: usize,
    /// Label dropout in training, a probability; the null row exists where it is positive.
    #[serde(default = "default_dropout", skip_serializing_if = "is_default_dropout")]
    pub class_dropout_prob: f64,
    /// Affine LayerNorm of queries and keys over the head.
    #[serde(default)]
    pub qk_norm: bool,
    /// Whether the weights hold the statistics of the latents (`bn`), as REPA-E's do.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub latent_norm: bool,
    /// The head emits twice the channels and the first half is the velocity, as SiT's authors have it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub learn_sigma: bool,
    /// Which end of the network's clock is noise: t = 0 for SiT's authors, t = 1 for REPA and REPA-E.
    #[serde(default, skip_serializing_if = "is_false")]
    pub noise_at_zero: bool,
    /// REPA: the projectors read the stream after this block, counted from 1.
    #[serde(default = "default_encoder_depth")]
    pub encoder_depth: usize,
    /// REPA: feature width of each teacher; none for inference.
    #[serde(default)]
    pub z_dims: Vec<usize>,
    /// REPA: width of the projector's hidden layers.
    #[serde(default = "default_projector_dim")]
    pub projector_dim: usize,
}

fn one() -> usize {
    1
}
fn default_input_size() -> usize {
    16
}
fn default_mlp_ratio() -> f64 {
    4.0
}
fn default_encoder_depth() -> usize {
    8
}
fn default_projector_dim() -> usize {
    2048
}
fn default_dropout() -> f64 {
    DROPOUT
}
fn yes() -> bool {
    true
}

// What is as it always was is left out, so that configurations compare with those of earlier versions.
fn is_default_dropout(value: &f64) -> bool {
    *value == DROPOUT
}
fn is_true(value: &bool) -> bool {
    *value
}
fn is_false(value: &bool) -> bool {
    !*value
}

impl SiTConfig {
    /// A published variant: "XL", "L", "B" or "S" with its patch size on 32-channel latents of
    /// side 16, without projectors.
    pub fn variant(name: &str, patch_size: usize) -> Option<Self> {
        let (depth, hidden_size, num_heads) = match name {
            "XL" => (28, 1152, 16),
            "L" => (24, 1024, 16),
            "B" => (12, 768, 12),
            "S" => (12, 384, 6),
            _ => return None,
        };
        Some(Self {
            input_size: 16,
            patch_size,
            in_channels: 32,
            hidden_size,
            depth,
            num_heads,
            mlp_ratio: 4.0,
            num_classes: 1000,
            class_dropout_prob: DROPOUT,
            qk_norm: false,
            latent_norm: true,
            learn_sigma: false,
            noise_at_zero: false,
            encoder_depth: 8,
            z_dims: Vec::new(),
            projector_dim: 2048,
        })
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let Self { input_size, patch_size, hidden_size, num_heads, depth, .. } = *self;
        ensure!(patch_size > 0 && input_size > 0, "sizes must be positive");
        ensure!(
            input_size.is_multiple_of(patch_size),
            "input_size {input_size} is not divisible by patch_size {patch_size}"
        );
        ensure!(
            num_heads > 0 && hidden_size.is_multiple_of(num_heads),
            "hidden_size {hidden_size} is not divisible by num_heads {num_heads}"
        );
        ensure!(
            hidden_size > 0 && hidden_size.is_multiple_of(4),
            "hidden_size {hidden_size} is not a positive multiple of 4"
        );
        ensure!(self.in_channels > 0 && depth > 0, "in_channels and depth must be positive");
        bounded([
            ("depth", depth, MAX_DEPTH),
            ("input_size", input_size, MAX_SIDE),
            ("in_channels", self.in_channels, MAX_WIDTH),
            ("hidden_size", hidden_size, MAX_WIDTH),
            ("hidden_size · mlp_ratio", (hidden_size as f64 * self.mlp_ratio) as usize, MAX_WIDTH),
            ("num_classes", self.num_classes, MAX_CLASSES),
            (
                "patch_size² · in_channels",
                patch_values([patch_size; 2], self.in_channels),
                MAX_PATCH,
            ),
            ("projector_dim", self.projector_dim, MAX_WIDTH),
            ("z_dims", self.z_dims.iter().copied().max().unwrap_or(0), MAX_WIDTH),
        ])?;
        let projectors = self.z_dims.len();
        ensure!(projectors <= MAX_DEPTH, "z_dims lists {projectors} teachers, above {MAX_DEPTH}");
        ensure!(
            self.z_dims.is_empty() || self.projector_dim > 0 && !self.z_dims.contains(&0),
            "a projector has no width"
        );
        ensure!(self.mlp_ratio > 0.0 && self.mlp_ratio.is_finite(), "mlp_ratio must be positive");
        ensure!(
            (0.0..=1.0).contains(&self.class_dropout_prob),
            "class_dropout_prob {} is not in 0…1",
            self.class_dropout_prob
        );
        ensure!(
            self.z_dims.is_empty() || (1..=depth).contains(&self.encoder_depth),
            "encoder_depth {} is not a block of 1…{depth}",
            self.encoder_depth
        );
        Ok(())
    }

    /// Tokens of one image.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn tokens(&self) -> usize {
        (self.input_size / self.patch_size).pow(2)
    }
}

impl DiffusionModel for SiTConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn state_shape(&self) -> [usize; 3] {
        [self.in_channels, self.input_size, self.input_size]
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        Some(LatentSpace { channels: self.in_channels, needs_statistics: !self.latent_norm })
    }

    /// Stable Diffusion's f8d4 latents are multiplied by 0.18215, as SiT and REPA do.
    fn latent_scale(&self, autoencoder: &VaeConfig) -> Option<f64> {
        let is_f8d4 = autoencoder.downsampling() == 8 && autoencoder.latent_channels() == 4;
        (!self.latent_norm && is_f8d4).then_some(0.18215)
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn null_class(&self) -> Option<usize> {
        (self.num_classes > 0 && self.class_dropout_prob > 0.0).then_some(self.num_classes)
    }

    fn process(&self) -> Process {
        Process::Flow(if self.noise_at_zero { Clock::NoiseAtZero } else { Clock::NoiseAtOne })
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW
    }

    /// The guidance of REPA-E, of REPA (without `bn`), or of SiT's authors (their clock), who guide 3 channels.
    fn default_settings(&self) -> Settings {
        let guidance = match (self.null_class(), self.noise_at_zero, self.latent_norm) {
            (None, ..) => Guidance::NONE,
            (_, true, _) => Guidance { channels: Some(3), ..Guidance::new(1.5) },
            (_, false, false) => Guidance { high: 0.7, ..Guidance::new(1.8) },
            (_, false, true) => Guidance { high: 0.73, ..Guidance::new(2.4) },
        };
        Settings::new(Sampler::EulerMaruyama, 250, guidance)
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_width_is_refused() {
        let small = SiTConfig::variant("S", 1).expect("a variant");
        assert_eq!(small.validate(), Ok(()));
        let without = |config: SiTConfig| config.validate().expect_err("no width").0;
        assert!(without(SiTConfig { hidden_size: 0, ..small.clone() }).contains("hidden_size 0"));
        assert!(without(SiTConfig { z_dims: vec![0], ..small }).contains("projector"));
    }

    #[test]
    fn absurd_sizes_are_refused_by_name() {
        let small = SiTConfig::variant("S", 1).expect("a variant");
        let vast = usize::MAX / 4 * 4;
        let message = |change: &dyn Fn(&mut SiTConfig)| {
            let mut config = small.clone();
            change(&mut config);
            config.validate().expect_err("absurd").0
        };
        for (name, refused) in [
            ("input_size", message(&|config| config.input_size = vast)),
            ("in_channels", message(&|config| config.in_channels = vast)),
            ("hidden_size", message(&|config| (config.hidden_size, config.num_heads) = (vast, 1))),
            ("hidden_size · mlp_ratio", message(&|config| config.mlp_ratio = 1e12)),
            ("num_classes", message(&|config| config.num_classes = vast)),
            ("projector_dim", message(&|config| config.projector_dim = vast)),
            (
                "patch_size² · in_channels",
                message(&|config| (config.input_size, config.patch_size) = (4096, 4096)),
            ),
            ("z_dims", message(&|config| config.z_dims = vec![768, vast])),
        ] {
            assert!(refused.starts_with(name) && refused.contains("is above"), "{refused}");
        }
    }
}
