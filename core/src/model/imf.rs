//! iMF, improved Mean Flows (arXiv 2512.02012): images in one evaluation, on the latents of Stable Diffusion's
//! autoencoder.
//!
//! The network gives the average velocity u directly. Tokens are rotated by their place in the whole sequence, the
//! prefix included; there is no other position. Published files hold the last layer of the head of v without that head
//! (`v_final_layer`): nothing here reads it, and parameters are counted without it.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::meanflow::{
    Condition, Embeddings, MeanFlow, Patches, Shape, Trace, Transformer, is_one, told,
};
use super::tensors::shape;
use super::{
    Architecture, DiffusionModel, Family, InvalidConfig, LatentSpace, Network, Process, Untrained,
};
use crate::diffusion::guidance::Guidance;
use crate::image::Rounding;
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::rope::{Places, RotaryTable};
use crate::settings::{Sampler, Settings};
use crate::weights::{Weights, WeightsError};

/// Side of the latents of every published network, which the weights do not tell.
const PUBLISHED_SIZE: usize = 32;
/// Mean of each channel of Stable Diffusion's raw latents (of the posterior of its autoencoder, without its 0.18215).
/// Constants of the authors' code.
const MEAN: [f32; 4] = [0.86488, -0.27787343, 0.21616915, 0.3738409];
/// Standard deviation of each channel.
const STD: [f32; 4] = [4.8550367, 5.3192244, 3.937254, 3.9870003];

/// Shape of an iMF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImfConfig {
    /// What it shares with pMF.
    #[serde(flatten)]
    pub shape: Shape,
}

impl ImfConfig {
    /// A published size, "B", "M", "L" or "XL" with patches of 2, for images of 256².
    pub fn variant(size: &str) -> Option<Self> {
        let numbers = match size {
            "B" => [12, 768, 12, 2048],
            "M" => [24, 768, 12, 2048],
            "L" => [32, 1024, 16, 2730],
            "XL" => [48, 1024, 16, 2730],
            _ => return None,
        };
        Some(Self { shape: Shape::published([PUBLISHED_SIZE, 2, 4], numbers) })
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.shape.validate(2)
    }

    /// The untrained network: u is 0.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Result<Imf, InvalidConfig> {
        self.validate()?;
        let Shape { in_channels, hidden_size, patch_size, num_heads, .. } = self.shape;
        Ok(Imf {
            x_embedder: PatchEmbed::new(in_channels, hidden_size, patch_size, device),
            mean_flow: Transformer::new(&self.shape, false, device),
            head_size: hidden_size / num_heads,
        })
    }

    /// Mean and standard deviation of each channel that latents are normalised with, where those are the network's own:
    /// raw latents of Stable Diffusion's autoencoder, which have 4 channels.
    pub fn statistics(&self) -> Option<[[f32; 4]; 2]> {
        (self.shape.in_channels == MEAN.len()).then_some([MEAN, STD])
    }

    /// Multiply-adds of one sample's evaluation.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn macs(&self) -> f64 {
        let Shape { in_channels, hidden_size, patch_size, .. } = self.shape;
        self.shape.macs(patch_size.pow(2) * in_channels * hidden_size)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Imf {
    x_embedder: PatchEmbed,
    mean_flow: Transformer,
    head_size: usize,
}

impl Imf {
    /// Every intermediate value of [`u_and_v`](MeanFlow::u_and_v) for inspection: embeddings, patches, the whole
    /// sequence, and what the blocks make of it.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, S, S]`
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

    /// Rotations of a sequence of so many tokens, by their place in it.
    pub fn rope(&self, tokens: usize, device: &Device) -> RotaryTable {
        RotaryTable::new(Places::Line { count: tokens }, self.head_size, device)
    }

