//! The shape of a DiT-DH, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::FAMILY;
use crate::diffusion::guidance::Guidance;
use crate::diffusion::time_shift::{BASE_DIMENSION, dimension_shift};
use crate::model::{
    Clock, DiffusionModel, InvalidConfig, LatentSpace, MAX_CLASSES, MAX_DEPTH, MAX_SIDE, MAX_WIDTH,
    Process, Untrained, bounded, ensure,
};
use crate::settings::{Sampler, Settings};

/// Shape and options of a DiT-DH, under the authors' names. Pairs are of the backbone and of the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DitDhConfig {
    /// Side of the latent image, in latent pixels.
    pub input_size: usize,
    /// Side of a patch, in latent pixels; only 1 exists.
    #[serde(default = "default_patch_size")]
    pub patch_size: usize,
    /// Latent channels C.
    pub in_channels: usize,
    /// Widths D₀ and D₁, each divisible by its number of heads.
    pub hidden_size: [usize; 2],
    /// Numbers of blocks.
    pub depth: [usize; 2],
    /// Attention heads, whose sizes are divisible by 4.
    pub num_heads: [usize; 2],
    /// Width of the plain MLP over D.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Label dropout, a probability; the null row exists where it is positive.
    #[serde(default = "default_dropout")]
    pub class_dropout_prob: f64,
    /// Classes; the null class, where labels are dropped in training, is one more.
    #[serde(default = "default_num_classes")]
    pub num_classes: usize,
    /// Norm of queries and keys.
    #[serde(default)]
    pub use_qknorm: bool,
    /// SwiGLU instead of GELU.
    #[serde(default = "yes")]
    pub use_swiglu: bool,
    /// RoPE; the authors' network does not run without.
    #[serde(default = "yes")]
    pub use_rope: bool,
    /// RMSNorm instead of LayerNorm.
    #[serde(default = "yes")]
    pub use_rmsnorm: bool,
    /// Blocks without shift in their modulation, with which the authors' network does not run.
    #[serde(default)]
    pub wo_shift: bool,
    /// A position table of the backbone, in addition to RoPE.
    #[serde(default = "yes")]
    pub use_pos_embed: bool,
    /// Times of training and sampling are shifted by the root of this over the base (`misc` in the YAML); absent: the
    /// number of a latent's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_dist_shift_dim: Option<f64>,
    /// The number of values whose times are not shifted; absent: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_dist_shift_base: Option<f64>,
}

fn default_patch_size() -> usize {
    1
}
pub(super) fn default_mlp_ratio() -> f64 {
    4.0
}
pub(super) fn default_dropout() -> f64 {
    0.1
}
fn default_num_classes() -> usize {
    1000
}
fn yes() -> bool {
    true
}

impl DitDhConfig {
    /// A size of the backbone, "S", "B" or "XL", with the head of 2 blocks of width 2048, on DINOv2-B's 768 channels of
    /// side `input_size`: 16 for images of 256², 32 for 512². `None` for other sizes.
    pub fn variant(size: &str, input_size: usize) -> Option<Self> {
        let (depth, hidden_size, num_heads) = match size {
            "S" => (12, 384, 6),
            "B" => (12, 768, 12),
            "XL" => (28, 1152, 16),
            _ => return None,
        };
        Some(Self {
            input_size,
            patch_size: 1,
            in_channels: 768,
            hidden_size: [hidden_size, 2048],
            depth: [depth, 2],
            num_heads: [num_heads, 16],
            mlp_ratio: 4.0,
            class_dropout_prob: 0.1,
            num_classes: 1000,
            use_qknorm: false,
            use_swiglu: true,
            use_rope: true,
            use_rmsnorm: true,
            wo_shift: false,
            use_pos_embed: true,
            time_dist_shift_dim: None,
            time_dist_shift_base: None,
        })
    }

    /// The time shift s = √(dim/base), positive: above 1 towards the noise, below 1 towards the data (arXiv 2510.11690).
    pub fn shift(&self) -> f64 {
        let [dim, base] = self.shift_sizes();
        dimension_shift(dim, base)
    }

    /// Dimension and base of the time shift.
    fn shift_sizes(&self) -> [f64; 2] {
        let values = self.in_channels as f64 * (self.input_size as f64).powi(2);
        [
            self.time_dist_shift_dim.unwrap_or(values),
            self.time_dist_shift_base.unwrap_or(BASE_DIMENSION),
        ]
    }

