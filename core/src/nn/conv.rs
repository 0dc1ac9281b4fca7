//! Two-dimensional convolutions with PyTorch's layout.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{Device, Tensor};

use super::constant;

/// Convolution with weight `[out, in, k, k]`, bias `[out]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
    stride: usize,
    /// Zeros on each side; stride 2 pads right and bottom by one instead.
    padding: usize,
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
            padding: kernel / 2,
        }
    }

    /// A layer that starts at zero.
    pub fn zero(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        Self {
            weight: constant([c_out, c_in, kernel, kernel], 0.0, device),
            bias: constant([c_out], 0.0, device),
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// The VAE's downsampling: zeros **right and bottom only**, 3×3, stride 2 (VA-VAE §2).
    pub fn halving(channels: usize, device: &Device) -> Self {
        Self { stride: 2, padding: 0, ..Self::same(channels, channels, 3, device) }
    }

    /// `[B, in, H, W]` → `[B, out, H/stride, W/stride]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match self.stride {
            1 => x,
            _ => x.pad((0, 1, 0, 1), PadMode::Constant(0.0)), // [B, in, H+1, W+1]
        };
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], 1);
        conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}