    /// The sequence `[B, n, D]` with its rotations, and how many patches it ends with.
    fn sequence(&self, z: Tensor<4>, condition: Condition) -> (Tensor<3>, RotaryTable, usize) {
        let device = z.device();
        let patches = self.x_embedder.forward(z.cast(self.mean_flow.dtype())); // [B, N, D]
        let count = patches.dims()[1];
        let s = self.mean_flow.sequence(condition, patches); // [B, n, D]
        let rope = self.rope(s.dims()[1], &device);
        (s, rope, count)
    }

    /// `[B, N, p²·C]` → `[B, C, S, S]`
    fn image(&self, tokens: Tensor<3>) -> Tensor<4> {
        unpatchify(tokens.cast(FloatDType::F32), self.x_embedder.patch()) // [B, C, S, S]
    }
}

impl MeanFlow for Imf {
    fn u(&self, z: Tensor<4>, _t: Tensor<1>, condition: Condition) -> Tensor<4> {
        let (s, rope, patches) = self.sequence(z, condition);
        self.image(self.mean_flow.u(s, &rope, patches))
    }

    fn v(&self, z: Tensor<4>, _t: Tensor<1>, condition: Condition) -> Option<Tensor<4>> {
        let (s, rope, patches) = self.sequence(z, condition);
        self.mean_flow.v(s, &rope, patches).map(|v| self.image(v))
    }

    fn u_and_v(
        &self,
        z: Tensor<4>,
        _t: Tensor<1>,
        condition: Condition,
    ) -> (Tensor<4>, Option<Tensor<4>>) {
        let (s, rope, patches) = self.sequence(z, condition);
        let (u, v) = self.mean_flow.u_and_v(s, &rope, patches);
        (self.image(u), v.map(|v| self.image(v)))
    }
}

impl Network for Imf {
    /// The velocity at a time, without guidance: u over h = 0.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let condition = Condition::instantaneous(labels, &times);
        self.u(x, times, condition)
    }

    /// Raw latents of Stable Diffusion's autoencoder.
    fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        if z.dims()[1] != MEAN.len() {
            return z;
        }
        let row = |values: [f32; 4]| -> Tensor<4> {
            Tensor::from_data(TensorData::new(values.to_vec(), [1, 4, 1, 1]), &z.device())
        };
        let (mean, std) = (row(MEAN), row(STD));
        z * std + mean
    }

    fn mean_flow(&self) -> Option<Arc<dyn MeanFlow>> {
        Some(Arc::new(self.clone()))
    }
}

/// iMF in checkpoints.
pub static FAMILY: Family = Family { name: "iMF", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !is_one(weights) || !weights.contains("x_embedder.proj.weight") {
        return Ok(None);
    }
    let embed = shape(weights, "x_embedder.proj.weight", 4)?;
    let patches =
        Patches { input_size: PUBLISHED_SIZE, patch_size: embed[2], in_channels: embed[1] };
    let by_tensors = ImfConfig { shape: Shape::told_by(weights, patches, 2)? };
    let config = told(weights, FAMILY.name, by_tensors)?;
    config.validate()?;
    Ok(Some(config.into()))
}

impl DiffusionModel for ImfConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn state_shape(&self) -> [usize; 3] {
        [self.shape.in_channels, self.shape.input_size, self.shape.input_size]
    }

    /// The statistics of Stable Diffusion's latents, which have 4 channels, are the network's own.
    fn latent_space(&self) -> Option<LatentSpace> {
        let channels = self.shape.in_channels;
        Some(LatentSpace { channels, needs_statistics: channels != MEAN.len() })
    }

    fn num_classes(&self) -> usize {
        self.shape.num_classes
    }

    fn process(&self) -> Process {
        Process::MeanFlow
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::MEAN_FLOW
    }

    /// One step, with the guidance that the authors publish for the size.
    fn default_settings(&self) -> Settings {
        let (scale, low, high) = match (self.shape.hidden_size, self.shape.depth) {
            (768, 12) => (8.0, 0.4, 0.65),
            (768, 24) | (1024, 32) => (10.5, 0.4, 0.6),
            (1024, 48) => (8.0, 0.42, 0.62),
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
