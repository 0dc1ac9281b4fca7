//! Kernels of Tintype as operations on Burn tensors.
//!
//! Every operation has a reference implementation in plain Burn operations ([`plain`]), used in tests
//! and as the fallback of every backend, and optionally fused kernels, with gradients: `cpu` for Burn's
//! CPU backend and `gpu` for CUDA and wgpu. A fused kernel returns `None` for tensors that it does not
//! support, and the reference implementation is used instead; [`use_plain`] selects the reference
//! implementation everywhere.

mod cache;
// Without automatic differentiation, nobody asks for the backward halves.
#[cfg(feature = "cpu")]
#[cfg_attr(not(feature = "autodiff"), allow(dead_code))]
mod cpu;
#[cfg(feature = "gpu")]
#[cfg_attr(not(feature = "autodiff"), allow(dead_code))]
mod gpu;
#[cfg(any(feature = "cpu", feature = "gpu"))]
#[cfg_attr(not(feature = "autodiff"), allow(dead_code))]
mod gradient;
pub mod plain;
#[cfg(any(feature = "cpu", feature = "gpu"))]
mod preparation;
#[cfg(feature = "present")]
pub mod present;

#[cfg(feature = "wgpu")]
mod software;

pub use cache::keep_compiled_kernels;
#[cfg(feature = "wgpu")]
pub use software::note_software_gpu;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::activation::relu;
use burn::tensor::{Bool, Tensor};

static PLAIN: AtomicBool = AtomicBool::new(false);

/// Uses the reference implementation of every operation from now on, in the whole process: for
/// debugging kernels and for benchmarks.
pub fn use_plain(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

/// Whether kernels are used, see [`use_plain`].
pub fn uses_kernels() -> bool {
    !PLAIN.load(Ordering::Relaxed)
}

/// Kernels made for a particular GPU that failed their self-test in this process, by name, and whose work
/// was left to slower ones: none where all is well.
pub fn rejected_kernels() -> Vec<&'static str> {
    #[cfg(feature = "gpu")]
    return gpu::rejected();
    #[cfg(not(feature = "gpu"))]
    Vec::new()
}

/// Returns from the operation with a fused kernel's result if one applies: of an operation and its inputs
/// or, on the CPU, an expression without a gradient.
macro_rules! fused {
    (cpu $operation:expr, $inputs:expr) => {
        #[cfg(feature = "cpu")]
        if uses_kernels()
            && let Some(result) = gradient::apply(std::sync::Arc::new($operation), $inputs)
        {
            return Tensor::from_dispatch(result);
        }
    };
    (gpu $operation:expr, $inputs:expr) => {
        #[cfg(feature = "gpu")]
        if uses_kernels()
            && let Some(result) = gradient::apply(std::sync::Arc::new($operation), $inputs)
        {
            return Tensor::from_dispatch(result);
        }
    };
}

/// Clones of tensors of any rank, those that are there.
#[cfg(any(feature = "cpu", feature = "gpu"))]
macro_rules! given {
    ($($tensor:expr),* ; $($option:expr),*) => {{
        #[allow(unused_mut)]
        let mut tensors = vec![$($tensor.clone().into_dispatch()),*];
        $(if let Some(tensor) = &$option { tensors.push(tensor.clone().into_dispatch()) })*
        tensors
    }};
    ($($tensor:expr),*) => { given!($($tensor),* ;) };
}

/// `x Wᵀ + b`. The weight may be of another float type than the rest: it is converted to that of `x`.
///
/// # Shapes
///
/// * `x`: `[…, in]`
/// * `weight`: `[out, in]`; `bias`: `[out]`
/// * returns `[…, out]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    fused!(cpu cpu::linear::Linear { gelu: false }, given!(x, weight ; bias));
    fused!(gpu gpu::linear::Linear { gelu: false }, given!(x, weight ; bias));
    plain::linear(x, weight, bias)
}

/// `gelu_tanh(x Wᵀ + b)`.
///
/// # Shapes
///
/// As in [`linear`].
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn linear_gelu_tanh<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    fused!(cpu cpu::linear::Linear { gelu: true }, given!(x, weight ; bias));
    fused!(gpu gpu::linear::Linear { gelu: true }, given!(x, weight ; bias));
    bias_gelu_tanh(linear(x, weight, None), bias)
}

