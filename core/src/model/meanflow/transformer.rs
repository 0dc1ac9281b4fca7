//! The transformer from a sequence to the values of its patches: embeddings of the conditions, shared blocks, and a
//! head of more blocks for u and, in training, another one for v.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::block::{FinalLayer, Tokens};
use super::{Block, Condition, Shape};
use crate::nn::embedding::{LabelEmbedder, TimestepEmbedder};
use crate::nn::linear::Init;
use crate::nn::rope::RotaryTable;

/// What iMF and pMF have between their patches and their images.
#[derive(Module, Debug)]
pub struct Transformer {
    time_tokens: Tokens,
    class_tokens: Tokens,
    omega_tokens: Tokens,
    t_min_tokens: Tokens,
    t_max_tokens: Tokens,
    h_embedder: TimestepEmbedder,
    omega_embedder: TimestepEmbedder,
    cfg_t_start_embedder: TimestepEmbedder,
    cfg_t_end_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    shared_blocks: Vec<Block>,
    u_heads: Vec<Block>,
    v_heads: Vec<Block>,
    u_final_layer: FinalLayer,
    v_final_layer: Option<FinalLayer>,
}

/// Embeddings of the conditions, `[B, D]` each.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Of `h = t − r`.
    pub h: Tensor<2>,
    /// Of `1 − 1/ω`.
    pub omega: Tensor<2>,
    /// Of t_min.
    pub t_min: Tensor<2>,
    /// Of t_max.
    pub t_max: Tensor<2>,
    /// Of the class.
    pub y: Tensor<2>,
}

/// Intermediate values of a forward pass, for inspection.
#[derive(Debug)]
pub struct Trace {
    /// The stream after each shared block, `[B, n, D]`.
    pub shared_blocks: Vec<Tensor<3>>,
    /// The stream after each block of the head of u, `[B, n, D]`.
    pub u_blocks: Vec<Tensor<3>>,
    /// The head's output before unpatchifying, `[B, N, p²·C]`.
    pub u_tokens: Tensor<3>,
    /// The stream after each block of the head of v, where there is one.
    pub v_blocks: Vec<Tensor<3>>,
    /// That head's output, `[B, N, p²·C]`.
    pub v_tokens: Option<Tensor<3>>,
}

impl Transformer {
    /// Token tables are stored with a leading axis of 1 where they are `batched`.
    pub(in crate::model) fn new(shape: &Shape, batched: bool, device: &Device) -> Self {
        let d = shape.hidden_size;
        let tokens = |n: usize| Tokens::new(n, d, batched, device);
        let embedder = || TimestepEmbedder::with_init(d, Init::Scaled(1.0), device);
        let blocks =
            |n: usize| -> Vec<Block> { (0..n).map(|_| Block::new(shape, device)).collect() };
        let values = shape.patch_size.pow(2) * shape.in_channels;
        let head = || FinalLayer::new(d, values, device);
        let std = 1.0 / (d as f64).sqrt();
        Self {
            time_tokens: tokens(shape.num_time_tokens),
            class_tokens: tokens(shape.num_class_tokens),
            omega_tokens: tokens(shape.num_cfg_tokens),
            t_min_tokens: tokens(shape.num_interval_tokens),
            t_max_tokens: tokens(shape.num_interval_tokens),
            h_embedder: embedder(),
            omega_embedder: embedder(),
            cfg_t_start_embedder: embedder(),
            cfg_t_end_embedder: embedder(),
            y_embedder: LabelEmbedder::with_std(shape.num_classes, true, d, std, device),
            shared_blocks: blocks(shape.depth - shape.aux_head_depth),
            u_heads: blocks(shape.aux_head_depth),
            v_heads: blocks(if shape.v_heads { shape.aux_head_depth } else { 0 }),
            u_final_layer: head(),
            v_final_layer: shape.v_heads.then(head),
        }
    }

    /// What the network computes in.
    pub(in crate::model) fn dtype(&self) -> DType {
        self.u_final_layer.dtype()
    }

    /// The embeddings of the conditions.
    ///
    /// # Shapes
    ///
    /// * `condition`: `[B]` each
    /// * returns [`Embeddings`], `[B, D]` each
    ///
    /// # Panics
    ///
    /// If a label is beyond the null class, on the CPU.
    pub fn embed(&self, condition: Condition) -> Embeddings {
        let Condition { h, omega, t_min, t_max, y } = condition;
        Embeddings {
            h: self.h_embedder.forward(h),
            omega: self.omega_embedder.forward(-omega.recip() + 1.0),
            t_min: self.cfg_t_start_embedder.forward(t_min),
            t_max: self.cfg_t_end_embedder.forward(t_max),
            y: self.y_embedder.forward(y),
        }
    }

