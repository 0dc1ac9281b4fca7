//! The shape of a JiT, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::FAMILY;
use crate::diffusion::guidance::{Guidance, Interval};
use crate::image::Rounding;
use crate::model::{
    Clock, DiffusionModel, InvalidConfig, LatentSpace, MAX_CLASSES, MAX_DEPTH, MAX_PATCH, MAX_SIDE,
    MAX_WIDTH, Process, Untrained, bounded, ensure, patch_values,
};
use crate::nn::embedding::TimestepEmbedder;
use crate::settings::{Sampler, Settings};

/// Shape of a JiT, under the names of the authors' constructor, and the two numbers of its flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Given")]
pub struct JitConfig {
    /// Side of the images in pixels; divisible by `patch_size`.
    pub input_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Channels of the images; 3 where absent.
    pub in_channels: usize,
    /// Width D, divisible by `num_heads`; the size of a head is divisible by 4.
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of a plain MLP over D, of which the SwiGLU's is two thirds; 4 where absent.
    pub mlp_ratio: f64,
    /// Channels of the patch embedding's bottleneck.
    pub bottleneck_dim: usize,
    /// In-context tokens of the class, 0 for none; 32 where absent.
    pub in_context_len: usize,
    /// The block that they enter before, below `depth`; a third of `depth` where absent.
    pub in_context_start: usize,
    /// Classes, 1000 where absent; the null class is one more.
    pub num_classes: usize,
    /// Standard deviation of the noise at time 0, positive; the side over 256, at least 1, where absent.
    pub noise_scale: f64,
    /// Least `1 − t` that velocities are divided by, between 0 and 1; 0.05 where absent.
    pub t_eps: f64,
}

/// A configuration as it may be given.
#[derive(Deserialize)]
struct Given {
    input_size: usize,
    patch_size: usize,
    in_channels: Option<usize>,
    hidden_size: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: Option<f64>,
    bottleneck_dim: usize,
    in_context_len: Option<usize>,
    in_context_start: Option<usize>,
    num_classes: Option<usize>,
    noise_scale: Option<f64>,
    t_eps: Option<f64>,
}

impl From<Given> for JitConfig {
    fn from(given: Given) -> Self {
        let Given { input_size, patch_size, hidden_size, depth, num_heads, .. } = given;
        Self {
            input_size,
            patch_size,
            in_channels: given.in_channels.unwrap_or(3),
            hidden_size,
            depth,
            num_heads,
            mlp_ratio: given.mlp_ratio.unwrap_or(MLP_RATIO),
            bottleneck_dim: given.bottleneck_dim,
            in_context_len: given.in_context_len.unwrap_or(32),
            in_context_start: given.in_context_start.unwrap_or(usual_start(depth)),
            num_classes: given.num_classes.unwrap_or(1000),
            noise_scale: given.noise_scale.unwrap_or(usual_noise_scale(input_size)),
            t_eps: given.t_eps.unwrap_or(T_EPS),
        }
    }
}

/// Width of a plain MLP over D in every published size.
pub(super) const MLP_RATIO: f64 = 4.0;
/// `t_eps` of every published size.
pub(super) const T_EPS: f64 = 0.05;

/// Where the in-context tokens enter in every published size: behind a third of the blocks.
pub(super) fn usual_start(depth: usize) -> usize {
    depth / 3
}

/// The noise of the published sizes: 1 at 256², 2 at 512².
pub(super) fn usual_noise_scale(input_size: usize) -> f64 {
    (input_size as f64 / 256.0).max(1.0)
}

