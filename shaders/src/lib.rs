//! Kernels of Tintype as operations on Burn tensors.
//!
//! Every operation here has one meaning and several bodies: the plain-Burn twin in [`plain`],
//! which is the oracle of the tests, the way gradients flow and the fallback of every backend,
//! and a fused body where one pays.

mod plain;

use burn::tensor::{Bool, Tensor};

/// `x Wᵀ + b`: `[…, in]` → `[…, out]`, weight `[out, in]`, bias `[out]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    plain::linear(x, weight, bias)
}

/// GELU with the tanh approximation, elementwise.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    plain::gelu_tanh(x)
}

/// `LayerNorm(x)·(1 + scale) + shift` over the last axis, without affine parameters.
///
/// * `x`: `[B, N, D]`
/// * `shift`, `scale`: `[B, D]`
pub fn layer_norm_modulate(
    x: Tensor<3>,
    shift: Tensor<2>,
    scale: Tensor<2>,
    eps: f64,
) -> Tensor<3> {
    plain::layer_norm_modulate(x, shift, scale, eps)
}

/// `x + gate·y`: `[B, N, D]`, gate `[B, D]`.
pub fn gated_residual(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    plain::gated_residual(x, y, gate)
}

/// `softmax(q kᵀ · scale) v`, softmax in float32 or wider.
///
/// * `q`: `[B, heads, N, d]`, `k`: `[B, heads, M, d]`, `v`: `[B, heads, M, e]`
/// * `mask`: broadcastable to `[B, heads, N, M]`, true where a query may not look
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    plain::attention(q, k, v, scale, mask)
}

/// Self-attention on a packed projection: `[B, N, 3·heads·d]` (q, k, v; head-major) →
/// `[B, N, heads·d]`.
pub fn qkv_attention(qkv: Tensor<3>, heads: usize, scale: f64) -> Tensor<3> {
    plain::qkv_attention(qkv, heads, scale)
}

/// `SiLU(GroupNorm(x))` with affine parameters `[C]`; `x`: `[B, C, H, W]`.
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    plain::group_norm_silu(x, weight, bias, groups, eps)
}