    /// The sequence `[class ‖ ω ‖ t_min ‖ t_max ‖ time ‖ patches]`.
    ///
    /// # Shapes
    ///
    /// * `condition`: `[B]` each
    /// * `patches`: `[B, N, D]`
    /// * returns `[B, n, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    pub fn sequence(&self, condition: Condition, patches: Tensor<3>) -> Tensor<3> {
        let e = self.embed(condition); // [B, D] each
        let groups = vec![
            self.class_tokens.with(e.y),
            self.omega_tokens.with(e.omega),
            self.t_min_tokens.with(e.t_min),
            self.t_max_tokens.with(e.t_max),
            self.time_tokens.with(e.h),
            patches,
        ];
        Tensor::cat(groups, 1) // [B, n, D]
    }

    /// The values of the patches that the head of u gives.
    ///
    /// # Shapes
    ///
    /// * `sequence`: `[B, n, D]`, of which the last N tokens are `patches`
    /// * `rope`: `[n, D/heads]`
    /// * returns `[B, N, p²·C]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn u(&self, sequence: Tensor<3>, rope: &RotaryTable, patches: usize) -> Tensor<3> {
        let s = run(&self.shared_blocks, sequence, rope); // [B, n, D]
        self.u_final_layer.forward(last(run(&self.u_heads, s, rope), patches)) // [B, N, p²·C]
    }

    /// The values of the patches that the head of v gives; `None` for a network without it.
    ///
    /// # Shapes
    ///
    /// As in [`u`](Self::u).
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn v(&self, sequence: Tensor<3>, rope: &RotaryTable, patches: usize) -> Option<Tensor<3>> {
        let head = self.v_final_layer.as_ref()?;
        let s = run(&self.shared_blocks, sequence, rope); // [B, n, D]
        Some(head.forward(last(run(&self.v_heads, s, rope), patches))) // [B, N, p²·C]
    }

    /// [`u`](Self::u) and [`v`](Self::v) of one pass through the shared blocks.
    ///
    /// # Shapes
    ///
    /// As in [`u`](Self::u).
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn u_and_v(
        &self,
        sequence: Tensor<3>,
        rope: &RotaryTable,
        patches: usize,
    ) -> (Tensor<3>, Option<Tensor<3>>) {
        let s = run(&self.shared_blocks, sequence, rope); // [B, n, D]
        let v = |head: &FinalLayer| {
            head.forward(last(run(&self.v_heads, s.clone(), rope), patches)) // [B, N, p²·C]
        };
        let v = self.v_final_layer.as_ref().map(v);
        (self.u_final_layer.forward(last(run(&self.u_heads, s, rope), patches)), v)
    }

    /// [`u_and_v`](Self::u_and_v) with every intermediate value kept.
    ///
    /// # Shapes
    ///
    /// As in [`u`](Self::u); returns [`Trace`], whose fields state theirs.
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn trace(&self, sequence: Tensor<3>, rope: &RotaryTable, patches: usize) -> Trace {
        let through = |blocks: &[Block], mut s: Tensor<3>| -> (Vec<Tensor<3>>, Tensor<3>) {
            let mut kept = Vec::new();
            for block in blocks {
                s = block.forward(s, rope);
                kept.push(s.clone());
            }
            (kept, s)
        };
        let (shared_blocks, s) = through(&self.shared_blocks, sequence);
        let (v_blocks, v) = through(&self.v_heads, s.clone());
        let (u_blocks, u) = through(&self.u_heads, s);
        let v_tokens = self.v_final_layer.as_ref().map(|head| head.forward(last(v, patches)));
        let u_tokens = self.u_final_layer.forward(last(u, patches));
        Trace { shared_blocks, u_blocks, u_tokens, v_blocks, v_tokens }
    }
}

/// `[B, n, D]` → `[B, n, D]`
fn run(blocks: &[Block], s: Tensor<3>, rope: &RotaryTable) -> Tensor<3> {
    blocks.iter().fold(s, |s, block| block.forward(s, rope))
}

/// The last tokens, without the prefix: `[B, n, D]` → `[B, N, D]`
fn last(s: Tensor<3>, patches: usize) -> Tensor<3> {
    let n = s.dims()[1];
    s.narrow(1, n - patches, patches)
}