impl JitConfig {
    /// A published size, "B", "L" or "H", with patches of 16 for images of 256² or of 32 for 512²: "B/16". `None` for other
    /// names.
    pub fn variant(name: &str) -> Option<Self> {
        let (size, patch) = name.split_once('/')?;
        let (depth, hidden_size, num_heads, bottleneck_dim) = match size {
            "B" => (12, 768, 12, 128),
            "L" => (24, 1024, 16, 128),
            "H" => (32, 1280, 16, 256),
            _ => return None,
        };
        let patch_size = match patch {
            "16" => 16,
            "32" => 32,
            _ => return None,
        };
        let input_size = 16 * patch_size;
        Some(Self {
            input_size,
            patch_size,
            in_channels: 3,
            hidden_size,
            depth,
            num_heads,
            mlp_ratio: MLP_RATIO,
            bottleneck_dim,
            in_context_len: 32,
            in_context_start: usual_start(depth),
            num_classes: 1000,
            noise_scale: usual_noise_scale(input_size),
            t_eps: T_EPS,
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
            num_heads > 0 && hidden_size > 0 && hidden_size.is_multiple_of(num_heads),
            "hidden_size {hidden_size} is not a positive multiple of num_heads {num_heads}"
        );
        ensure!(
            (hidden_size / num_heads).is_multiple_of(4),
            "the head size {} is not divisible by 4, which RoPE needs",
            hidden_size / num_heads
        );
        ensure!(
            self.in_channels > 0 && self.bottleneck_dim > 0 && depth > 0,
            "in_channels, bottleneck_dim and depth must be positive"
        );
        ensure!(depth <= MAX_DEPTH, "depth {depth} is above {MAX_DEPTH}");
        bounded([
            ("input_size", input_size, MAX_SIDE),
            ("in_channels", self.in_channels, MAX_WIDTH),
            ("hidden_size", hidden_size, MAX_WIDTH),
            ("bottleneck_dim", self.bottleneck_dim, MAX_WIDTH),
            ("num_classes", self.num_classes, MAX_CLASSES),
            (
                "patch_size² · in_channels",
                patch_values([patch_size; 2], self.in_channels),
                MAX_PATCH,
            ),
        ])?;
        let mlp = hidden_size as f64 * self.mlp_ratio;
        ensure!(
            (2.0..=MAX_WIDTH as f64).contains(&mlp),
            "mlp_ratio {:?} does not make an MLP of 2 to {MAX_WIDTH} features",
            self.mlp_ratio
        );
        let (tokens, start) = (self.in_context_len, self.in_context_start);
        ensure!(tokens <= MAX_DEPTH, "in_context_len {tokens} is above {MAX_DEPTH}");
        ensure!(
            tokens == 0 || start < depth,
            "in_context_start {start} is not below depth {depth}, so that the tokens would enter nowhere"
        );
        ensure!(
            self.noise_scale > 0.0 && self.noise_scale.is_finite(),
            "noise_scale must be positive"
        );
        ensure!(
            self.t_eps > 0.0 && self.t_eps < 1.0,
            "t_eps {} is not between 0 and 1",
            self.t_eps
        );
        Ok(())
    }

    /// Patches of a side.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn grid(&self) -> usize {
        self.input_size / self.patch_size
    }

    /// Width of a plain MLP, of which the SwiGLU's is two thirds; both are truncated.
    pub(super) fn mlp_width(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// Multiply-adds of one sample's forward pass.
    ///
    /// # Panics
    ///
    /// If `patch_size` is 0.
    pub fn macs(&self) -> f64 {
        let patches = self.grid().pow(2) as f64;
        let (d, bottleneck) = (self.hidden_size as f64, self.bottleneck_dim as f64);
        let inner = (2.0 / 3.0 * self.mlp_width() as f64).trunc();
        let values = (self.patch_size.pow(2) * self.in_channels) as f64;
        let block = |n: f64| n * (4.0 * d * d + 3.0 * d * inner) + 2.0 * n * n * d + 6.0 * d * d;
        let longer = match self.in_context_len {
            0 => 0,
            _ => self.depth.saturating_sub(self.in_context_start),
        };
        let blocks = (self.depth - longer) as f64 * block(patches)
            + longer as f64 * block(patches + self.in_context_len as f64);
        let embedding = patches * bottleneck * (values + d);
        let time = TimestepEmbedder::FEATURES as f64 * d + d * d;
        let head = patches * d * values + 2.0 * d * d;
        blocks + embedding + time + head
    }
}

impl DiffusionModel for JitConfig {
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
        None
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn process(&self) -> Process {
        Process::Flow(Clock::NoiseAtZero)
    }

    fn noise_scale(&self) -> f64 {
        self.noise_scale
    }

    fn time_floor(&self) -> f64 {
        self.t_eps
    }

    fn interval(&self) -> Interval {
        Interval::Open
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW_ODE
    }

    /// The guidance interval begins at 0.1 on the authors' clock (0 is noise), which is 0.9 here; the scale is that of
    /// the published size.
    fn default_settings(&self) -> Settings {
        let scale = match (self.hidden_size, self.patch_size) {
            (768, 16 | 32) => 3.0,
            (1024, 16) => 2.4,
            (1024, 32) => 2.5,
            (1280, 16) => 2.2,
            (1280, 32) => 2.3,
            _ => 1.0,
        };
        let guidance = match self.null_class() {
            Some(_) => Guidance { high: 0.9, ..Guidance::new(scale) },
            None => Guidance::NONE,
        };
        Settings::new(Sampler::Heun, 50, guidance)
    }

    fn rounding(&self) -> Rounding {
        Rounding::Even
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_absurd_size_is_refused() {
        let config = JitConfig::variant("B/16").expect("a variant");
        let vast = JitConfig { input_size: 4096, patch_size: 4096, ..config };
        let error = vast.validate().expect_err("absurd").0;
        assert!(error.starts_with("patch_size² · in_channels"), "{error}");
    }
}
