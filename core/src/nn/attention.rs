//! Attention. Every network comes through [`attention`], so that it is replaced in one place.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use tintype_shaders::{AttentionKind, QkTransform};

use super::linear::{Init, Linear};
use super::norm::{Norm, NormKind};
use super::rope::RotaryTable;

/// `softmax(q kᵀ · scale) v`, softmax in float32. `mask` is true where a query may **not** look.
///
/// # Shapes
///
/// * `q`: `[B, heads, N, d]`
/// * `k`: `[B, heads, M, d]`
/// * `v`: `[B, heads, M, e]`
/// * `mask`: broadcastable to `[B, heads, N, M]`
/// * returns `[B, heads, N, e]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    tintype_shaders::attention(q, k, v, scale, mask)
}

/// Multi-head self-attention of timm and DiT: one `qkv` linear, head-major, optional q/k norm,
/// then optional RoPE.
#[derive(Module, Debug)]
pub struct SelfAttention {
    qkv: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    proj: Linear,
    heads: usize,
}

impl SelfAttention {
    /// Attention over `hidden` features in `heads` heads; `hidden` is divisible by `heads`.
    ///
    /// # Panics
    ///
    /// If `heads` is 0 and there is a norm of queries and keys.
    pub fn new(hidden: usize, heads: usize, qk_norm: Option<NormKind>, device: &Device) -> Self {
        Self::with_init(hidden, heads, qk_norm, Init::Xavier, device)
    }

    /// The same whose layers start in another way.
    ///
    /// # Panics
    ///
    /// As of [`new`](Self::new).
    pub fn with_init(
        hidden: usize,
        heads: usize,
        qk_norm: Option<NormKind>,
        init: Init,
        device: &Device,
    ) -> Self {
        let norm = || qk_norm.map(|kind| Norm::new(kind, hidden / heads, device));
        Self {
            qkv: Linear::new(hidden, 3 * hidden, init, device),
            q_norm: norm(),
            k_norm: norm(),
            proj: Linear::new(hidden, hidden, init, device),
            heads,
        }
    }

    /// Attends over all tokens; `rope` rotates queries and keys by their places.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&RotaryTable>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let head = d / self.heads;
        let qkv = self.qkv.forward(x); // [B, N, 3·D]
        let scale = 1.0 / (head as f64).sqrt();
        if self.q_norm.is_none() {
            let preparation = rope.map_or(QkTransform::Plain, RotaryTable::preparation);
            let out = tintype_shaders::qkv_attention(
                qkv,
                self.heads,
                scale,
                preparation,
                AttentionKind::Global,
            );
            return self.proj.forward(out); // [B, N, D]
        }
        let qkv = qkv.reshape([b, n, 3, self.heads, head]);
        let part = |i: usize| -> Tensor<4> {
            qkv.clone().narrow(2, i, 1).reshape([b, n, self.heads, head]).swap_dims(1, 2)
        };
        let [mut q, mut k, v] = [part(0), part(1), part(2)]; // [B, heads, N, head]
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            (q, k) = (q_norm.forward(q), k_norm.forward(k));
        }
        if let Some(rope) = rope {
            (q, k) = (rope.forward(q), rope.forward(k));
        }
        let out = attention(q, k, v, scale, None); // [B, heads, N, head]
        self.proj.forward(out.swap_dims(1, 2).reshape([b, n, d])) // [B, N, D]
    }
}
