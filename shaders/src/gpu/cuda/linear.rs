//! Linear layers of 16-bit tensors and their gradients, on Hopper.

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::DType;
use burn_backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeRuntime, cubecl::cuda::CudaRuntime};

use super::product::{Added, Inner, product};
use super::{on_cuda, self_test};
use crate::gpu::bridge::{Kernel, TensorSpec, is_counted};
use crate::gpu::rows::Rows;
use crate::gradient::of_one_type;

/// One of the products of a linear layer and its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) enum Product {
    /// Of `x` and `W` (and `b`).
    Result { gelu: bool },
    /// The gradient of `x`: of that of the result, and `W`.
    Input,
    /// The gradient of `W`: of that of the result, and `x`.
    Weight,
}

impl Kernel for Product {
    const NAME: &'static str = "product";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let [a, b] = [&inputs[0].shape, &inputs[1].shape];
        let last = |shape: &burn::tensor::Shape| shape[shape.num_dims() - 1];
        let shape: Vec<usize> = match self {
            Self::Weight => vec![last(a), last(b)],
            Self::Result { .. } | Self::Input => {
                let columns = if *self == Self::Input { b[1] } else { b[0] };
                let rows = a.iter().copied().take(a.num_dims() - 1);
                rows.chain([columns]).collect()
            }
        };
        vec![TensorSpec::new(shape, inputs[0].dtype)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let Some(to) = on_cuda(&outputs[0]) else { return };
        let rows = |i: usize| -> Option<Rows<CudaRuntime>> {
            let rows = Rows::of(on_cuda::<R>(&inputs[i])?.clone());
            // The copy engine's rows begin at multiples of 16 bytes.
            let start = rows.tensor.handle.offset_start.unwrap_or(0);
            let aligned = rows.stride.is_multiple_of(8) && start.is_multiple_of(16);
            Some(if aligned { rows } else { Rows::of(into_contiguous(rows.tensor)) })
        };
        let (Some(a), Some(b)) = (rows(0), rows(1)) else { return };
        let bias = inputs.get(2).and_then(on_cuda).cloned().map(into_contiguous);
        let (inner, gelu) = match self {
            Self::Result { gelu } => (Inner { a: true, b: true }, *gelu),
            Self::Input => (Inner { a: true, b: false }, false),
            Self::Weight => (Inner { a: false, b: false }, false),
        };
        let added = Added { bias: bias.as_ref(), gelu, ..Added::default() };
        product(&a, &b, inner, added, to, None);
    }
}

/// Whether the GPU that a tensor is on multiplies by kernels of its own.
pub(super) fn multiplies(tensor: &DispatchTensor) -> bool {
    let DispatchTensorKind::Cuda(BackendTensor::Float(x)) = &tensor.kind else { return false };
    self_test::products(&x.device())
}

/// Whether products of a layer's `x`, weight and bias are made here.
pub(in crate::gpu) fn takes(inputs: &[DispatchTensor]) -> bool {
    let (x, weight) = (inputs[0].shape(), inputs[1].shape());
    let rows = x.num_elements() / weight[1].max(1);
    of_one_type(inputs)
        && matches!(inputs[0].dtype(), DType::BF16 | DType::F16)
        && weight.iter().all(|n| n.is_multiple_of(8))
        && is_counted(rows * weight[0].max(weight[1]))
        && multiplies(&inputs[0])
}
