//! The shape of a LightningDiT, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::FAMILY;
use crate::diffusion::guidance::Guidance;
use crate::image::Rounding;
use crate::model::{
    Clock, DiffusionModel, InvalidConfig, LatentSpace, MAX_CLASSES, MAX_DEPTH, MAX_PATCH, MAX_SIDE,
    MAX_WIDTH, Process, Untrained, bounded, ensure, patch_values,
};
use crate::settings::{Sampler, Settings};

/// Shape and options of a LightningDiT; the defaults are those of the constructor, which every
/// released configuration overrides with `use_swiglu`, `use_rope` and `use_rmsnorm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LightningDiTConfig {
    /// Side of the latent image, in latent pixels; divisible by `patch_size`.
    #[serde(default = "default_input_size")]
    pub input_size: usize,
    /// Side of a patch, in latent pixels.
    pub patch_size: usize,
    /// Latent channels (`in_chans` in the YAML).
    #[serde(alias = "in_chans", default = "default_in_channels")]
    pub in_channels: usize,
    /// Width D, divisible by 4 and by `num_heads`.
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the plain MLP over D.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Classes; the null class, where labels are dropped in training, is one more.
    #[serde(default = "default_num_classes")]
    pub num_classes: usize,
    /// Label dropout, a probability; the null row exists where it is positive.
    #[serde(default = "default_dropout")]
    pub class_dropout_prob: f64,
    /// Norm of queries and keys.
    #[serde(default)]
    pub use_qknorm: bool,
    /// SwiGLU instead of GELU.
    #[serde(default)]
    pub use_swiglu: bool,
    /// RoPE in addition to the sine-cosine table.
    #[serde(default)]
    pub use_rope: bool,
    /// RMSNorm instead of LayerNorm.
    #[serde(default)]
    pub use_rmsnorm: bool,
    /// Blocks without shift in their modulation.
    #[serde(default)]
    pub wo_shift: bool,
    /// The head emits twice the channels and the first half is returned.
    #[serde(default)]
    pub learn_sigma: bool,
}

fn default_input_size() -> usize {
    16
}
pub(super) fn default_in_channels() -> usize {
    4
}
fn default_mlp_ratio() -> f64 {
    4.0
}
fn default_num_classes() -> usize {
    1000
}
pub(super) fn default_dropout() -> f64 {
    0.1
}

impl LightningDiTConfig {
    /// A released variant such as "LightningDiT-XL/1", with the released options, on f16d32
    /// latents of side 16.
    pub fn variant(name: &str) -> Option<Self> {
        let (size, patch) = name.strip_prefix("LightningDiT-")?.split_once('/')?;
        let (depth, hidden_size, num_heads) = match size {
            "B" => (12, 768, 12),
            "L" => (24, 1024, 16),
            "XL" => (28, 1152, 16),
            "1p0B" => (24, 1536, 24),
            "1p6B" => (28, 1792, 28),
            _ => return None,
        };
        Some(Self {
            input_size: 16,
            patch_size: patch.parse().ok().filter(|p| [1, 2].contains(p))?,
            in_channels: 32,
            hidden_size,
            depth,
            num_heads,
            mlp_ratio: 4.0,
            num_classes: 1000,
            class_dropout_prob: 0.1,
            use_qknorm: false,
            use_swiglu: true,
            use_rope: true,
            use_rmsnorm: true,
            wo_shift: false,
            learn_sigma: false,
        })
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let Self { input_size, patch_size, hidden_size, num_heads, .. } = *self;
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
        ensure!(
            !self.use_rope || (hidden_size / num_heads).is_multiple_of(4),
            "the head size {} is not divisible by 4, which RoPE needs",
            hidden_size / num_heads
        );
        ensure!(self.in_channels > 0 && self.depth > 0, "in_channels and depth must be positive");
        bounded([
            ("depth", self.depth, MAX_DEPTH),
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
        ])?;
        ensure!(self.mlp_ratio > 0.0 && self.mlp_ratio.is_finite(), "mlp_ratio must be positive");
        ensure!(
            (0.0..=1.0).contains(&self.class_dropout_prob),
            "class_dropout_prob {} is not in 0…1",
            self.class_dropout_prob
        );
        Ok(())
    }
}

