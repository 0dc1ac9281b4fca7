//! Two-dimensional convolutions with PyTorch's layout.

use burn::module::{Initializer, Module, Param};
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};

use super::constant;

/// Convolution with weight `[out, in, k, k]`, bias `[out]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
    /// 1, which keeps the image's size, or 2, which halves it.
    stride: usize,
}

impl Conv2d {
    /// A square kernel of odd side `kernel` that keeps the image size, PyTorch's default start.
    pub fn same(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        let a = 1.0 / ((c_in * kernel * kernel) as f64).sqrt();
        let init = Initializer::Uniform { min: -a, max: a };
        Self {
            weight: init.init([c_out, c_in, kernel, kernel], device),
            bias: init.init([c_out], device),
            stride: 1,
        }
    }

    /// A layer that starts at zero.
    pub fn zero(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        Self {
            weight: constant([c_out, c_in, kernel, kernel], 0.0, device),
            bias: constant([c_out], 0.0, device),
            stride: 1,
        }
    }

    /// The VAE's downsampling: zeros **right and bottom only**, 3×3, stride 2 (VA-VAE §2).
    pub fn downsample(channels: usize, device: &Device) -> Self {
        Self { stride: 2, ..Self::same(channels, channels, 3, device) }
    }

    /// The convolution.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, in, H, W]`
    /// * returns `[B, out, H/stride, W/stride]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if self.stride == 1 {
            return self.same_size(x, None);
        }
        let x = x.pad((0, 1, 0, 1), PadMode::Constant(0.0)); // [B, in, H+1, W+1]
        let (weight, bias) = (self.weight.val(), self.bias.val());
        tintype_shaders::convolution(x, weight, Some(bias), None, self.stride, [0, 0])
    }

    /// `residual + forward(x)` of a layer that keeps the image's size.
    ///
    /// # Shapes
    ///
    /// * `residual`: `[B, out, H, W]`
    /// * `x`: `[B, in, H, W]`
    /// * returns `[B, out, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_residual(&self, residual: Tensor<4>, x: Tensor<4>) -> Tensor<4> {
        self.same_size(x, Some(residual))
    }

    /// `relu(forward(x))` of a layer that keeps the image's size.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, in, H, W]`
    /// * returns `[B, out, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let [_, _, kernel, _] = weight.dims();
        tintype_shaders::convolution_relu(x, weight, Some(bias), 1, [kernel / 2; 2])
    }

    /// `forward` of the image of twice the size, each pixel four times, for a 3×3 layer that keeps the image's size.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, in, H, W]`
    /// * returns `[B, out, 2·H, 2·W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_upsampled(&self, x: Tensor<4>) -> Tensor<4> {
        tintype_shaders::upsample_convolution(x, self.weight.val(), self.bias.val())
    }

    fn same_size(&self, x: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let [_, _, kernel, _] = weight.dims();
        tintype_shaders::convolution(x, weight, Some(bias), residual, 1, [kernel / 2; 2])
    }
}
