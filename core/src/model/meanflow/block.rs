//! The block: attention and SwiGLU, each behind a learned gate, without biases and without modulation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::Shape;
use crate::nn::activation::silu;
use crate::nn::attention::attention;
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::{Norm, NormKind};
use crate::nn::rope::RotaryTable;
use crate::nn::{constant, normal};

/// A linear layer of a block starts with N(0, (0.32/√fan_in)²).
const INIT: Init = Init::Scaled(0.32);

/// `s + attn_scale ⊙ Attn(RMS(s))`, then `s + mlp_scale ⊙ MLP(RMS(s))`.
#[derive(Module, Debug)]
pub struct Block {
    attn_scale: Param<Tensor<1>>,
    mlp_scale: Param<Tensor<1>>,
    norm1: Norm,
    attn: Attention,
    norm2: Norm,
    mlp: Mlp,
}

impl Block {
    /// A block that starts as the identity (gates of zero).
    pub(super) fn new(shape: &Shape, device: &Device) -> Self {
        let d = shape.hidden_size;
        Self {
            attn_scale: constant([d], 0.0, device),
            mlp_scale: constant([d], 0.0, device),
            norm1: Norm::new(NormKind::RmsNorm, d, device),
            attn: Attention::new(d, shape.num_heads, device),
            norm2: Norm::new(NormKind::RmsNorm, d, device),
            mlp: Mlp::new(d, shape.mlp_hidden, device),
        }
    }

    /// The stream after the block.
    ///
    /// # Shapes
    ///
    /// * `s`: `[B, n, D]`, all tokens of the sequence
    /// * `rope`: `[n, D/heads]`
    /// * returns `[B, n, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, s: Tensor<3>, rope: &RotaryTable) -> Tensor<3> {
        let a = self.attn.forward(self.norm1.forward(s.clone()), rope);
        let s = s + gated(a, &self.attn_scale);
        let m = self.mlp.forward(self.norm2.forward(s.clone()));
        s + gated(m, &self.mlp_scale)
    }
}

/// `x ⊙ scale` over the last axis: `[B, n, D]` and `[D]`.
fn gated(x: Tensor<3>, scale: &Param<Tensor<1>>) -> Tensor<3> {
    let shape = x.dims();
    // As rows: see the weight of the plain norm, whose gradient is summed in the same way.
    let rows: Tensor<2> = x.reshape([shape[0] * shape[1], shape[2]]); // [B·n, D]
    (rows * scale.val().unsqueeze::<2>()).reshape(shape)
}

/// Self-attention with a norm of queries and keys **before** their rotation.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    q_norm: Norm,
    k_norm: Norm,
    heads: usize,
}

impl Attention {
    fn new(d: usize, heads: usize, device: &Device) -> Self {
        let linear = || Linear::without_bias(d, d, INIT, device);
        let norm = || Norm::new(NormKind::RmsNorm, d / heads, device);
        Self {
            q_proj: linear(),
            k_proj: linear(),
            v_proj: linear(),
            out_proj: linear(),
            q_norm: norm(),
            k_norm: norm(),
            heads,
        }
    }

    /// `[B, n, D]` → `[B, n, D]`
    fn forward(&self, x: Tensor<3>, rope: &RotaryTable) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let head = d / self.heads;
        let split = |x: Tensor<3>| -> Tensor<4> { x.reshape([b, n, self.heads, head]) };
        let q = self.q_norm.forward(split(self.q_proj.forward(x.clone()))); // [B, n, heads, head]
        let k = self.k_norm.forward(split(self.k_proj.forward(x.clone())));
        let v = split(self.v_proj.forward(x));
        let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2)); // [B, heads, n, head]
        let scale = 1.0 / (head as f64).sqrt();
        let out = attention(rope.forward(q), rope.forward(k), v, scale, None);
        self.out_proj.forward(out.swap_dims(1, 2).reshape([b, n, d])) // [B, n, D]
    }
}

/// `w2(SiLU(w1 x) ⊙ w3 x)`
#[derive(Module, Debug)]
struct Mlp {
    w1: Linear,
    w3: Linear,
    w2: Linear,
}

impl Mlp {
    fn new(d: usize, inner: usize, device: &Device) -> Self {
        Self {
            w1: Linear::without_bias(d, inner, INIT, device),
            w3: Linear::without_bias(d, inner, INIT, device),
            w2: Linear::without_bias(inner, d, INIT, device),
        }
    }

    /// `[B, n, D]` → `[B, n, D]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.w1.forward(x.clone())); // [B, n, M]
        self.w2.forward(gate * self.w3.forward(x)) // [B, n, D]
    }
}

/// Norm and the linear head onto the values of a patch.
#[derive(Module, Debug)]
pub(super) struct FinalLayer {
    norm: Norm,
    linear: Linear,
}

impl FinalLayer {
    /// A head from `d` to `out` values a token, starting at zero.
    pub(super) fn new(d: usize, out: usize, device: &Device) -> Self {
        Self {
            norm: Norm::new(NormKind::RmsNorm, d, device),
            linear: Linear::new(d, out, Init::Zero, device),
        }
    }

    /// `[B, N, D]` → `[B, N, out]`
    pub(super) fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        self.linear.forward(self.norm.forward(tokens)) // [B, N, out]
    }

    /// What the layer computes in.
    pub(super) fn dtype(&self) -> burn::tensor::DType {
        self.linear.dtype()
    }
}

/// Learned tokens of a group of the prefix, as iMF (`[n, D]`) and pMF (`[1, n, D]`) store them.
#[derive(Module, Debug)]
pub(super) enum Tokens {
    Plain(Param<Tensor<2>>),
    Batched(Param<Tensor<3>>),
}

impl Tokens {
    /// `n` tokens that start with N(0, 1/D).
    pub(super) fn new(n: usize, d: usize, batched: bool, device: &Device) -> Self {
        let std = 1.0 / (d as f64).sqrt();
        match batched {
            true => Self::Batched(normal([1, n, d], std, device)),
            false => Self::Plain(normal([n, d], std, device)),
        }
    }

    /// The tokens with one embedding added to each of them: `[B, D]` → `[B, n, D]`
    pub(super) fn with(&self, embedding: Tensor<2>) -> Tensor<3> {
        let tokens: Tensor<3> = match self {
            Self::Plain(tokens) => tokens.val().unsqueeze(),
            Self::Batched(tokens) => tokens.val(),
        }; // [1, n, D]
        tokens + embedding.unsqueeze_dim::<3>(1) // [B, n, D]
    }
}
