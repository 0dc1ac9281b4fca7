//! pMF, pixel Mean Flows (arXiv 2601.22158): images in one evaluation, in pixels and without an autoencoder.
//!
//! The network gives an estimate x̂ of the image, of which `u = (z − x̂)/max(t, 0.05)` is made. Patches come through a
//! bottleneck and are rotated by row and column; the whole sequence has a learned position table. Noise has the
//! standard deviation that the size was trained with, which the weights do not tell.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::meanflow::{
    Condition, Embeddings, MeanFlow, Patches, Shape, Trace, Transformer, is_one, told,
};
use super::tensors::shape;
use super::{
    Architecture, DiffusionModel, Family, InvalidConfig, LatentSpace, MAX_WIDTH, Network, Process,
    Untrained, bounded, ensure,
};
use crate::diffusion::guidance::Guidance;
use crate::image::Rounding;
use crate::nn::normal;
use crate::nn::patch::{BottleneckEmbed, unpatchify};
use crate::nn::rope::{Places, RotaryTable};
use crate::settings::{Sampler, Settings};
use crate::weights::{Weights, WeightsError};

/// Smallest time that velocities are divided by.
pub const T_FLOOR: f64 = 0.05;

/// Shape of a pMF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PmfConfig {
    /// What it shares with iMF.
    #[serde(flatten)]
    pub shape: Shape,
    /// Channels of the patch embedding's bottleneck.
    pub pca_channels: usize,
    /// Standard deviation of the noise that sampling starts from, positive.
    #[serde(default = "one")]
    pub noise_scale: f64,
}

fn one() -> f64 {
    1.0
}

/// The noise of the published sizes, by width and patch; 1 for others.
fn published_noise_scale(hidden_size: usize, patch_size: usize) -> f64 {
    match (hidden_size, patch_size) {
        (768, 32) | (1280, 16) => 2.0,
        (1024 | 1280, 32) => 4.0,
        _ => 1.0,
    }
}

impl PmfConfig {
    /// A published size, "B", "L" or "H", with patches of 16 for images of 256², or of 32 for 512².
    pub fn variant(size: &str, patch_size: usize) -> Option<Self> {
        let (numbers, pca_channels) = match size {
            "B" => ([16, 768, 12, 2048], 128),
            "L" => ([32, 1024, 16, 2730], 128),
            "H" => ([48, 1280, 16, 3416], 256),
            _ => return None,
        };
        let image = [16, 32].contains(&patch_size).then_some(16 * patch_size)?;
        let shape = Shape::published([image, patch_size, 3], numbers);
        let noise_scale = published_noise_scale(shape.hidden_size, patch_size);
        Some(Self { shape, pca_channels, noise_scale })
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.shape.validate(4)?;
        ensure!(self.pca_channels > 0, "pca_channels must be positive");
        bounded([("pca_channels", self.pca_channels, MAX_WIDTH)])?;
        ensure!(
            self.noise_scale > 0.0 && self.noise_scale.is_finite(),
            "noise_scale must be positive"
        );
        Ok(())
    }

    /// The untrained network: x̂ is 0.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Result<Pmf, InvalidConfig> {
        self.validate()?;
        let Shape { in_channels, hidden_size, patch_size, num_heads, .. } = self.shape;
        let (prefix, side) = (self.shape.prefix(), self.shape.grid());
        let bottleneck = self.pca_channels;
        Ok(Pmf {
            pos_embed: normal([1, prefix + side * side, hidden_size], 0.02, device),
            x_embedder: BottleneckEmbed::new(
                in_channels,
                bottleneck,
                hidden_size,
                patch_size,
                device,
            ),
            mean_flow: Transformer::new(&self.shape, true, device),
            patch_size,
            places: Places::Grid { prefix, side },
            head_size: hidden_size / num_heads,
        })
    }

    /// Multiply-adds of one sample's evaluation.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn macs(&self) -> f64 {
        let Shape { in_channels, hidden_size, patch_size, .. } = self.shape;
        self.shape.macs(self.pca_channels * (patch_size.pow(2) * in_channels + hidden_size))
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Pmf {
    pos_embed: Param<Tensor<3>>,
    x_embedder: BottleneckEmbed,
    mean_flow: Transformer,
    patch_size: usize,
    #[module(skip)]
    places: Places,
    head_size: usize,
}

impl Pmf {
    /// Every intermediate value of [`u_and_v`](MeanFlow::u_and_v) for inspection: embeddings, patches, the whole
    /// sequence, and what the blocks make of it.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, 3, H, W]`
    /// * `condition`: `[B]` each
    /// * returns [`Embeddings`], `[B, N, D]`, `[B, n, D]` and [`Trace`]
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    pub fn trace(
        &self,
        z: Tensor<4>,
        condition: Condition,
    ) -> (Embeddings, Tensor<3>, Tensor<3>, Trace) {
        let embeddings = self.mean_flow.embed(condition.clone());
        let patches = self.x_embedder.forward(z.clone().cast(self.mean_flow.dtype())); // [B, N, D]
        let (s, rope, count) = self.sequence(z, condition);
        (embeddings, patches, s.clone(), self.mean_flow.trace(s, &rope, count))
    }

