//! Convolutions of our own: on Hopper, of 16-bit tensors, by its matrix units, and on software GPUs as products
//! of [patches](super::patches). They have no gradient; training takes Burn's.

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;
use burn_backend::TensorMetadata;

#[cfg(feature = "cuda")]
use super::bridge::run;
#[cfg(feature = "cuda")]
use super::cuda::convolution::{SameSize, takes};
#[cfg(feature = "wgpu")]
use super::dots;
#[cfg(feature = "wgpu")]
use super::patches::{Patches, suits};
use crate::gradient::{Operation, of_one_type};

/// `x` `[B, C, H, W]`, weight `[out, C, kh, kw]` and, where there are any, bias `[out]` and a residual
/// `[B, out, H', W']`, which is the result's shape. The result's channels lie last in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    pub stride: usize,
    /// Zeros around the image, on each side.
    pub padding: [usize; 2],
    pub bias: bool,
    pub residual: bool,
}

/// `[B, C, H, W]` → `[B, H, W, C]`
fn channels_last(x: &DispatchTensor) -> DispatchTensor {
    Tensor::<4>::from_dispatch(x.clone()).permute([0, 2, 3, 1]).into_dispatch()
}

/// `[B, H, W, C]` → `[B, C, H, W]` of the first `channels`.
fn channels_first(x: DispatchTensor, channels: usize) -> DispatchTensor {
    let x = Tensor::<4>::from_dispatch(x).permute([0, 3, 1, 2]);
    x.narrow(1, 0, channels).into_dispatch()
}

/// With `more` output channels, whose results are not used.
fn widened<const D: usize>(x: &DispatchTensor, more: usize) -> Tensor<D> {
    let x = Tensor::<D>::from_dispatch(x.clone());
    match more {
        0 => x,
        more => Tensor::cat(vec![x.clone(), x.narrow(0, 0, 1).repeat_dim(0, more)], 0),
    }
}

impl Convolution {
    /// Weight, bias and residual with a multiple of `n` output channels, for kernels that write so many at a
    /// time; `None` where a residual has others.
    fn parameters(
        &self,
        inputs: &[DispatchTensor],
        n: usize,
    ) -> Option<(Tensor<4>, Vec<DispatchTensor>)> {
        let out = inputs[1].shape()[0];
        let more = out.next_multiple_of(n) - out;
        if self.residual && more > 0 {
            return None;
        }
        let bias = self.bias.then(|| widened::<1>(&inputs[2], more).into_dispatch());
        let residual = self.residual.then(|| inputs.last().map(channels_last)).flatten();
        Some((widened(&inputs[1], more), bias.into_iter().chain(residual).collect()))
    }

    /// As a matrix product whose rows are pixels.
    #[cfg(feature = "cuda")]
    fn on_hopper(&self, inputs: &[DispatchTensor]) -> Option<DispatchTensor> {
        let [out, channels, window, _] = std::array::from_fn(|i| inputs[1].shape()[i]);
        let (weight, rest) = self.parameters(inputs, 8)?;
        let columns = weight.dims()[0];
        let weight: Tensor<2> =
            weight.permute([0, 2, 3, 1]).reshape([columns, window * window * channels]);
        let given = vec![channels_last(&inputs[0]), weight.into_dispatch()];
        let [result] = run(SameSize { window }, given.into_iter().chain(rest).collect())?;
        Some(channels_first(result, out))
    }

    /// As a product of patches; of single pixels as a linear layer, whose weight need not be rearranged, and whose
    /// kernel most networks need anyway.
    #[cfg(feature = "wgpu")]
    fn on_software(&self, inputs: &[DispatchTensor]) -> Option<DispatchTensor> {
        let [out, channels, height, width] = std::array::from_fn(|i| inputs[1].shape()[i]);
        let keeps_pixels = self.stride == 1 && self.padding == [0, 0];
        if [height, width] == [1, 1] && keeps_pixels {
            let weight = Tensor::<4>::from_dispatch(inputs[1].clone());
            let weight: Tensor<2> = weight.reshape([out, channels]);
            let bias = self.bias.then(|| &inputs[2]);
            let x = channels_last(&inputs[0]);
            let mut y = dots::product(&x, &weight.into_dispatch(), bias)?; // [B, H, W, out]
            if self.residual {
                let residual = Tensor::<4>::from_dispatch(channels_last(inputs.last()?));
                y = (residual + Tensor::<4>::from_dispatch(y)).into_dispatch();
            }
            return Some(channels_first(y, out));
        }
        let patches = Patches {
            window: [height, width],
            stride: self.stride,
            padding: self.padding,
            bias: self.bias,
            residual: self.residual,
        };
        let (weight, rest) = self.parameters(inputs, 4)?;
        let rows = [height * width * channels, weight.dims()[0]];
        let weight: Tensor<2> = weight.permute([2, 3, 1, 0]).reshape(rows);
        let given = vec![channels_last(&inputs[0]), weight.into_dispatch()];
        Some(channels_first(patches.of(given.into_iter().chain(rest).collect())?, out))
    }
}

impl Operation for Convolution {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        if !of_one_type(inputs) {
            return None;
        }
        #[cfg(feature = "cuda")]
        if self.bias && takes(inputs, self.stride, self.padding) {
            return Some((self.on_hopper(inputs)?, Vec::new()));
        }
        #[cfg(feature = "wgpu")]
        if suits(inputs) {
            return Some((self.on_software(inputs)?, Vec::new()));
        }
        None
    }

    fn has_gradient(&self) -> bool {
        false
    }

    fn backward(
        &self,
        _: &[DispatchTensor],
        _: &[DispatchTensor],
        _: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        None
    }
}