/// GELU with the tanh approximation, elementwise.
///
/// # Shapes
///
/// * `x`: any
/// * returns the same
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(cpu cpu::gelu::GeluTanh, given!(x));
    bias_gelu_tanh(x, None)
}

/// `gelu_tanh(x + bias)`: `x` `[…, d]`, bias `[d]`.
fn bias_gelu_tanh<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    fused!(gpu gpu::activation::BiasActivation {
        activation: gpu::activation::Activation::GeluTanh,
        bias: bias.is_some(),
    }, given!(x ; bias));
    plain::gelu_tanh(match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    })
}

/// `silu(a)·b` of the halves `[a, b]` of the last axis.
///
/// # Shapes
///
/// * `x`: `[…, 2·d]`
/// * returns `[…, d]`
pub fn swiglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(cpu cpu::glu::Glu::Swiglu, given!(x));
    fused!(gpu gpu::activation::Glu {
        activation: gpu::activation::Activation::Silu,
        first: true,
    }, given!(x));
    plain::swiglu(x)
}

/// `a·gelu(b)`, the exact GELU, of the halves `[a, b]` of the last axis.
///
/// # Shapes
///
/// * `x`: `[…, 2·d]`
/// * returns `[…, d]`
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(cpu cpu::glu::Glu::Geglu, given!(x));
    fused!(gpu gpu::activation::Glu {
        activation: gpu::activation::Activation::Gelu,
        first: false,
    }, given!(x));
    plain::geglu(x)
}

/// By what a norm divides a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// The deviation from its mean, which it also subtracts.
    LayerNorm,
    /// Its root mean square.
    RmsNorm,
}

/// `n(x)·weight·(1 + scale) + shift` with `n` over the last axis; each parameter may be absent.
///
/// # Shapes
///
/// * `x`: `[B, …, d]`
/// * `weight`: `[d]`
/// * `scale`, `shift`: `[B, d]`
/// * returns `[B, …, d]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn modulated_norm<const D: usize>(
    x: Tensor<D>,
    normalization: Normalization,
    weight: Option<Tensor<1>>,
    scale: Option<Tensor<2>>,
    shift: Option<Tensor<2>>,
    eps: f64,
) -> Tensor<D> {
    fused!(cpu cpu::norm::Norm {
        centred: normalization == Normalization::LayerNorm,
        eps,
        weight: weight.is_some(),
        scale: scale.is_some(),
        shift: shift.is_some(),
    }, given!(x ; weight, scale, shift));
    fused!(gpu gpu::norm::Norm {
        centred: normalization == Normalization::LayerNorm,
        eps,
        weight: weight.is_some(),
        scale: scale.is_some(),
        shift: shift.is_some(),
    }, given!(x ; weight, scale, shift));
    plain::modulated_norm(x, normalization, weight, scale, shift, eps)
}

/// `x + gate·y`.
///
/// # Shapes
///
/// * `x`, `y`: `[B, N, D]`
/// * `gate`: `[B, D]`
/// * returns `[B, N, D]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn gated_residual(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    fused!(cpu cpu::norm::GatedResidual, given!(x, y, gate));
    fused!(gpu gpu::gated::GatedResidual, given!(x, y, gate));
    plain::gated_residual(x, y, gate)
}

/// Softmax over the last axis.
///
/// # Shapes
///
/// * `x`: `[…, n]`
/// * returns the same
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(cpu cpu::softmax::Softmax, given!(x));
    plain::softmax(x)
}

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

