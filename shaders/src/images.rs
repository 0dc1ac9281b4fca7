//! Operations on images, `[B, C, H, W]`.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::plain;

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