impl DiffusionModel for LightningDiTConfig {
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
        Some(LatentSpace { channels: self.in_channels, needs_statistics: true })
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn null_class(&self) -> Option<usize> {
        (self.num_classes > 0 && self.class_dropout_prob > 0.0).then_some(self.num_classes)
    }

    fn process(&self) -> Process {
        Process::Flow(Clock::NoiseAtZero)
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW
    }

    /// The guidance interval starts at 0.125 on the authors' clock (0 is noise), which is 0.875 here.
    fn default_settings(&self) -> Settings {
        let guidance = match self.null_class() {
            Some(_) => Guidance { high: 0.875, channels: Some(3), ..Guidance::new(6.7) },
            None => Guidance::NONE,
        };
        Settings { shift: 0.3, ..Settings::new(Sampler::Euler, 249, guidance) }
    }

    fn rounding(&self) -> Rounding {
        Rounding::Up
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model section of the released 64-epoch configuration, with what surrounds it.
    const RELEASED: &str = "
ckpt_path: /path/to/checkpoint.pt
data:
  image_size: 256
  num_classes: 1000
  latent_norm: true
  latent_multiplier: 1.0
vae:
  model_name: 'vavae_f16d32'
  downsample_ratio: 16
model:
  model_type: LightningDiT-XL/1
  use_qknorm: false
  use_swiglu: true
  use_rope: true
  use_rmsnorm: true
  wo_shift: false
  in_chans: 32
train:
  max_steps: 80000
  weight_init:
sample:
  cfg_scale: 10.0
";

    #[test]
    fn the_released_yaml_is_the_published_network() {
        let config = LightningDiTConfig::from_yaml(RELEASED).expect("it parses");
        assert_eq!(Some(config), LightningDiTConfig::variant("LightningDiT-XL/1"));
    }

    #[test]
    fn a_network_without_width_or_of_an_absurd_one_is_refused() {
        let config = LightningDiTConfig::variant("LightningDiT-B/1").expect("a variant");
        let without = LightningDiTConfig { hidden_size: 0, ..config.clone() };
        assert!(without.validate().expect_err("no width").0.contains("hidden_size 0"));
        for (name, vast) in [
            ("input_size", LightningDiTConfig { input_size: 1 << 40, ..config.clone() }),
            ("in_channels", LightningDiTConfig { in_channels: 1 << 40, ..config.clone() }),
            ("hidden_size", LightningDiTConfig { hidden_size: 12 << 40, ..config.clone() }),
            ("hidden_size · mlp_ratio", LightningDiTConfig { mlp_ratio: 1e12, ..config.clone() }),
            (
                "patch_size² · in_channels",
                LightningDiTConfig { input_size: 4096, patch_size: 4096, ..config.clone() },
            ),
            ("num_classes", LightningDiTConfig { num_classes: usize::MAX, ..config }),
        ] {
            let refused = vast.validate().expect_err("absurd").0;
            assert!(refused.starts_with(name) && refused.contains("is above"), "{refused}");
        }
    }

    #[test]
    fn options_and_mistakes_in_yaml_are_seen() {
        let with =
            |from: &str, to: &str| LightningDiTConfig::from_yaml(&RELEASED.replace(from, to));
        let config = with("use_qknorm: false", "use_qknorm: true").expect("it parses");
        assert!(config.use_qknorm && config.use_swiglu);
        assert_eq!(with("in_chans: 32", "").expect("a default").in_channels, 4);
        assert!(with("XL/1", "XXL/1").expect_err("unknown").0.contains("LightningDiT-XXL/1"));
        assert!(LightningDiTConfig::from_yaml("model: [").is_err());
    }
}
