//! SiT: Scalable Interpolant Transformers (Ma et al., ECCV 2024, arXiv 2401.08740), as REPA-E
//! trains it (Leng et al., ICCV 2025, arXiv 2504.10483).
//!
//! DiT blocks over latents that predict a velocity; **t = 0 is data, t = 1 is noise**, fed
//! unscaled. REPA's projectors read the residual stream after block `encoder_depth` and are part
//! of training only; the affine-free batch norm `bn` holds the latent statistics.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{InvalidConfig, ensure};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::{LatentNorm, NormKind};
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::table;

/// Shape of a SiT. Keys are REPA-E's; Hi-DiT's short names are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiTConfig {
    /// Side of the latent image, in latent pixels.
    #[serde(alias = "latent_size", default = "default_input_size")]
    pub input_size: usize,
    /// Side of a patch.
    #[serde(alias = "patch", default = "one")]
    pub patch_size: usize,
    /// Latent channels.
    #[serde(alias = "latent_channels")]
    pub in_channels: usize,
    /// Width D.
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
    pub fn tokens(&self) -> usize {
        (self.input_size / self.patch_size).pow(2)
    }

    /// The untrained network.
    pub fn init(&self, device: &Device) -> Result<SiT, InvalidConfig> {
        self.validate()?;
        let d = self.hidden_size;
        let block = BlockConfig {
            hidden: d,
            heads: self.num_heads,
            mlp_width: (d as f64 * self.mlp_ratio) as usize,
            norm: NormKind::LayerNorm,
            qk_norm: self.qk_norm.then_some(NormKind::LayerNormAffine),
            swiglu: false,
            shift: true,
        };
        let grid = self.input_size / self.patch_size;
        let positions = move || sin_cos_2d(d, grid).into_iter().map(|v| v as f32).collect();
        let out = self.patch_size * self.patch_size * self.in_channels;
        let projector = |&z: &usize| Projector::new(d, self.projector_dim, z, device);
        Ok(SiT {
            x_embedder: PatchEmbed::new(self.in_channels, d, self.patch_size, device),
            t_embedder: TimestepEmbedder::new(d, device),
            y_embedder: LabelEmbedder::new(self.num_classes, true, d, device),
            pos_embed: table([1, grid * grid, d], positions, device),
            blocks: (0..self.depth).map(|_| DitBlock::new(block, device)).collect(),
            final_layer: FinalLayer::new(d, out, NormKind::LayerNorm, device),
            projectors: self.z_dims.iter().map(projector).collect(),
            bn: LatentNorm::new(self.in_channels, device),
            patch_size: self.patch_size,
            encoder_depth: self.encoder_depth,
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct SiT {
    x_embedder: PatchEmbed,
    t_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    pos_embed: Param<Tensor<3>>,
    blocks: Vec<DitBlock>,
    final_layer: FinalLayer,
    projectors: Vec<Projector>,
    /// Latent statistics.
    pub bn: LatentNorm,
    patch_size: usize,
    encoder_depth: usize,
}

impl SiT {
    /// The velocity of latents in normalised space.
    ///
    /// * `x`: `[B, C, S, S]`, `t`: `[B]` in 0…1 (1 is noise), `y`: `[B]`
    ///
    /// Returns `[B, C, S, S]`.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        let c = self.condition(t, y); // [B, D]
        let h = self.blocks(self.embed(x), c.clone()); // [B, N, D]
        self.velocity(self.modulated(h, c))
    }

    /// [`forward`](Self::forward) together with the projected features of block
    /// `encoder_depth`, `[B, N, z_dim]` for each teacher (REPA).
    pub fn forward_with_features(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
    ) -> (Tensor<4>, Vec<Tensor<3>>) {
        let c = self.condition(t, y);
        let (tokens, features) = self.tokens_and_features(self.embed(x), c, true, &mut run_blocks);
        (self.velocity(tokens), features)
    }

    /// All blocks and the final modulation from embedded tokens `[B, N, D]` and condition
    /// `[B, D]`; with REPA's projected features of block `encoder_depth` where they are wanted.
    pub(super) fn tokens_and_features(
        &self,
        h: Tensor<3>,
        c: Tensor<2>,
        features: bool,
        run: RunBlocks<'_>,
    ) -> (Tensor<3>, Vec<Tensor<3>>) {
        if !features {
            let (h, c) = run(&self.blocks, None, h, c);
            return (self.modulated(h, c), Vec::new());
        }
        let (early, late) = self.blocks.split_at(self.encoder_depth);
        let (h, c) = run(early, None, h, c);
        let features = self.project(h.clone());
        let (h, c) = run(late, None, h, c);
        (self.modulated(h, c), features)
    }

    /// Only the projected features; the blocks after them are not computed (REPA-E's alignment).
    pub fn features(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Vec<Tensor<3>> {
        self.project(self.stream(x, t, y, self.encoder_depth))
    }

    /// The residual stream `[B, N, D]` after the first `blocks` blocks.
    pub fn stream(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        blocks: usize,
    ) -> Tensor<3> {
        let c = self.condition(t, y);
        let h = self.embed(x);
        self.blocks[..blocks].iter().fold(h, |h, block| block.forward(h, c.clone(), None))
    }

    /// Patches with their positions: `[B, C, S, S]` → `[B, N, D]`
    pub(super) fn embed(&self, x: Tensor<4>) -> Tensor<3> {
        self.x_embedder.forward(x) + self.pos_embed.val()
    }

    /// **SiLU of** the sum of time and label embedding, `[B, D]`: all that the blocks use of it.
    pub(super) fn condition(&self, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<2> {
        silu(self.t_embedder.forward(t) + self.y_embedder.forward(y))
    }

    /// All blocks: `[B, N, D]` → `[B, N, D]`
    pub(super) fn blocks(&self, h: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        self.blocks.iter().fold(h, |h, block| block.forward(h, c.clone(), None))
    }

    /// The final layer's normalised and modulated tokens, `[B, N, D]`.
    pub(super) fn modulated(&self, h: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        self.final_layer.modulate(h, c)
    }

    /// `[B, N, D]` → `[B, C, S, S]`
    pub(super) fn velocity(&self, tokens: Tensor<3>) -> Tensor<4> {
        unpatchify(self.final_layer.head(tokens), self.patch_size)
    }

    fn project(&self, h: Tensor<3>) -> Vec<Tensor<3>> {
        self.projectors.iter().map(|p| p.forward(h.clone())).collect()
    }

    /// The embedding of time alone, `[B, D]`.
    pub fn time_embedding(&self, t: Tensor<1>) -> Tensor<2> {
        self.t_embedder.forward(t)
    }

    /// The embedding of labels alone, `[B, D]`.
    pub fn label_embedding(&self, y: Tensor<1, Int>) -> Tensor<2> {
        self.y_embedder.forward(y)
    }
}

/// REPA's projector of one teacher: three linear layers with SiLU between.
#[derive(Module, Debug)]
pub struct Projector {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl Projector {
    fn new(d: usize, inner: usize, z: usize, device: &Device) -> Self {
        Self {
            fc1: Linear::new(d, inner, Init::Xavier, device),
            fc2: Linear::new(inner, inner, Init::Xavier, device),
            fc3: Linear::new(inner, z, Init::Xavier, device),
        }
    }

    /// `[B, N, D]` → `[B, N, z]`
    fn forward(&self, h: Tensor<3>) -> Tensor<3> {
        let h = silu(self.fc1.forward(h)); // [B, N, inner]
        let h = silu(self.fc2.forward(h));
        self.fc3.forward(h) // [B, N, z]
    }
}
