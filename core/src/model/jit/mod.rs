//! JiT, "just image Transformers" (arXiv 2511.13720): a plain transformer on large patches of pixels that predicts the
//! clean image.
//!
//! **Its clock runs the other way: t = 0 is noise, t = 1 is data.** This file keeps the authors' clock, on which
//! `z_t = t·x + (1 − t)·e`; [`crate::generate`] turns it at the edge. Of the estimate x̂ of the image the velocity
//! `(x̂ − z)/max(1 − t, t_eps)` is made. Patches come through a bottleneck, and behind a third of the blocks tokens of
//! the class stand in front of them.

mod config;
mod recognize;

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor};

pub use config::JitConfig;
pub use recognize::FAMILY;
pub(in crate::model) use recognize::is_one;

use super::{InvalidConfig, Network};
use crate::nn::activation::silu;
use crate::nn::block::{BlockConfig, DitBlock, FinalLayer, RunBlocks, run_blocks};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::norm::NormKind;
use crate::nn::patch::{BottleneckEmbed, unpatchify};
use crate::nn::position::sin_cos_2d;
use crate::nn::rope::{Places, RotaryTable};
use crate::nn::{normal, table};

impl JitConfig {
    /// The untrained network: x̂ is 0.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](JitConfig::validate) fails.
    pub fn init(&self, device: &Device) -> Result<Jit, InvalidConfig> {
        self.validate()?;
        let Self { in_channels, patch_size, bottleneck_dim, num_classes, .. } = *self;
        let (d, side, context) = (self.hidden_size, self.grid(), self.in_context_len);
        let block = BlockConfig {
            hidden: d,
            heads: self.num_heads,
            mlp_width: self.mlp_width(),
            norm: NormKind::RmsNorm,
            qk_norm: Some(NormKind::RmsNorm),
            swiglu: true,
            shift: true,
        };
        let positions = move || sin_cos_2d(d, side).into_iter().map(|v| v as f32).collect();
        let values = patch_size * patch_size * in_channels;
        Ok(Jit {
            pos_embed: table([1, side * side, d], positions, device),
            in_context_posemb: (context > 0).then(|| normal([1, context, d], 0.02, device)),
            t_embedder: TimestepEmbedder::new(d, device),
            y_embedder: LabelEmbedder::new(num_classes, true, d, device),
            x_embedder: BottleneckEmbed::without_bias(
                in_channels,
                bottleneck_dim,
                d,
                patch_size,
                device,
            ),
            blocks: (0..self.depth).map(|_| DitBlock::new(block, device)).collect(),
            final_layer: FinalLayer::new(d, values, NormKind::RmsNorm, device),
            patch_size,
            in_context_start: self.in_context_start,
            head_size: d / self.num_heads,
            t_eps: self.t_eps,
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Jit {
    pos_embed: Param<Tensor<3>>,
    in_context_posemb: Option<Param<Tensor<3>>>,
    t_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    x_embedder: BottleneckEmbed,
    blocks: Vec<DitBlock>,
    final_layer: FinalLayer,
    patch_size: usize,
    in_context_start: usize,
    head_size: usize,
    t_eps: f64,
}

/// Intermediate values of a forward pass, for inspection.
#[derive(Debug)]
pub struct Trace {
    /// The embedding of the time, `[B, D]`.
    pub time: Tensor<2>,
    /// The embedding of the label, `[B, D]`.
    pub label: Tensor<2>,
    /// Patches before positions, `[B, N, D]`.
    pub patches: Tensor<3>,
    /// The residual stream that enters the first block, then that after each block: `[B, N, D]`, and `[B, M + N, D]`
    /// from the block on that in-context tokens enter before.
    pub streams: Vec<Tensor<3>>,
    /// The head's output before unpatchifying, `[B, N, p²·C]`.
    pub tokens: Tensor<3>,
}

/// `max(1 − t, t_eps)`, which velocities are divided by, in float32.
///
/// # Shapes
///
/// * `t`: `[B]` in 0…1 (**0 is noise**)
/// * returns `[B]`
pub fn time_left(t: Tensor<1>, t_eps: f64) -> Tensor<1> {
    (-t.cast(FloatDType::F32) + 1.0).clamp_min(t_eps)
}

impl Jit {
    /// The estimate x̂ of the image, in the network's precision.
    ///
    /// # Shapes
    ///
    /// * `x`: the state at time t, `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`, each a class or the null class
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Tensor<4> {
        self.forward_through(x, t, y, &mut run_blocks)
    }

    /// [`forward`](Self::forward) with another way to run the blocks.
    ///
    /// # Shapes
    ///
    /// * `x`: the state at time t, `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`, each a class or the null class
    /// * `run`: of `[B, N, D]` and `[B, D]`; with in-context tokens without blocks of the label `[B, 1, D]` and `[B, D]`,
    ///   then of `[B, N, D]` and of `[B, M + N, D]`, each with `[B, D]`
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    pub fn forward_through(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        run: RunBlocks<'_>,
    ) -> Tensor<4> {
        unpatchify(self.tokens(x, t, y, run), self.patch_size) // [B, C, S, S]
    }

    /// [`forward`](Self::forward) with every intermediate value kept.
    ///
    /// # Shapes
    ///
    /// * `x`: the state at time t, `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * `y`: `[B]`, each a class or the null class
    /// * returns [`Trace`], whose fields state theirs
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    pub fn trace(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>) -> Trace {
        let mut streams: Vec<Tensor<3>> = Vec::new();
        let mut keep =
            |blocks: &[DitBlock], rope: Option<&RotaryTable>, mut h: Tensor<3>, c: Tensor<2>| {
                for block in blocks {
                    if streams.is_empty() {
                        streams.push(h.clone());
                    }
                    h = block.forward(h, c.clone(), rope);
                    streams.push(h.clone());
                }
                (h, c)
            };
        let tokens = self.tokens(x.clone(), t.clone(), y.clone(), &mut keep);
        let (time, label) = (self.t_embedder.forward(t), self.y_embedder.forward(y));
        Trace { time, label, patches: self.patches(x), streams, tokens }
    }

    /// The velocity `(x̂ − z)/max(1 − t, t_eps)` towards the data, in float32.
    ///
    /// # Shapes
    ///
    /// * `z`: the state at time t, `[B, C, S, S]`
    /// * `x_hat`: the estimate of the image there, `[B, C, S, S]`
    /// * `t`: `[B]` in 0…1 (**0 is noise**)
    /// * returns `[B, C, S, S]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn velocity(&self, z: Tensor<4>, x_hat: Tensor<4>, t: Tensor<1>) -> Tensor<4> {
        let left: Tensor<4> = time_left(t, self.t_eps).reshape([-1, 1, 1, 1]);
        (x_hat.cast(FloatDType::F32) - z.cast(FloatDType::F32)) / left
    }

    /// Least `1 − t` that velocities are divided by.
    pub fn t_eps(&self) -> f64 {
        self.t_eps
    }

    /// The label table, whose [`drop_labels`](LabelEmbedder::drop_labels) training uses.
    pub fn labels(&self) -> &LabelEmbedder {
        &self.y_embedder
    }

    /// Rotations of the sequence: of its patches, by their row and column, behind so many tokens that are not rotated.
    pub fn rope(&self, in_context: usize, device: &Device) -> RotaryTable {
        let side = self.pos_embed.val().dims()[1].isqrt();
        RotaryTable::new(Places::Grid { prefix: in_context, side }, self.head_size, device)
    }

    /// The values of the patches, `[B, N, p²·C]`.
    fn tokens(
        &self,
        x: Tensor<4>,
        t: Tensor<1>,
        y: Tensor<1, Int>,
        run: RunBlocks<'_>,
    ) -> Tensor<3> {
        let device = x.device();
        let label = self.y_embedder.forward(y); // [B, D]
        let c = silu(self.t_embedder.forward(t) + label.clone()); // [B, D]
        let h = self.patches(x) + self.pos_embed.val(); // [B, N, D]
        let (h, c) = match &self.in_context_posemb {
            None => run(&self.blocks, Some(&self.rope(0, &device)), h, c),
            Some(positions) => {
                let patches = h.dims()[1];
                // No blocks: where `run` cuts the graph of gradients, the label, which is used on both sides of the first
                // row of blocks, lies in front of one cut.
                let (label, c) = run(&[], None, label.unsqueeze_dim(1), c); // [B, 1, D] and [B, D]
                let (before, behind) = self.blocks.split_at(self.in_context_start);
                let (h, c) = run(before, Some(&self.rope(0, &device)), h, c); // [B, N, D]
                let context = label + positions.val(); // [B, M, D], the class alone, without the time
                let tokens = context.dims()[1];
                let h = Tensor::cat(vec![context, h], 1); // [B, M + N, D]
                let (h, c) = run(behind, Some(&self.rope(tokens, &device)), h, c);
                (h.narrow(1, tokens, patches), c) // [B, N, D]
            }
        };
        self.final_layer.head(self.final_layer.modulate(h, c)) // [B, N, p²·C]
    }

    /// Patches without positions, in the network's precision: `[B, C, S, S]` → `[B, N, D]`
    fn patches(&self, x: Tensor<4>) -> Tensor<3> {
        self.x_embedder.forward(x.cast(self.pos_embed.val().dtype()))
    }
}

impl Network for Jit {
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let x_hat = self.forward(x.clone(), times.clone(), labels);
        self.velocity(x, x_hat, times)
    }
}