/// A convolution of an image with `padding` zeros on each side of its rows and columns, and what is
/// added to it.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * `weight`: `[out, C, kh, kw]`; `bias`: `[out]`
/// * `residual`: `[B, out, H', W']`
/// * returns `[B, out, H', W']` with `H' = ⌊(H + 2·padding − kh) / stride⌋ + 1`, likewise `W'`
///
/// # Panics
///
/// If the shapes do not fit each other, or `stride` is 0.
pub fn convolution(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<4>>,
    stride: usize,
    padding: [usize; 2],
) -> Tensor<4> {
    fused!(cpu cpu::convolution::Convolution {
        stride,
        padding,
        bias: bias.is_some(),
        residual: residual.is_some(),
        relu: false,
    }, given!(x, weight ; bias, residual));
    fused!(gpu gpu::convolution::Convolution {
        stride,
        padding,
        bias: bias.is_some(),
        residual: residual.is_some(),
    }, given!(x, weight ; bias, residual));
    plain::convolution(x, weight, bias, residual, stride, padding)
}

/// `relu(convolution(x, weight, bias))`, see [`convolution`].
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * `weight`: `[out, C, kh, kw]`; `bias`: `[out]`
/// * returns `[B, out, H', W']` as [`convolution`] does
///
/// # Panics
///
/// If the shapes do not fit each other, or `stride` is 0.
pub fn convolution_relu(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: [usize; 2],
) -> Tensor<4> {
    fused!(cpu cpu::convolution::Convolution {
        stride,
        padding,
        bias: bias.is_some(),
        residual: false,
        relu: true,
    }, given!(x, weight ; bias));
    relu(convolution(x, weight, bias, None, stride, padding))
}

/// The 3×3 convolution, with a zero on each side, of an image of twice the size: each pixel of `x` four times
/// ([`plain::upsample`]).
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * `weight`: `[out, C, 3, 3]`; `bias`: `[out]`
/// * returns `[B, out, 2·H, 2·W]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn upsample_convolution(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    fused!(cpu cpu::upsample::UpsampleConvolution, given!(x, weight, bias));
    convolution(plain::upsample(x), weight, Some(bias), None, 1, [1, 1])
}

/// The largest value of each square window of an image; what windows see beyond its sides does not count.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns `[B, C, H', W']` with `H' = ⌊(H + 2·padding − window) / stride⌋ + 1`, likewise `W'`
///
/// # Panics
///
/// If the image with its padding is smaller than a window, or `stride` is 0.
pub fn max_pool(x: Tensor<4>, window: usize, stride: usize, padding: usize) -> Tensor<4> {
    fused!(cpu cpu::pool::Pool {
        kind: cpu::pool::Kind::Max,
        window,
        stride,
        padding,
    }, given!(x));
    plain::max_pool(x, window, stride, padding)
}

/// For each pixel the mean of the square window around it, of odd side: of the pixels of the image in it.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Panics
///
/// If `window` is even.
pub fn mean_pool(x: Tensor<4>, window: usize) -> Tensor<4> {
    assert!(window % 2 == 1, "a window of {window} pixels has no middle");
    fused!(cpu cpu::pool::Pool {
        kind: cpu::pool::Kind::Mean,
        window,
        stride: 1,
        padding: window / 2,
    }, given!(x));
    plain::mean_pool(x, window)
}

/// Rotates adjacent pairs by tables: `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)`. Tables have no gradient.
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

/// `SiLU(GroupNorm(x))` with affine parameters.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * `weight`, `bias`: `[C]`
/// * returns `[B, C, H, W]`
///
/// # Panics
///
/// If the shapes do not fit each other, or `C` is no multiple of `groups`.
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    fused!(cpu cpu::group_norm::GroupNormSilu { groups, eps }, given!(x, weight, bias));
    fused!(gpu gpu::group_norm::GroupNormSilu { groups, eps }, given!(x, weight, bias));
    plain::group_norm_silu(x, weight, bias, groups, eps)
}

/// The numbers of a step of AdamW (Loshchilov & Hutter, arXiv 1711.05101), bias corrections taken
/// into them.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Factor of the gradient, by which it is clipped.
    pub scale: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// `1 − lr·weight_decay`
    pub decay: f64,
    /// `lr / (1 − β₁ⁿ)`
    pub rate: f64,
    /// `1 / √(1 − β₂ⁿ)`
    pub root: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// A parameter and its first and second moment after a step, of those before and the gradient:
