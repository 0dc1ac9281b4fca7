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
#[cfg(feature = "cuda")]
pub use gpu::{CudaMemory, CudaMemoryError, cuda_memory, cuda_ordinal};
#[cfg(feature = "wgpu")]
pub use software::note_software_gpu;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Tensor;

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

/// Values of a tensor that are read back, in the order in which the device was given its work.
///
/// A future does nothing before it is polled. The first poll asks a GPU for the values, which it copies before it begins
/// what it is given later, and leaves at once; the next poll waits.
///
/// # Shapes
///
/// * `x`: `[n]`, float32
///
/// # Errors
///
/// What the device says if it fails.
pub async fn read_back(x: Tensor<1>) -> Result<Vec<f32>, String> {
    #[cfg(feature = "gpu")]
    if let Some(reading) = gpu::readback::read(&x) {
        return reading.await;
    }
    let data = x.into_data_async().await.map_err(|error| error.to_string())?;
    Ok(data.convert::<f32>().iter::<f32>().collect())
}

/// Kernels made for a particular GPU that failed their self-test in this process, by name, and whose work
/// was left to slower ones: none where all is well.
pub fn rejected_kernels() -> Vec<&'static str> {
    #[cfg(feature = "gpu")]
    return gpu::rejected();
    #[cfg(not(feature = "gpu"))]
    Vec::new()
}

/// Returns from the function with a fused kernel's result if one applies: of an operation and its inputs.
macro_rules! fused {
    (cpu $operation:expr, $inputs:expr) => {
        #[cfg(feature = "cpu")]
        if $crate::uses_kernels()
            && let Some(result) = $crate::gradient::apply(std::sync::Arc::new($operation), $inputs)
        {
            return Tensor::from_dispatch(result);
        }
    };
    (gpu $operation:expr, $inputs:expr) => {
        #[cfg(feature = "gpu")]
        if $crate::uses_kernels()
            && let Some(result) = $crate::gradient::apply(std::sync::Arc::new($operation), $inputs)
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

// Behind the macros that they use.
mod attention;
mod images;
mod optimizer;

pub use attention::{
    AttentionKind, QkTransform, attention, neighborhood_attention, qkv_attention, rotate_pairs,
};
pub use images::{
    convolution, convolution_relu, group_norm_silu, max_pool, mean_pool, upsample_convolution,
};
pub use optimizer::{
    AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard, adamw_all, lerp, sum_of_squares,
};

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
