//! The shape of a SiT, how its checkpoints are recognised, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::diffusion::guidance::Guidance;
use crate::model::shapes::{metadata, parse};
use crate::model::{
    Architecture, Clock, DiffusionModel, Family, InvalidConfig, LatentSpace, Process, Untrained,
    ensure, sit_config,
};
use crate::settings::{Sampler, Settings};
use crate::weights::{Weights, WeightsError};

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
    /// Classes; the null class is one more.
    pub num_classes: usize,
    /// Affine LayerNorm of queries and keys over the head.
    #[serde(default)]
    pub qk_norm: bool,
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
            qk_norm: false,
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
        ensure!(hidden_size.is_multiple_of(4), "hidden_size {hidden_size} is not divisible by 4");
        ensure!(self.in_channels > 0 && depth > 0, "in_channels and depth must be positive");
        ensure!(self.mlp_ratio > 0.0, "mlp_ratio must be positive");
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

/// SiT in checkpoints.
pub static FAMILY: Family = Family { name: "SiT", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    let has = |name: &str| weights.tensors.contains_key(name);
    if !has("x_embedder.proj.weight") || !has("y_embedder.embedding_table.weight") {
        return Ok(None);
    }
    let config: SiTConfig = match metadata(weights) {
        Some(json) => parse(weights, "SiT", json)?,
        None => sit_config(weights)?,
    };
    config.validate()?;
    Ok(Some(config.into()))
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
        Some(LatentSpace { channels: self.in_channels, needs_statistics: false })
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn process(&self) -> Process {
        Process::Flow(Clock::NoiseAtOne)
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW
    }

    fn default_settings(&self) -> Settings {
        let scale = if self.num_classes > 0 { 2.4 } else { 1.0 };
        let guidance = Guidance { high: 0.73, ..Guidance::new(scale) };
        Settings::new(Sampler::EulerMaruyama, 250, guidance)
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}
