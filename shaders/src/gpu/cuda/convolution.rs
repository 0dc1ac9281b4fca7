//! Convolutions of 16-bit tensors that keep the image's size, on Hopper: matrix products whose rows are pixels.

use burn::backend::DispatchTensor;
use burn::tensor::DType;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::linear::multiplies;
use super::on_cuda;
use super::product::{Added, convolution};
use crate::gpu::bridge::{Kernel, TensorSpec, is_counted};
use crate::gpu::rows::Rows;

/// Of `[B, H, W, C]`, `[out, k·k·C]`, `[out]` and, where there is one, a residual `[B, H, W, out]`.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct SameSize {
    pub window: usize,
}

impl Kernel for SameSize {
    const NAME: &'static str = "convolution";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let (x, out) = (&inputs[0], inputs[1].shape[0]);
        vec![TensorSpec::new([x.shape[0], x.shape[1], x.shape[2], out], x.dtype)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let given = inputs.iter().map(|x| on_cuda(x).cloned().map(into_contiguous));
        let (Some(given), Some(to)) = (given.collect::<Option<Vec<_>>>(), on_cuda(&outputs[0]))
        else {
            return;
        };
        let weight = Rows::of(given[1].clone());
        let added = Added { bias: Some(&given[2]), residual: given.get(3), gelu: false };
        convolution(&given[0], &weight, self.window, added, to);
    }
}

/// Whether a convolution of these inputs, with a bias, is computed here.
pub(in crate::gpu) fn takes(inputs: &[DispatchTensor], stride: usize, padding: [usize; 2]) -> bool {
    let [out, channels, window, width] = std::array::from_fn(|i| inputs[1].shape()[i]);
    matches!(inputs[0].dtype(), DType::BF16 | DType::F16)
        && stride == 1
        && window == width
        && window % 2 == 1
        && padding == [window / 2; 2]
        && channels.is_multiple_of(8)
        && is_counted(inputs[0].shape().num_elements() / channels.max(1) * out.max(channels))
        && multiplies(&inputs[0])
}