    /// Reads `stage_2.params` of RAE's YAML, of sampling or of training, and the time shift of `misc`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the text is no such YAML, or its numbers describe no network.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidConfig> {
        #[derive(Deserialize)]
        struct Published {
            stage_2: Stage,
            #[serde(default)]
            misc: Misc,
        }
        #[derive(Default, Deserialize)]
        struct Misc {
            time_dist_shift_dim: Option<f64>,
            time_dist_shift_base: Option<f64>,
        }
        #[derive(Deserialize)]
        struct Stage {
            params: DitDhConfig,
        }
        let file: Published =
            serde_saphyr::from_str(text).map_err(|e| InvalidConfig(format!("YAML: {e}")))?;
        let mut config = file.stage_2.params;
        let usual = config.shift_sizes();
        let own = |given: Option<f64>, usual: f64| given.filter(|size| *size != usual);
        config.time_dist_shift_dim = own(file.misc.time_dist_shift_dim, usual[0]);
        config.time_dist_shift_base = own(file.misc.time_dist_shift_base, usual[1]);
        config.validate()?;
        Ok(config)
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        ensure!(self.patch_size == 1, "patch_size {} is not 1", self.patch_size);
        ensure!(
            self.input_size > 0 && self.in_channels > 0,
            "input_size and in_channels must be positive"
        );
        bounded([
            ("input_size", self.input_size, MAX_SIDE),
            ("in_channels", self.in_channels, MAX_WIDTH),
            ("num_classes", self.num_classes, MAX_CLASSES),
        ])?;
        for (hidden_size, heads) in self.hidden_size.into_iter().zip(self.num_heads) {
            ensure!(
                (1..=MAX_WIDTH).contains(&hidden_size),
                "hidden_size {hidden_size} is not in 1…{MAX_WIDTH}"
            );
            ensure!(
                heads > 0 && hidden_size.is_multiple_of(heads),
                "hidden_size {hidden_size} is not divisible by num_heads {heads}"
            );
            ensure!(
                (hidden_size / heads).is_multiple_of(4),
                "the head size {} is not divisible by 4, which RoPE needs",
                hidden_size / heads
            );
            let mlp = hidden_size as f64 * self.mlp_ratio;
            ensure!(
                (2.0..=MAX_WIDTH as f64).contains(&mlp),
                "mlp_ratio {:?} does not make an MLP of 2 to {MAX_WIDTH} features",
                self.mlp_ratio
            );
        }
        let [backbone, head] = self.depth;
        ensure!(backbone > 0 && head > 0, "depth {:?} is not positive", self.depth);
        ensure!(
            backbone.saturating_add(head) <= MAX_DEPTH,
            "depth {:?} is above {MAX_DEPTH}",
            self.depth
        );
        ensure!(
            (0.0..=1.0).contains(&self.class_dropout_prob),
            "class_dropout_prob {} is not in 0…1",
            self.class_dropout_prob
        );
        for (key, size) in ["dim", "base"].into_iter().zip(self.shift_sizes()) {
            let is_one = size > 0.0 && size.is_finite();
            ensure!(is_one, "time_dist_shift_{key} {size} is not positive");
        }
        let shift = self.shift();
        ensure!(
            shift.is_normal(),
            "time_dist_shift_dim and time_dist_shift_base make a shift of {shift}"
        );
        ensure!(self.use_rope, "use_rope false does not run in the authors' network");
        ensure!(!self.wo_shift, "wo_shift true does not run in the authors' network");
        Ok(())
    }

    /// Multiply-adds of one sample's evaluation.
    pub fn macs(&self) -> f64 {
        let [d, head] = self.hidden_size.map(|width| width as f64);
        let n = (self.input_size as f64).powi(2);
        let c = self.in_channels as f64;
        // Modulations of the backbone are of the image, those of the head of each token.
        let row = |depth: usize, d: f64, modulated: f64| {
            let plain = self.mlp_ratio * d;
            let mlp = if self.use_swiglu { 3.0 * (plain * 2.0 / 3.0).trunc() } else { 2.0 * plain };
            depth as f64 * (n * d * (4.0 * d + mlp) + 2.0 * n * n * d + modulated * 6.0 * d * d)
        };
        let projector = if d == head { 0.0 } else { n * d * head };
        let embedders = 512.0 * d + d * d + n * c * (d + head);
        let last = n * (2.0 * head * head + head * c);
        row(self.depth[0], d, 1.0) + row(self.depth[1], head, n) + embedders + projector + last
    }
}