    /// Rotations of the sequence: of its patches, by their row and column.
    pub fn rope(&self, device: &Device) -> RotaryTable {
        RotaryTable::new(self.places, self.head_size, device)
    }

    /// The sequence `[B, n, D]` with its rotations, and how many patches it ends with.
    fn sequence(&self, z: Tensor<4>, condition: Condition) -> (Tensor<3>, RotaryTable, usize) {
        let rope = self.rope(&z.device());
        let patches = self.x_embedder.forward(z.cast(self.mean_flow.dtype())); // [B, N, D]
        let count = patches.dims()[1];
        let s = self.mean_flow.sequence(condition, patches); // [B, n, D]
        (s + self.pos_embed.val(), rope, count)
    }

    /// `(z − x̂)/max(t, 0.05)` of the values of the patches: `[B, N, p²·3]` → `[B, 3, H, W]`
    fn velocity(&self, tokens: Tensor<3>, z: Tensor<4>, t: Tensor<1>) -> Tensor<4> {
        let image = unpatchify(tokens.cast(FloatDType::F32), self.patch_size); // [B, 3, H, W]
        let t: Tensor<4> = t.cast(FloatDType::F32).clamp_min(T_FLOOR).reshape([-1, 1, 1, 1]);
        (z.cast(FloatDType::F32) - image) / t
    }
}

impl MeanFlow for Pmf {
    fn u(&self, z: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        let (s, rope, patches) = self.sequence(z.clone(), condition);
        self.velocity(self.mean_flow.u(s, &rope, patches), z, t)
    }

    fn v(&self, z: Tensor<4>, t: Tensor<1>, condition: Condition) -> Option<Tensor<4>> {
        let (s, rope, patches) = self.sequence(z.clone(), condition);
        self.mean_flow.v(s, &rope, patches).map(|v| self.velocity(v, z, t))
    }

    fn u_and_v(
        &self,
        z: Tensor<4>,
        t: Tensor<1>,
        condition: Condition,
    ) -> (Tensor<4>, Option<Tensor<4>>) {
        let (s, rope, patches) = self.sequence(z.clone(), condition);
        let (u, v) = self.mean_flow.u_and_v(s, &rope, patches);
        let v = v.map(|v| self.velocity(v, z.clone(), t.clone()));
        (self.velocity(u, z, t), v)
    }
}

impl Network for Pmf {
    /// The velocity at a time, without guidance: u over h = 0.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let condition = Condition::instantaneous(labels, &times);
        self.u(x, times, condition)
    }

    fn mean_flow(&self) -> Option<Arc<dyn MeanFlow>> {
        Some(Arc::new(self.clone()))
    }
}

/// pMF in checkpoints.
pub static FAMILY: Family = Family { name: "pMF", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !is_one(weights) || !weights.contains("x_embedder.proj1.weight") {
        return Ok(None);
    }
    let embed = shape(weights, "x_embedder.proj1.weight", 4)?;
    let places = shape(weights, "pos_embed", 3)?[1];
    let patches = Patches { input_size: 0, patch_size: embed[2], in_channels: embed[1] };
    let mut by_tensors = Shape::told_by(weights, patches, 3)?;
    let grid = places.saturating_sub(by_tensors.prefix()).isqrt();
    by_tensors.input_size = grid.saturating_mul(by_tensors.patch_size);
    let noise_scale = published_noise_scale(by_tensors.hidden_size, by_tensors.patch_size);
    let by_tensors = PmfConfig { shape: by_tensors, pca_channels: embed[0], noise_scale };
    let config = told(weights, FAMILY.name, by_tensors)?;
    config.validate()?;
    Ok(Some(config.into()))
}

impl DiffusionModel for PmfConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn state_shape(&self) -> [usize; 3] {
        [self.shape.in_channels, self.shape.input_size, self.shape.input_size]
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        None
    }

    fn num_classes(&self) -> usize {
        self.shape.num_classes
    }

    fn process(&self) -> Process {
        Process::MeanFlow
    }

    fn noise_scale(&self) -> f64 {
        self.noise_scale
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::MEAN_FLOW
    }

    /// One step, with the guidance that the authors publish for the size (of B/16 that of their PyTorch code).
    fn default_settings(&self) -> Settings {
        let (scale, low, high) = match (self.shape.hidden_size, self.shape.patch_size) {
            (768, 16) => (7.5, 0.1, 0.8),
            (1024, 16) => (7.0, 0.2, 0.7),
            (1280, 16) => (7.0, 0.2, 0.6),
            (768, 32) => (6.5, 0.1, 0.7),
            (1024, 32) => (7.5, 0.2, 0.6),
            (1280, 32) => (5.5, 0.1, 0.6),
            _ => (1.0, 0.0, 1.0),
        };
        Settings::new(Sampler::MeanFlow, 1, Guidance { scale, low, high, channels: None })
    }

    fn rounding(&self) -> Rounding {
        Rounding::Up
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}