/// `g ← scale·g`, `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `p ← decay·p − rate·m / (root·√v + eps)`.
///
/// # Shapes
///
/// * `parameter`, `gradient` and each of `moments`: `[n]`
/// * returns the same
///
/// # Panics
///
/// If the shapes differ.
pub fn adamw(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    moments: [Tensor<1>; 2],
    step: AdamWStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes([&parameter, &gradient, &moments[0], &moments[1]]) {
        let update = AdamWUpdate { parameter, gradient, moments, step };
        return cpu::adamw::steps(vec![update]).remove(0);
    }
    #[cfg(feature = "gpu")]
    if uses_kernels() {
        let [first, second] = &moments;
        let inputs = given!(parameter, gradient, first, second);
        if let Some(after) = gpu::adamw::step(step, inputs) {
            let [parameter, first, second] = after.map(Tensor::from_dispatch);
            return (parameter, [first, second]);
        }
    }
    plain::adamw(parameter, gradient, moments, step)
}

/// What a step of AdamW takes of one parameter.
#[derive(Clone, Debug)]
pub struct AdamWUpdate {
    /// `[n]`
    pub parameter: Tensor<1>,
    /// `[n]`
    pub gradient: Tensor<1>,
    /// The first and the second one, `[n]` each.
    pub moments: [Tensor<1>; 2],
    /// The numbers.
    pub step: AdamWStep,
}

/// [`adamw`] of many parameters. On the CPU they are updated together, in place where nobody else refers to them.
///
/// # Shapes
///
/// * returns those of each parameter and its moments
///
/// # Panics
///
/// If the shapes of an update differ.
pub fn adamw_all(updates: Vec<AdamWUpdate>) -> Vec<(Tensor<1>, [Tensor<1>; 2])> {
    #[cfg(feature = "cpu")]
    if uses_kernels() {
        let tensors = updates.iter().flat_map(|update| {
            let [first, second] = &update.moments;
            [&update.parameter, &update.gradient, first, second]
        });
        if cpu::lists::takes(tensors) {
            return cpu::adamw::steps(updates);
        }
    }
    let one = |update: AdamWUpdate| {
        let AdamWUpdate { parameter, gradient, moments, step } = update;
        adamw(parameter, gradient, moments, step)
    };
    updates.into_iter().map(one).collect()
}

/// `a + share·(b − a)` of each average `a` and its value `b`, as an EMA moves. On the CPU all are computed together,
/// in place where nobody else refers to an average.
///
/// # Shapes
///
/// * `averages`, `values`: `[n]`, as many of one as of the other
/// * returns those of `averages`
///
/// # Panics
///
/// If there are not as many values as averages, or the shapes of two that belong together differ.
pub fn lerp(averages: Vec<Tensor<1>>, values: Vec<Tensor<1>>, share: f64) -> Vec<Tensor<1>> {
    assert_eq!(averages.len(), values.len(), "the numbers of averages and of values");
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes(averages.iter().chain(&values)) {
        return cpu::lists::lerp(averages, values, share);
    }
    plain::lerp(averages, values, share)
}

/// The sum of the squares of all values of some tensors, as the global norm of gradients wants it.
///
/// # Shapes
///
/// * `tensors`: `[n]` each
/// * returns `[1]`
///
/// # Panics
///
/// If there are no tensors.
pub fn sum_of_squares(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    assert!(!tensors.is_empty(), "there is nothing to sum");
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes(&tensors) {
        return cpu::lists::sum_of_squares(tensors);
    }
    plain::sum_of_squares(tensors)
}

/// Writes into the memory of a contiguous tensor itself, whoever else refers to it, as computations
/// want it that were recorded with that memory. Returns whether it was done: only tensors of one type
/// and shape on one GPU are written.
///
/// # Shapes
///
/// * `from`, `to`: any, the same
pub fn overwrite<const D: usize>(from: Tensor<D>, to: &Tensor<D>) -> bool {
    #[cfg(feature = "gpu")]
    return gpu::overwrite::overwrite(from.into_dispatch(), to.clone().into_dispatch());
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (from, to);
        false
    }
}

// So the cases in `tests/` call it.
#[cfg(all(test, feature = "cpu"))]
extern crate self as tintype_shaders;
#[cfg(all(test, feature = "cpu"))]
mod tests;
