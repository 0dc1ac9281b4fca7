//! Hi-DiT (ECCV 2026): one DiT over VAE latents and, once the noise is low, pixels too.
//!
//! SiT with three more parts: a gate `G(t) = 1 if t < τ`, an embedding of the noisy image that is
//! added to the latent tokens where the gate is open, and a convolutional predictor of the clean
//! image from the tokens that the latent head also uses. Both streams share one sequence, so the
//! pixels cost a few per cent.
//!
//! Its clock is SiT's, for latents and pixels alike: **t = 0 is data, t = 1 is noise**. Images are in −1…1.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::sit::{SiT, SiTConfig, sit_config, tell_dropout};
use super::tensors::{metadata, parse, shape, typed};
use super::{
    Architecture, DiffusionModel, Family, InvalidConfig, LatentSpace, MAX_SIDE, Network, Process,
    Untrained, bounded, ensure,
};
use crate::diffusion::guidance::Guidance;
use crate::nn::activation::silu;
use crate::nn::block::RunBlocks;
use crate::nn::conv::Conv2d;
use crate::nn::linear::{Init, Linear};
use crate::nn::patch::{patchify, pixel_shuffle};
use crate::settings::{Sampler, Settings};
use crate::weights::{Weights, WeightsError};

/// Side of the patches that the pixel predictor's last PixelShuffle writes.
const SUB_PATCH: usize = 4;

/// Shape of a Hi-DiT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HiDiTConfig {
    /// The backbone.
    #[serde(flatten)]
    pub sit: SiTConfig,
    /// Side of the image in pixels.
    pub image: usize,
    /// Side of a pixel patch, aligned with the latent tokens: 4, 8, 16, …
    pub pixel_patch: usize,
    /// The gate opens below this time, 0 (never) to 1 (from the first step on); 1 is noise.
    #[serde(default = "default_tau")]
    pub tau: f64,
    /// Smallest time that the pixel velocity divides by, positive.
    #[serde(default = "default_t_min")]
    pub t_min: f64,
}

fn default_tau() -> f64 {
    0.3
}
fn default_t_min() -> f64 {
    0.05
}

