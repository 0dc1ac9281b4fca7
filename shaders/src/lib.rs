//! Kernels of Tintype as operations on Burn tensors.
//!
//! Every operation here has one meaning and several bodies: the plain-Burn twin in [`plain`],
//! which is the oracle of the tests, the way gradients flow and the fallback of every backend,
//! and a fused body where one pays. A fused body returns nothing for tensors that it is not made
//! for (another backend, another type, gradients), and the plain one takes over.

#[cfg(feature = "cpu")]
mod cpu;
mod plain;
#[cfg(feature = "present")]
pub mod present;

use burn::tensor::{Bool, Tensor};

/// Returns from the operation with the fused CPU body where it applies.
macro_rules! fused {
    ($body:expr) => {
        #[cfg(feature = "cpu")]
        if let Some(result) = $body {
            return result;
        }
    };
}

/// `x Wᵀ + b`: `[…, in]` → `[…, out]`, weight `[out, in]`, bias `[out]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    fused!(cpu::linear(&x, &weight, bias.as_ref(), cpu::Epilogue::None));
    plain::linear(x, weight, bias)
}

/// `gelu_tanh(x Wᵀ + b)`, shapes as in [`linear`].
pub fn linear_gelu_tanh<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    fused!(cpu::linear(&x, &weight, bias.as_ref(), cpu::Epilogue::GeluTanh));
    plain::gelu_tanh(plain::linear(x, weight, bias))
}

/// GELU with the tanh approximation, elementwise.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(cpu::gelu_tanh(&x));
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
    fused!(cpu::layer_norm_modulate(&x, &shift, &scale, eps));
    plain::layer_norm_modulate(x, shift, scale, eps)
}

/// `x + gate·y`: `[B, N, D]`, gate `[B, D]`.
pub fn gated_residual(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    fused!(cpu::gated_residual(&x, &y, &gate));
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
    if mask.is_none() {
        fused!(cpu::attention(&q, &k, &v, scale));
    }
    plain::attention(q, k, v, scale, mask)
}

/// Self-attention on a packed projection: `[B, N, 3·heads·d]` (q, k, v; head-major) →
/// `[B, N, heads·d]`.
pub fn qkv_attention(qkv: Tensor<3>, heads: usize, scale: f64) -> Tensor<3> {
    fused!(cpu::qkv_attention(&qkv, heads, scale));
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
    fused!(cpu::group_norm_silu(&x, &weight, &bias, groups, eps));
    plain::group_norm_silu(x, weight, bias, groups, eps)
}

#[cfg(all(test, feature = "cpu"))]
mod tests;
