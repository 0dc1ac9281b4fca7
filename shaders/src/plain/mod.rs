//! Reference implementations of all kernels in plain Burn operations: used in tests, as the fallback
//! everywhere, and for gradients if a kernel has none of its own.

mod attention;
mod rotary;

pub(crate) use attention::attention_with;
pub use attention::{attention, neighborhood_attention, qkv_attention, window_start};
pub use rotary::{axial_grid, cosine_similarity_scale, head_angles, rotate_halves, rotate_pairs};

use burn::tensor::activation::{self, gelu_approximate, silu};
use burn::tensor::module::{avg_pool2d, conv2d, interpolate, max_pool2d};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, FloatDType, Tensor};

use crate::{AdamWUpdate, AdamWUpdated, Normalization, StepGuard};

/// See [`crate::linear`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [d_out, d_in] = weight.dims();
    let rows = shape.iter().product::<usize>() / d_in;
    shape[D - 1] = d_out;
    let weight = weight.cast(x.dtype());
    let y = x.reshape([rows, d_in]).matmul(weight.transpose()); // [rows, out]
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape(shape)
}

/// See [`crate::gelu_tanh`].
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gelu_approximate(x)
}

/// See [`crate::softmax`].
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// See [`crate::modulated_norm`].
pub fn modulated_norm<const D: usize>(
    x: Tensor<D>,
    normalization: Normalization,
    weight: Option<Tensor<1>>,
    scale: Option<Tensor<2>>,
    shift: Option<Tensor<2>>,
    eps: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let (shape, b) = (x.dims(), x.dims()[0]);
    let x = statistics_type(x.reshape([b as i32, -1, shape[D - 1] as i32])); // [B, N, d]
    let x = match normalization {
        Normalization::LayerNorm => x.clone() - x.mean_dim(2),
        Normalization::RmsNorm => x,
    };
    let mean_square = x.clone().square().mean_dim(2);
    let mut y: Tensor<3> = (x / (mean_square + eps).sqrt()).cast(dtype);
    if let Some(weight) = weight {
        // As rows: the gradients of a parameter then sum a plain matrix. With more axes they may
        // arrive transposed, and wgpu's sums over the first of several axes of a transposed tensor
        // are wrong.
        let rows: Tensor<2> = y.reshape([-1, shape[D - 1] as i32]) * weight.unsqueeze();
        y = rows.reshape([b as i32, -1, shape[D - 1] as i32]);
    }
    if let Some(scale) = scale {
        y = y * (scale + 1.0).unsqueeze_dim::<3>(1);
    }
    if let Some(shift) = shift {
        y = y + shift.unsqueeze_dim::<3>(1);
    }
    y.reshape(shape)
}

/// See [`crate::swiglu`].
pub fn swiglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let d = x.dims()[D - 1] / 2;
    silu(x.clone().narrow(D - 1, 0, d)) * x.narrow(D - 1, d, d)
}

/// See [`crate::geglu`].
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let d = x.dims()[D - 1] / 2;
    x.clone().narrow(D - 1, 0, d) * gelu(x.narrow(D - 1, d, d))
}

/// The exact GELU, `x/2 · (1 + erf(x/√2))`. Spelt out: the derivative of Burn's own `gelu` is that
/// of the tanh approximation on GPU backends.
///
/// # Shapes
///
/// * `x`: any
/// * returns the same
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let erf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf();
    x * (erf + 1.0) * 0.5
}

/// See [`crate::gated_residual`].
pub fn gated_residual(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    x + y * gate.unsqueeze_dim::<3>(1)
}

/// See [`crate::convolution`].
pub fn convolution(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<4>>,
    stride: usize,
    padding: [usize; 2],
) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], padding, [1, 1], 1);
    let y = conv2d(x, weight, bias, options);
    match residual {
        Some(residual) => residual + y,
        None => y,
    }
}

/// An image of twice the size, each pixel four times.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns `[B, C, 2·H, 2·W]`
pub fn upsample(x: Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    interpolate(x, [2 * h, 2 * w], InterpolateOptions::new(InterpolateMode::Nearest))
}

/// See [`crate::max_pool`].
pub fn max_pool(x: Tensor<4>, window: usize, stride: usize, padding: usize) -> Tensor<4> {
    max_pool2d(x, [window; 2], [stride; 2], [padding; 2], [1, 1], false)
}

/// See [`crate::mean_pool`].
pub fn mean_pool(x: Tensor<4>, window: usize) -> Tensor<4> {
    avg_pool2d(x, [window; 2], [1, 1], [window / 2; 2], false, false)
}

/// See [`crate::group_norm_silu`].
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let dtype = x.dtype();
    let [b, c, h, w] = x.dims();
    let x = statistics_type(x).reshape([b, groups, c / groups * h * w]);
    let x = x.clone() - x.mean_dim(2);
    let variance = x.clone().square().mean_dim(2);
    let y = (x / (variance + eps).sqrt()).reshape([b, c, h, w]).cast(dtype);
    silu(y * weight.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1]))
}

/// See [`crate::adamw_all`]; the host waits for the guard's numbers.
pub fn adamw_all(updates: Vec<AdamWUpdate>, guard: &StepGuard) -> Vec<AdamWUpdated> {
    let scale = guard.factor();
    let after = updates.into_iter().map(|update| match scale {
        Some(scale) => adamw(update, scale),
        None => update.unchanged(),
    });
    after.collect()
}

/// The step of one parameter with `scale` times its gradient.
fn adamw(update: AdamWUpdate, scale: f64) -> AdamWUpdated {
    let AdamWUpdate { parameter, gradient, moments: [first, second], averages, step } = update;
    let [beta1, beta2] = step.betas;
    let gradient = gradient * scale;
    let first = first * beta1 + gradient.clone() * (1.0 - beta1);
    let second = second * beta2 + gradient.square() * (1.0 - beta2);
    let denominator = second.clone().sqrt() * step.root + step.eps;
    let parameter = parameter * step.decay - first.clone() / denominator * step.rate;
    let moved = |(average, share)| approach(average, parameter.clone(), share);
    let averages = averages.into_iter().map(moved).collect();
    AdamWUpdated { parameter, moments: [first, second], averages }
}

/// See [`crate::lerp`]; the host waits for the guard's numbers.
pub fn lerp(
    averages: Vec<Tensor<1>>,
    values: Vec<Tensor<1>>,
    share: f64,
    guard: &StepGuard,
) -> Vec<Tensor<1>> {
    if guard.factor().is_none() {
        return averages;
    }
    let pairs = averages.into_iter().zip(values);
    pairs.map(|(average, value)| approach(average, value, share)).collect()
}

/// `average + share·(value − average)`
fn approach(average: Tensor<1>, value: Tensor<1>, share: f64) -> Tensor<1> {
    average.clone() + (value - average) * share
}

/// See [`crate::sum_of_squares`].
///
/// # Panics
///
/// If there are no tensors.
pub fn sum_of_squares(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    let squares = tensors.into_iter().map(|x| x.square().sum()).collect();
    Tensor::cat(squares, 0).sum()
}

/// 16-bit activations in float32 for sums; the others as they are.
fn statistics_type<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(FloatDType::F32),
        _ => x,
    }
}