impl HiDiTConfig {
    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.sit.validate()?;
        let Self { image, pixel_patch, .. } = *self;
        bounded([("image", image, MAX_SIDE)])?;
        ensure!(
            self.sit.latent_norm && !self.sit.noise_at_zero,
            "a Hi-DiT holds the statistics of its latents (latent_norm) and has noise at t = 1"
        );
        ensure!(
            pixel_patch.is_power_of_two() && (SUB_PATCH..=4096).contains(&pixel_patch),
            "pixel_patch {pixel_patch} is not 4, 8, 16, …"
        );
        ensure!(
            Some(image) == pixel_patch.checked_mul(self.sit.input_size / self.sit.patch_size),
            "image {image} does not have one {pixel_patch}-pixel patch for every latent token"
        );
        ensure!(
            self.sit.hidden_size.is_multiple_of(4usize.pow(self.predictor_stages() as u32)),
            "hidden_size {} cannot be shuffled {} times",
            self.sit.hidden_size,
            self.predictor_stages()
        );
        ensure!((0.0..=1.0).contains(&self.tau), "tau {} is not in 0…1", self.tau);
        ensure!(self.t_min > 0.0, "t_min must be positive");
        Ok(())
    }

    /// PixelShuffle(2) stages before the last one.
    fn predictor_stages(&self) -> usize {
        (self.pixel_patch / SUB_PATCH).ilog2() as usize
    }

    /// The untrained network: its latent output is exactly that of its SiT.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Result<HiDiT, InvalidConfig> {
        self.validate()?;
        let d = self.sit.hidden_size;
        let pixels = 3 * self.pixel_patch * self.pixel_patch;
        Ok(HiDiT {
            sit: self.sit.init(device)?,
            pixel_embedder: PixelEmbedder { proj: Linear::new(pixels, d, Init::Zero, device) },
            pixel_predictor: PixelPredictor::new(d, self.predictor_stages(), device),
            pixel_patch: self.pixel_patch,
            tau: self.tau,
            t_min: self.t_min,
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct HiDiT {
    /// The latent backbone.
    pub sit: SiT,
    pixel_embedder: PixelEmbedder,
    pixel_predictor: PixelPredictor,
    pixel_patch: usize,
    tau: f64,
    t_min: f64,
}

/// What the network says about both streams.
#[derive(Debug)]
pub struct Streams {
    /// Velocity of the latents, `[B, C, S, S]`.
    pub velocity: Tensor<4>,
    /// Estimate x̂ of the clean image in −1…1, `[B, 3, H, W]`.
    pub image: Tensor<4>,
}

/// What a training pass gives.
#[derive(Debug)]
pub struct TrainingOutput {
    /// Velocity of the latents, `[B, C, S, S]`.
    pub velocity: Tensor<4>,
    /// Estimate x̂ of the clean image, `[B, 3, H, W]`, where there were pixels.
    pub image: Option<Tensor<4>>,
    /// Projected features for each teacher, `[B, N, z_dim]`; empty where they were not asked for.
    pub features: Vec<Tensor<3>>,
}

impl HiDiT {
    /// Whether the pixel stream is at work at this time (1 is noise): `t < τ`, in float32 like the
    /// network's own decision, so that a grid point at τ cannot be open here and closed there.
    pub fn gate(&self, t: f64) -> bool {
        (t as f32) < self.tau as f32
    }

    /// The time of its gate, below which the pixel stream is at work: 0 (never) to 1 (always).
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The network with its gate at another time, 0 (pixels never) to 1 (always).
    pub fn with_gate(mut self, tau: f64) -> Self {
        self.tau = tau;
        self
    }

    /// The network with the statistics of a data set's latents, one mean and standard deviation for
    /// each channel.
    pub fn with_latent_stats(mut self, mean: &[f32], std: &[f32]) -> Self {
        self.sit.bn = self.sit.bn.map(|bn| bn.with_stats(mean, std));
        self
    }

    /// Velocity of the latents without pixels.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn forward_latent(&self, z: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        self.sit.forward(z, t, y)
    }

    /// Both streams; samples whose gate is closed do not see their image.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, S, S]`
    /// * `x`: `[B, 3, H, W]`, noisy, of an image in −1…1
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns [`Streams`]: `[B, C, S, S]` and `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn forward(&self, z: Tensor<4>, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Streams {
        let dtype = x.dtype();
        let open = t.clone().lower_scalar(self.tau).float().cast(dtype); // [B]
        let gate: Tensor<3> = open.reshape([-1, 1, 1]);
        let c = self.sit.condition(t, y); // [B, D]
        let pixels = self.pixel_embedder.proj.forward(patchify(x, self.pixel_patch)); // [B, N, D]
        let h = self.sit.embed(z) + gate * pixels;
        let tokens = self.sit.modulated(self.sit.blocks(h, c.clone()), c);
        Streams {
            velocity: self.sit.velocity(tokens.clone()),
            image: self.pixel_predictor.forward(tokens),
        }
    }

    /// A training pass: latents, the pixel stream where there are images, and REPA's features where
    /// they are wanted; `run` runs the blocks.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, S, S]`
    /// * `x`: `[B, 3, H, W]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns [`TrainingOutput`]: `[B, C, S, S]`, `[B, 3, H, W]` and `[B, N, z_dim]` for each
    ///   teacher
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, on the CPU a label is beyond the null class, or
    /// features are wanted of a block that there is not.
    pub fn forward_training(
        &self,
        z: Tensor<4>,
        x: Option<Tensor<4>>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        features: bool,
        run: RunBlocks<'_>,
    ) -> TrainingOutput {
        let open = t.clone().lower_scalar(self.tau).float().cast(z.dtype()); // [B]
        let c = self.sit.condition(t, y); // [B, D]
        let mut h = self.sit.embed(z); // [B, N, D]
        let pixels = x.is_some();
        if let Some(x) = x {
            let pixels = self.pixel_embedder.proj.forward(patchify(x, self.pixel_patch));
            h = h + open.reshape([-1, 1, 1]) * pixels;
        }
        let (tokens, features) = self.sit.tokens_and_features(h, c, features, run);
        TrainingOutput {
            velocity: self.sit.velocity(tokens.clone()),
            image: pixels.then(|| self.pixel_predictor.forward(tokens)),
            features,
        }
    }

    /// The smallest time that the pixels' velocity `v_x = (x_t − x̂) / max(t, t_min)` divides by.
    pub fn t_min(&self) -> f64 {
        self.t_min
    }
}

#[derive(Module, Debug)]
struct PixelEmbedder {
    proj: Linear,
}

/// The high-frequency pixel predictor: `conv3×3 → PixelShuffle(2) → SiLU` for every halving down
/// to sub-patches of 4 pixels, then `conv1×1 → PixelShuffle(4)`.
#[derive(Module, Debug)]
struct PixelPredictor {
    convs: Vec<Conv2d>,
}

impl PixelPredictor {
    fn new(d: usize, stages: usize, device: &Device) -> Self {
        let width = |stage: usize| d / 4usize.pow(stage as u32);
        let mut convs: Vec<_> =
            (0..stages).map(|s| Conv2d::same(width(s), width(s), 3, device)).collect();
        convs.push(Conv2d::zero(width(stages), 3 * SUB_PATCH * SUB_PATCH, 1, device));
        Self { convs }
    }

    /// `[B, N, D]` → `[B, 3, H, W]`
    fn forward(&self, tokens: Tensor<3>) -> Tensor<4> {
        let [b, n, d] = tokens.dims();
        let grid = n.isqrt();
        let mut x = tokens.swap_dims(1, 2).reshape([b, d, grid, grid]);
        let (last, stages) = self.convs.split_last().expect("built with at least one layer");
        for conv in stages {
            x = silu(pixel_shuffle(conv.forward(x), 2)); // [B, C/4, 2H, 2W]
        }
        pixel_shuffle(last.forward(x), SUB_PATCH) // [B, 3, 4H, 4W]
    }
}

/// Hi-DiT in checkpoints.
pub static FAMILY: Family = Family { name: "Hi-DiT", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !weights.contains("pixel_embedder.proj.weight") {
        return Ok(None);
    }
    let config: HiDiTConfig = match metadata(weights) {
        Some(text) => {
            let mut json = parse(weights, FAMILY.name, text)?;
            tell_dropout(weights, &mut json);
            typed(weights, FAMILY.name, json)?
        }
        None => from_shapes(weights)?,
    };
    config.validate()?;
    Ok(Some(config.into()))
}

/// The configuration of a Hi-DiT from its shapes.
fn from_shapes(weights: &Weights) -> Result<HiDiTConfig, WeightsError> {
    let sit = sit_config(weights)?;
    let pixels = shape(weights, "pixel_embedder.proj.weight", 2)?[1];
    let pixel_patch = (pixels / 3).isqrt();
    let image = pixel_patch.saturating_mul(sit.input_size / sit.patch_size);
    let sit = SiTConfig { latent_norm: true, noise_at_zero: false, ..sit };
    let config = HiDiTConfig { sit, image, pixel_patch, tau: 0.3, t_min: 0.05 };
    config.validate()?;
    Ok(config)
}

impl DiffusionModel for HiDiTConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn state_shape(&self) -> [usize; 3] {
        [self.sit.in_channels, self.sit.input_size, self.sit.input_size]
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        Some(LatentSpace { channels: self.sit.in_channels, needs_statistics: false })
    }

    fn image_size(&self) -> Option<[usize; 2]> {
        Some([self.image; 2])
    }

    fn num_classes(&self) -> usize {
        self.sit.num_classes
    }

    fn null_class(&self) -> Option<usize> {
        self.sit.null_class()
    }

    fn process(&self) -> Process {
        Process::Hybrid { tau: self.tau }
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::HYBRID
    }

    /// 50 steps of the SDE; the guidance scale as measured for the shipped model.
    fn default_settings(&self) -> Settings {
        let scale = match (self.null_class(), self.sit.num_classes) {
            (None, _) => 1.0,
            (_, 1000) => 2.4,
            _ => 2.0,
        };
        Settings::new(Sampler::EulerMaruyama, 50, Guidance::new(scale))
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

impl Network for HiDiT {
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        self.forward_latent(x, times, labels)
    }

    fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        self.sit.denormalize(z)
    }

    fn hybrid(&self) -> Option<&HiDiT> {
        Some(self)
    }
}
