//! Attention, whole and among neighbors, and the rotation of queries and keys.

use burn::tensor::{Bool, Tensor};

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(any(feature = "cpu", feature = "gpu"))]
use crate::preparation;
#[cfg(any(feature = "cpu", feature = "gpu"))]
use crate::uses_kernels;
#[cfg(feature = "gpu")]
use crate::{gpu, gradient};
use crate::{plain, softmax};

/// `softmax(q kᵀ · scale) v`, softmax in float32 or wider. The mask is true where a query may not look.
///
/// # Shapes
///
/// * `q`: `[B, heads, N, d]`, `k`: `[B, heads, M, d]`, `v`: `[B, heads, M, e]`
/// * `mask`: broadcastable to `[B, heads, N, M]`
/// * returns `[B, heads, N, e]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    if mask.is_none() {
        fused!(cpu cpu::attention::Attention { scale }, given!(q, k, v));
        #[cfg(feature = "gpu")]
        if let Some(out) = attention_on_gpu([&q, &k, &v], scale, None) {
            return out.swap_dims(1, 2);
        }
    }
    plain::attention_with(softmax, q, k, v, scale, mask)
}

/// As the kernels give it, `[B, N, heads, e]`.
#[cfg(feature = "gpu")]
fn attention_on_gpu(
    [q, k, v]: [&Tensor<4>; 3],
    scale: f64,
    neighborhood: Option<gpu::neighborhood::Image>,
) -> Option<Tensor<4>> {
    let attention = gpu::attention::Attention { scale, neighborhood };
    let out = uses_kernels()
        .then(|| gradient::apply(std::sync::Arc::new(attention), given!(q, k, v)))??;
    Some(Tensor::from_dispatch(out))
}

/// `softmax(q·k · scale)·v` over the K×K neighborhood of each query, with NATTEN's semantics: the
/// window is centred where it fits and shifts inward at the borders, so that every query sees
/// exactly K² keys.
///
/// # Shapes
///
/// * `q`, `k`, `v`: `[B, H, W, heads, d]` with `H, W ≥ kernel`
/// * returns `[B, H, W, heads, d]`
///
/// # Panics
///
/// If the shapes differ, or `H` or `W` is less than `kernel`.
pub fn neighborhood_attention(
    q: Tensor<5>,
    k: Tensor<5>,
    v: Tensor<5>,
    kernel: usize,
    scale: f64,
) -> Tensor<5> {
    #[cfg(feature = "gpu")]
    {
        let [b, height, width, heads, d] = q.dims();
        let first = |x: &Tensor<5>| -> Tensor<4> {
            x.clone().reshape([b, height * width, heads, d]).swap_dims(1, 2)
        };
        let image = gpu::neighborhood::Image { height, width, kernel };
        if let Some(out) =
            attention_on_gpu([&first(&q), &first(&k), &first(&v)], scale, Some(image))
        {
            return out.reshape([b, height, width, heads, d]);
        }
    }
    plain::neighborhood_attention(q, k, v, kernel, scale)
}

/// How [`qkv_attention`] prepares queries and keys.
#[derive(Clone, Debug)]
pub enum QkTransform {
    /// Not at all.
    Plain,
    /// [`plain::rotate_pairs`]: cosines and sines, `[N, d]`.
    Rotary {
        /// `[N, d]`
        cos: Tensor<2>,
        /// `[N, d]`
        sin: Tensor<2>,
    },
    /// [`plain::cosine_similarity_scale`], then [`plain::rotate_halves`] by the places of the
    /// tokens in an image.
    Cosine {
        /// `[heads]`
        scale: Tensor<1>,
        /// `[heads, d/8]`
        freqs: Tensor<2>,
        /// Rows of tokens.
        height: usize,
        /// Tokens of a row.
        width: usize,
    },
}

/// What a query of [`qkv_attention`] sees.
#[derive(Clone, Copy, Debug)]
pub enum AttentionKind {
    /// Every key.
    Global,
    /// As in [`neighborhood_attention`].
    Neighborhood {
        /// Rows of tokens.
        height: usize,
        /// Tokens of a row.
        width: usize,
        /// Side K of the window.
        kernel: usize,
    },
}

/// Self-attention on a packed projection of q, k and v, head-major. Tables and frequencies get no
/// gradient.
///
/// # Shapes
///
/// * `qkv`: `[B, N, 3·heads·d]`
/// * `preparation`: as [`QkTransform`] states
/// * returns `[B, N, heads·d]`
///
/// # Panics
///
/// If the shapes do not fit each other, or `N` is not the `height·width` of the image that
/// `preparation` or `reach` names.
pub fn qkv_attention(
    qkv: Tensor<3>,
    heads: usize,
    scale: f64,
    preparation: QkTransform,
    reach: AttentionKind,
) -> Tensor<3> {
    #[cfg(any(feature = "cpu", feature = "gpu"))]
    if uses_kernels() {
        let (kind, inputs) = preparation::Preparation::of(&preparation, &qkv);
        fused!(cpu cpu::qkv::QkvAttention {
            heads,
            scale,
            preparation: kind,
            reach,
        }, inputs.clone());
        #[cfg(feature = "gpu")]
        let neighborhood = match reach {
            AttentionKind::Global => None,
            AttentionKind::Neighborhood { height, width, kernel } => {
                Some(gpu::neighborhood::Image { height, width, kernel })
            }
        };
        fused!(gpu gpu::qkv::QkvAttention {
            heads,
            scale,
            preparation: kind,
            neighborhood,
        }, inputs);
    }
    plain::qkv_attention(qkv, heads, scale, preparation, reach)
}

/// Rotates adjacent pairs by tables: `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)`, in the dtype that `x` and the
/// tables share, else in float32. Tables have no gradient.
///
/// # Shapes
///
/// * `x`: `[B, heads, N, d]`
/// * `cos`, `sin`: `[N, d]`
/// * returns `[B, heads, N, d]`
///
/// # Panics
///
/// If the shapes do not fit each other, or `d` is odd.
pub fn rotate_pairs(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    fused!(cpu cpu::rotate::RotatePairs, given!(x, cos, sin));
    plain::rotate_pairs(x, cos, sin)
}
