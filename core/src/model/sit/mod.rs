//! SiT: Scalable Interpolant Transformers (Ma et al., ECCV 2024, arXiv 2401.08740), as REPA-E
//! trains it (Leng et al., ICCV 2025, arXiv 2504.10483).
//!
//! DiT blocks over latents that predict a velocity; **t = 0 is data, t = 1 is noise**, fed
//! unscaled (with `noise_at_zero`, as SiT's own authors train it, both are the other way round). REPA's
//! projectors read the residual stream after block `encoder_depth` and are part of training only; the
//! affine-free batch norm `bn` holds the latent statistics, where the weights have them.

mod config;
mod recognize;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

pub use config::SiTConfig;
pub(super) use recognize::tell_dropout;
pub use recognize::{FAMILY, sit_config};

use super::{InvalidConfig, Network};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::{LatentNorm, NormKind};
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::table;

impl SiTConfig {
    /// The untrained network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](SiTConfig::validate) fails.
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
        let out_channels = if self.learn_sigma { 2 } else { 1 } * self.in_channels;
        let out = self.patch_size * self.patch_size * out_channels;
        let null_row = self.class_dropout_prob > 0.0;
        let projector = |&z: &usize| Projector::new(d, self.projector_dim, z, device);
        Ok(SiT {
            x_embedder: PatchEmbed::new(self.in_channels, d, self.patch_size, device),
            t_embedder: TimestepEmbedder::new(d, device),
            y_embedder: LabelEmbedder::new(self.num_classes, null_row, d, device),
            pos_embed: table([1, grid * grid, d], positions, device),
            blocks: (0..self.depth).map(|_| DitBlock::new(block, device)).collect(),
            final_layer: FinalLayer::new(d, out, NormKind::LayerNorm, device),
            projectors: self.z_dims.iter().map(projector).collect(),
            bn: self.latent_norm.then(|| LatentNorm::new(self.in_channels, device)),
            patch_size: self.patch_size,
            in_channels: self.in_channels,
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
    /// Latent statistics, where the weights hold them.
    pub bn: Option<LatentNorm>,
    patch_size: usize,
    in_channels: usize,
    encoder_depth: usize,
}

impl SiT {
    /// The velocity of latents in normalised space: `noise − data`, or with `noise_at_zero`
    /// `data − noise`.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise; with `noise_at_zero` 0)
    /// * `y`: `[B]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        let c = self.condition(t, y); // [B, D]
        let h = self.blocks(self.embed(x), c.clone()); // [B, N, D]
        self.velocity(self.modulated(h, c))
    }

    /// [`forward`](Self::forward) together with the projected features of block `encoder_depth`
    /// (REPA).
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns `[B, C, S, S]`, and `[B, N, z_dim]` for each teacher
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, on the CPU a label is beyond the null class, or
    /// `encoder_depth` is beyond the last block.
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
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns `[B, N, z_dim]` for each teacher
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, on the CPU a label is beyond the null class, or
    /// `encoder_depth` is beyond the last block.
    pub fn features(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Vec<Tensor<3>> {
        self.project(self.stream(x, t, y, self.encoder_depth))
    }

    /// The residual stream after the first `blocks` blocks.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `y`: `[B]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, on the CPU a label is beyond the null class, or
    /// there are fewer blocks.
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

    /// `[B, N, D]` → `[B, C, S, S]`; what a head emits beyond the velocity is left out.
    pub(super) fn velocity(&self, tokens: Tensor<3>) -> Tensor<4> {
        let out = unpatchify(self.final_layer.head(tokens), self.patch_size); // [B, C or 2C, S, S]
        match out.dims()[1] == self.in_channels {
            true => out,
            false => out.narrow(1, 0, self.in_channels),
        }
    }

    /// Latents in normalised space by the weights' own statistics; unchanged where they hold none.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, S, S]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If C is not the number of channels.
    pub fn normalize(&self, z: Tensor<4>) -> Tensor<4> {
        match &self.bn {
            Some(bn) => bn.normalize(z),
            None => z,
        }
    }

    fn project(&self, h: Tensor<3>) -> Vec<Tensor<3>> {
        self.projectors.iter().map(|p| p.forward(h.clone())).collect()
    }

    /// The embedding of time alone (1 is noise).
    ///
    /// # Shapes
    ///
    /// * `t`: `[B]`
    /// * returns `[B, D]`
    pub fn time_embedding(&self, t: Tensor<1>) -> Tensor<2> {
        self.t_embedder.forward(t)
    }

    /// The embedding of labels alone.
    ///
    /// # Shapes
    ///
    /// * `y`: `[B]`
    /// * returns `[B, D]`
    ///
    /// # Panics
    ///
    /// If a label is beyond the null class, on the CPU.
    pub fn label_embedding(&self, y: Tensor<1, Int>) -> Tensor<2> {
        self.y_embedder.forward(y)
    }
}

impl Network for SiT {
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        self.forward(x, times, labels)
    }

    fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        match &self.bn {
            Some(bn) => bn.denormalize(z),
            None => z,
        }
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