impl DiffusionModel for DitDhConfig {
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
        Process::Flow(Clock::NoiseAtOne)
    }

    /// Sampling follows the times that training drew, which end there: there is no step to 0.
    fn last_time(&self) -> f64 {
        0.001
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW
    }

    /// The authors' 50 times are 49 steps; they guide by another network alone.
    fn default_settings(&self) -> Settings {
        // LightningDiT's shift is on the other clock.
        let shift = 1.0 / self.shift();
        Settings { shift, ..Settings::new(Sampler::Euler, 49, Guidance::NONE) }
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What describes the network in the published file for sampling at 256², with what surrounds it.
    const PUBLISHED: &str = "
stage_1:
  target: stage1.RAE
  params:
    encoder_input_size: 224
    encoder_params: {'normalize': True}
stage_2:
  target: stage2.models.DDT.DiTwDDTHead
  params:
    input_size: 16
    patch_size: 1
    in_channels: 768
    hidden_size: [1152, 2048]
    depth: [28, 2]
    num_heads: [16, 16]
    mlp_ratio: 4.0
    class_dropout_prob: 0.1
    num_classes: 1000
    use_qknorm: False
    use_swiglu: True
    use_rope: True
    use_rmsnorm: True
    wo_shift: False
    use_pos_embed: True
  ckpt: 'stage2_model.pt'
sampler:
  mode: ODE
  params:
    sampling_method: 'euler'
    num_steps: 50
    atol: 1e-6
guidance:
  method: 'autoguidance'
  scale: 1.42
  t-min: 0.0
  guidance_model:
    params:
      hidden_size: [384, 2048]
";

    #[test]
    fn the_published_yaml_is_the_published_network() {
        let config = DitDhConfig::from_yaml(PUBLISHED).expect("it parses");
        assert_eq!(Some(config), DitDhConfig::variant("XL", 16));
    }

    #[test]
    fn options_and_mistakes_in_yaml_are_seen() {
        let with = |from: &str, to: &str| DitDhConfig::from_yaml(&PUBLISHED.replace(from, to));
        let config = with("use_qknorm: False", "use_qknorm: True").expect("it parses");
        assert!(config.use_qknorm && config.use_swiglu);
        assert!(with("use_pos_embed: True", "").expect("a default").use_pos_embed);
        let of_misc = |dim: &str| {
            DitDhConfig::from_yaml(&format!("{PUBLISHED}misc:\n  time_dist_shift_dim: {dim}\n"))
        };
        // The usual dimension is left out.
        assert_eq!(of_misc("196608").ok(), DitDhConfig::variant("XL", 16));
        assert_eq!(of_misc("16384").expect("another shift").shift(), 2.0);
        assert!(of_misc("0").expect_err("refused").0.contains("time_dist_shift_dim 0"));
        let endless = of_misc("1.0e300\n  time_dist_shift_base: 1.0e-300").expect_err("refused");
        assert!(endless.0.contains("a shift of inf"), "{endless}");
        let message = |from, to| with(from, to).expect_err("refused").0;
        assert!(message("use_rope: True", "use_rope: False").contains("use_rope"));
        assert!(message("wo_shift: False", "wo_shift: True").contains("wo_shift"));
        assert!(message("patch_size: 1", "patch_size: 2").contains("patch_size 2"));
        assert!(message("num_heads: [16, 16]", "num_heads: [16, 0]").contains("num_heads 0"));
        assert!(message("num_heads: [16, 16]", "num_heads: [64, 16]").contains("head size 18"));
        assert!(message("depth: [28, 2]", "depth: [28, 0]").contains("depth [28, 0]"));
        let vast = message("    input_size: 16", "    input_size: 1099511627776");
        assert!(vast.contains("input_size 1099511627776 is above"), "{vast}");
        let vast = message("[1152, 2048]", "[1152, 1099511627776]");
        assert!(vast.contains("hidden_size 1099511627776"), "{vast}");
        assert!(message("mlp_ratio: 4.0", "mlp_ratio: 0.0").contains("mlp_ratio 0"));
        assert!(message("stage_2:", "stage_3:").starts_with("YAML"));
    }
}
