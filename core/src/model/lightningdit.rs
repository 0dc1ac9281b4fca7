//! LightningDiT (Yao et al., CVPR 2025, arXiv 2501.01423): DiT with RMSNorm, SwiGLU and RoPE on
//! the latents of a vision-aligned autoencoder.
//!
//! **Its clock runs the other way: t = 0 is noise, t = 1 is data.** This file keeps the authors'
//! clock; [`crate::generate`] turns it at the edge.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{InvalidConfig, ensure};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::norm::NormKind;
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::rope::AxialRope;
use crate::nn::table;

/// Shape and options of a LightningDiT; the defaults are those of the constructor, which every
/// released configuration overrides with `use_swiglu`, `use_rope` and `use_rmsnorm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LightningDiTConfig {
    /// Side of the latent image.
    #[serde(default = "default_input_size")]
    pub input_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Latent channels (`in_chans` in the YAML).
    #[serde(alias = "in_chans", default = "default_in_channels")]
    pub in_channels: usize,
    /// Width D.
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the plain MLP over D.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Classes.
    #[serde(default = "default_num_classes")]
    pub num_classes: usize,
    /// Label dropout; the null row exists where it is positive.
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
fn default_in_channels() -> usize {
    4
}
fn default_mlp_ratio() -> f64 {
    4.0
}
fn default_num_classes() -> usize {
    1000
}
fn default_dropout() -> f64 {
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

    /// Reads the `model`, `data` and `vae` sections of LightningDiT's training YAML.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidConfig> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            data: Data,
            #[serde(default)]
            vae: Vae,
            model: Model,
        }
        #[derive(Deserialize)]
        #[serde(default)]
        struct Data {
            image_size: usize,
            num_classes: usize,
        }
        impl Default for Data {
            fn default() -> Self {
                Self { image_size: 256, num_classes: 1000 }
            }
        }
        #[derive(Deserialize)]
        #[serde(default)]
        struct Vae {
            downsample_ratio: usize,
        }
        impl Default for Vae {
            fn default() -> Self {
                Self { downsample_ratio: 16 }
            }
        }
        #[derive(Deserialize)]
        struct Model {
            model_type: String,
            #[serde(default = "default_in_channels")]
            in_chans: usize,
            #[serde(default)]
            use_qknorm: bool,
            #[serde(default)]
            use_swiglu: bool,
            #[serde(default)]
            use_rope: bool,
            #[serde(default)]
            use_rmsnorm: bool,
            #[serde(default)]
            wo_shift: bool,
            #[serde(default)]
            learn_sigma: bool,
        }
        let file: File =
            serde_saphyr::from_str(text).map_err(|e| InvalidConfig(format!("YAML: {e}")))?;
        let m = file.model;
        let base = Self::variant(&m.model_type).ok_or_else(|| {
            InvalidConfig(format!(
                "unknown model_type {:?}; known are LightningDiT-{{B,L,XL,1p0B,1p6B}}/{{1,2}}",
                m.model_type
            ))
        })?;
        ensure!(file.vae.downsample_ratio > 0, "downsample_ratio must be positive");
        let config = Self {
            input_size: file.data.image_size / file.vae.downsample_ratio,
            num_classes: file.data.num_classes,
            in_channels: m.in_chans,
            use_qknorm: m.use_qknorm,
            use_swiglu: m.use_swiglu,
            use_rope: m.use_rope,
            use_rmsnorm: m.use_rmsnorm,
            wo_shift: m.wo_shift,
            learn_sigma: m.learn_sigma,
            ..base
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the numbers describe a network.
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
        ensure!(hidden_size.is_multiple_of(4), "hidden_size {hidden_size} is not divisible by 4");
        ensure!(
            !self.use_rope || (hidden_size / num_heads).is_multiple_of(4),
            "the head size {} is not divisible by 4, which RoPE needs",
            hidden_size / num_heads
        );
        ensure!(self.in_channels > 0 && self.depth > 0, "in_channels and depth must be positive");
        ensure!(self.mlp_ratio > 0.0, "mlp_ratio must be positive");
        Ok(())
    }

    /// The untrained network.
    pub fn init(&self, device: &Device) -> Result<LightningDiT, InvalidConfig> {
        self.validate()?;
        let d = self.hidden_size;
        let norm = if self.use_rmsnorm { NormKind::RmsNorm } else { NormKind::LayerNorm };
        let qk_norm = match (self.use_qknorm, self.use_rmsnorm) {
            (false, _) => None,
            (true, true) => Some(NormKind::RmsNorm),
            (true, false) => Some(NormKind::LayerNormAffine),
        };
        let block = BlockConfig {
            hidden: d,
            heads: self.num_heads,
            mlp_width: (d as f64 * self.mlp_ratio) as usize,
            norm,
            qk_norm,
            swiglu: self.use_swiglu,
            shift: !self.wo_shift,
        };
        let grid = self.input_size / self.patch_size;
        let positions = move || sin_cos_2d(d, grid).into_iter().map(|v| v as f32).collect();
        let out_channels = if self.learn_sigma { 2 } else { 1 } * self.in_channels;
        let out = self.patch_size * self.patch_size * out_channels;
        let null_row = self.class_dropout_prob > 0.0;
        Ok(LightningDiT {
            x_embedder: PatchEmbed::new(self.in_channels, d, self.patch_size, device),
            t_embedder: TimestepEmbedder::new(d, device),
            y_embedder: LabelEmbedder::new(self.num_classes, null_row, d, device),
            pos_embed: table([1, grid * grid, d], positions, device),
            feat_rope: self.use_rope.then(|| AxialRope::new(d / self.num_heads, grid, device)),
            blocks: (0..self.depth).map(|_| DitBlock::new(block, device)).collect(),
            final_layer: FinalLayer::new(d, out, norm, device),
            patch_size: self.patch_size,
            in_channels: self.in_channels,
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct LightningDiT {
    x_embedder: PatchEmbed,
    t_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    pos_embed: Param<Tensor<3>>,
    feat_rope: Option<AxialRope>,
    blocks: Vec<DitBlock>,
    final_layer: FinalLayer,
    patch_size: usize,
    in_channels: usize,
}

/// Intermediate values of a forward pass, for inspection.
#[derive(Debug)]
pub struct Trace {
    /// Patches before positions, `[B, N, D]`.
    pub patches: Tensor<3>,
    /// Patches with positions, `[B, N, D]`.
    pub embedded: Tensor<3>,
    /// The residual stream after each block, `[B, N, D]`.
    pub blocks: Vec<Tensor<3>>,
    /// The head's output before unpatchifying, `[B, N, p²·C]`.
    pub tokens: Tensor<3>,
}

impl LightningDiT {
    /// The velocity `data − noise` at the authors' time (0 is noise, 1 is data).
    ///
    /// * `x`: `[B, C, S, S]`, `t`: `[B]`, `y`: `[B]`; returns `[B, C, S, S]`
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        self.forward_through(x, t, y, &mut run_blocks)
    }

    /// [`forward`](Self::forward) with another way to run the blocks.
    pub fn forward_through(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        run: RunBlocks<'_>,
    ) -> Tensor<4> {
        let c = self.condition(t, y); // [B, D]
        let h = self.x_embedder.forward(x) + self.pos_embed.val(); // [B, N, D]
        let (h, c) = run(&self.blocks, self.feat_rope.as_ref(), h, c);
        self.image(self.final_layer.head(self.final_layer.modulate(h, c)))
    }

    /// [`forward`](Self::forward) with every intermediate value kept.
    pub fn trace(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Trace {
        let c = self.condition(t, y);
        let patches = self.x_embedder.forward(x);
        let embedded = patches.clone() + self.pos_embed.val();
        let rope = self.feat_rope.as_ref();
        let mut h = embedded.clone();
        let blocks: Vec<_> = self
            .blocks
            .iter()
            .map(|block| {
                h = block.forward(h.clone(), c.clone(), rope);
                h.clone()
            })
            .collect();
        let tokens = self.final_layer.head(self.final_layer.modulate(h, c));
        Trace { patches, embedded, blocks, tokens }
    }

    fn condition(&self, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<2> {
        silu(self.t_embedder.forward(t) + self.y_embedder.forward(y))
    }

    fn image(&self, tokens: Tensor<3>) -> Tensor<4> {
        unpatchify(tokens, self.patch_size).narrow(1, 0, self.in_channels)
    }

    /// The embedding of time alone, `[B, D]`.
    pub fn time_embedding(&self, t: Tensor<1>) -> Tensor<2> {
        self.t_embedder.forward(t)
    }

    /// The embedding of labels alone, `[B, D]`.
    pub fn label_embedding(&self, y: Tensor<1, Int>) -> Tensor<2> {
        self.y_embedder.forward(y)
    }

    /// The label table, whose [`drop_labels`](LabelEmbedder::drop_labels) training uses.
    pub fn labels(&self) -> &LabelEmbedder {
        &self.y_embedder
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
