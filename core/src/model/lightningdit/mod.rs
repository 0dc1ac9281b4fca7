//! LightningDiT (Yao et al., CVPR 2025, arXiv 2501.01423): DiT with RMSNorm, SwiGLU and RoPE on
//! the latents of a vision-aligned autoencoder.
//!
//! **Its clock runs the other way: t = 0 is noise, t = 1 is data.** This file keeps the authors'
//! clock; [`crate::generate`] turns it at the edge.

mod config;
mod published;
mod recognize;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

pub use config::LightningDiTConfig;
pub use recognize::FAMILY;

use super::{InvalidConfig, Network};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::norm::NormKind;
use crate::nn::patch::{PatchEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::rope::AxialRope;
use crate::nn::table;

impl LightningDiTConfig {
    /// The untrained network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](LightningDiTConfig::validate) fails.
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
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        self.forward_through(x, t, y, &mut run_blocks)
    }

    /// [`forward`](Self::forward) with another way to run the blocks.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn forward_through(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        run: RunBlocks<'_>,
    ) -> Tensor<4> {
        let c = self.condition(t, y); // [B, D]
        let h = self.x_embedder.forward(x) + self.pos_embed.val(); // [B, N, D]
        let rope = self.feat_rope.as_ref().map(AxialRope::table);
        let (h, c) = run(&self.blocks, rope.as_ref(), h, c);
        self.image(self.final_layer.head(self.final_layer.modulate(h, c)))
    }

    /// [`forward`](Self::forward) with every intermediate value kept.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`
    /// * returns [`Trace`], whose fields state theirs
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the table
    /// (which has a null row only where labels are dropped in training).
    pub fn trace(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Trace {
        let c = self.condition(t, y);
        let patches = self.x_embedder.forward(x);
        let embedded = patches.clone() + self.pos_embed.val();
        let rope = self.feat_rope.as_ref().map(AxialRope::table);
        let mut h = embedded.clone();
        let blocks: Vec<_> = self
            .blocks
            .iter()
            .map(|block| {
                h = block.forward(h.clone(), c.clone(), rope.as_ref());
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

    /// The embedding of time alone (0 is noise).
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
    /// If a label is beyond the table, on the CPU.
    pub fn label_embedding(&self, y: Tensor<1, Int>) -> Tensor<2> {
        self.y_embedder.forward(y)
    }

    /// The label table, whose [`drop_labels`](LabelEmbedder::drop_labels) training uses.
    pub fn labels(&self) -> &LabelEmbedder {
        &self.y_embedder
    }
}

impl Network for LightningDiT {
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        self.forward(x, times, labels)
    }
}
