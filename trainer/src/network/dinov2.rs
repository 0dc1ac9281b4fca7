//! DINOv2 (Oquab et al., arXiv 2304.07193) as a frozen teacher.

use serde::Deserialize;
use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::model::InvalidConfig;
use tintype::nn::activation::gelu_erf;
use tintype::nn::attention::SelfAttention;
use tintype::nn::linear::{Init, Linear};
use tintype::nn::norm::layer_norm;
use tintype::nn::patch::PatchEmbed;
use tintype::weights::Weights;

use crate::data::resize::resample_positions;

/// Shape of a DINOv2 without registers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DinoConfig {
    /// Width.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads.
    pub num_heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the MLP over the width.
    pub mlp_ratio: usize,
    /// Image side that the position table was trained for.
    pub img_size: usize,
}

impl DinoConfig {
    /// ViT-B/14, REPA's teacher.
    pub fn vit_b14() -> Self {
        Self {
            embed_dim: 768,
            depth: 12,
            num_heads: 12,
            patch_size: 14,
            mlp_ratio: 4,
            img_size: 518,
        }
    }

    /// The size of a published checkpoint (`dinov2_vit*14_pretrain.pth`), from its shapes.
    pub fn of(weights: &Weights) -> Option<Self> {
        let shape = |name: &str| weights.tensors.get(name).map(|view| view.shape.clone());
        let embed_dim = *shape("cls_token")?.last()?;
        let rows = *shape("pos_embed")?.get(1)?;
        let patch_size = *shape("patch_embed.proj.weight")?.last()?;
        let depth = (0..).take_while(|i| shape(&format!("blocks.{i}.norm1.weight")).is_some());
        let mlp = *shape("blocks.0.mlp.fc1.weight")?.first()?;
        Some(Self {
            embed_dim,
            depth: depth.count(),
            num_heads: embed_dim / 64,
            patch_size,
            mlp_ratio: mlp / embed_dim,
            img_size: (rows - 1).isqrt() * patch_size,
        })
    }

    /// The untrained network.
    pub fn init(&self, device: &Device) -> Result<DinoV2, InvalidConfig> {
        let d = self.embed_dim;
        if self.num_heads == 0 || !d.is_multiple_of(self.num_heads) || self.patch_size == 0 {
            return Err(InvalidConfig(format!(
                "embed_dim {d} is not divisible by num_heads {}",
                self.num_heads
            )));
        }
        let rows = 1 + (self.img_size / self.patch_size).pow(2);
        Ok(DinoV2 {
            cls_token: Initializer::Zeros.init([1, 1, d], device),
            pos_embed: Initializer::Zeros.init([1, rows, d], device),
            patch_embed: PatchEmbed::new(3, d, self.patch_size, device),
            blocks: (0..self.depth).map(|_| DinoBlock::new(self, device)).collect(),
            norm: AffineNorm::new(d, device),
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct DinoV2 {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<DinoBlock>,
    norm: AffineNorm,
}

/// The normalised tokens.
#[derive(Debug)]
pub struct Tokens {
    /// `[B, D]`
    pub class: Tensor<2>,
    /// `[B, N, D]`, row-major.
    pub patches: Tensor<3>,
}

impl DinoV2 {
    /// Resamples the position table once to a grid of `side²` patches, as REPA does at load.
    pub fn with_grid(mut self, side: usize) -> Self {
        let table = self.pos_embed.val();
        let (device, d) = (table.device(), table.dims()[2]);
        let values: Vec<f32> = table.into_data().iter::<f32>().collect();
        let table = resample_positions(&values, d, side);
        let data = TensorData::new(table, [1, 1 + side * side, d]);
        self.pos_embed = Param::from_data(data, &device).set_require_grad(false);
        self
    }

    /// `[B, 3, side·patch, side·patch]`, ImageNet-normalised → tokens after the final norm
    pub fn forward(&self, x: Tensor<4>) -> Tokens {
        let b = x.dims()[0];
        let patches = self.patch_embed.forward(x); // [B, N, D]
        let [_, n, d] = patches.dims();
        let class = self.cls_token.val().expand([b, 1, d]);
        let mut h = Tensor::cat(vec![class, patches], 1) + self.pos_embed.val(); // [B, 1+N, D]
        for block in &self.blocks {
            h = block.forward(h);
        }
        let h = self.norm.forward(h);
        Tokens { class: h.clone().narrow(1, 0, 1).reshape([b, d]), patches: h.narrow(1, 1, n) }
    }
}

#[derive(Module, Debug)]
struct DinoBlock {
    norm1: AffineNorm,
    attn: SelfAttention,
    ls1: LayerScale,
    norm2: AffineNorm,
    mlp: ErfMlp,
    ls2: LayerScale,
}

impl DinoBlock {
    fn new(config: &DinoConfig, device: &Device) -> Self {
        let d = config.embed_dim;
        Self {
            norm1: AffineNorm::new(d, device),
            attn: SelfAttention::new(d, config.num_heads, None, device),
            ls1: LayerScale { gamma: Initializer::Ones.init([d], device) },
            norm2: AffineNorm::new(d, device),
            mlp: ErfMlp {
                fc1: Linear::new(d, config.mlp_ratio * d, Init::Xavier, device),
                fc2: Linear::new(config.mlp_ratio * d, d, Init::Xavier, device),
            },
            ls2: LayerScale { gamma: Initializer::Ones.init([d], device) },
        }
    }

    /// `[B, 1+N, D]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let a = self.attn.forward(self.norm1.forward(x.clone()), None);
        let x = x + a * self.ls1.gamma.val().unsqueeze();
        let f = self.mlp.fc1.forward(self.norm2.forward(x.clone()));
        let f = self.mlp.fc2.forward(gelu_erf(f));
        x + f * self.ls2.gamma.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct LayerScale {
    gamma: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct ErfMlp {
    fc1: Linear,
    fc2: Linear,
}

/// LayerNorm, eps 1e-6, with weight and bias.
#[derive(Module, Debug)]
struct AffineNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl AffineNorm {
    fn new(d: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([d], device),
            bias: Initializer::Zeros.init([d], device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        layer_norm(x, 1e-6) * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
