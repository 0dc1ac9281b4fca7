//! Convolutions of our own where a GPU has them: on Hopper, of 16-bit tensors, as matrix products whose
//! rows are pixels. They have no gradient; training takes Burn's.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Form, Kernel, run};
use super::cuda::on_cuda;
use super::cuda::product::{Added, convolution};
use super::linear::{is_counted, multiplies};
use super::rows::Rows;
use crate::gradient::{Operation, of_one_type};

/// `x` `[B, C, H, W]`, weight `[out, C, k, k]` with an odd `k`, bias `[out]` and, where there is one,
/// a residual of the result's shape `[B, out, H, W]`. The result's channels lie last in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution;

#[derive(Clone, Copy, Debug)]
struct Forward {
    window: usize,
}

impl Kernel for Forward {
    const NAME: &'static str = "convolution";

    /// Inputs: `[B, H, W, C]`, `[out, k·k·C]`, `[out]` and, where there is one, `[B, H, W, out]`.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        let (x, out) = (&inputs[0], inputs[1].shape[0]);
        vec![Form::new([x.shape[0], x.shape[1], x.shape[2], out], x.dtype)]
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

impl Operation for Convolution {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let weight = inputs[1].shape();
        let (out, channels, window) = (weight[0], weight[1], weight[2]);
        let fits = of_one_type(inputs)
            && matches!(inputs[0].dtype(), DType::BF16 | DType::F16)
            && channels.is_multiple_of(8)
            && window % 2 == 1
            && is_counted(inputs[0].shape().num_elements() / channels.max(1) * out.max(channels))
            && multiplies(&inputs[0]);
        if !fits {
            return None;
        }
        let image = |x: &DispatchTensor| Tensor::<4>::from_dispatch(x.clone());
        // Results are written eight channels at a time; what is beyond the last is cut off again.
        let whole = out.next_multiple_of(8);
        let weight =
            image(&inputs[1]).permute([0, 2, 3, 1]).reshape([out, window * window * channels]);
        let bias = Tensor::<1>::from_dispatch(inputs[2].clone());
        let (weight, bias) = match whole - out {
            0 => (weight, bias),
            more => (
                Tensor::cat(vec![weight.clone(), weight.narrow(0, 0, 1).repeat_dim(0, more)], 0),
                Tensor::cat(vec![bias.clone(), bias.narrow(0, 0, 1).repeat_dim(0, more)], 0),
            ),
        };
        let last = |x: Tensor<4>| x.permute([0, 2, 3, 1]).into_dispatch();
        let mut given = vec![last(image(&inputs[0])), weight.into_dispatch(), bias.into_dispatch()];
        if let Some(residual) = inputs.get(3) {
            if whole > out {
                return None;
            }
            given.push(last(image(residual)));
        }
        let [result] = run(Forward { window }, given)?;
        let result = Tensor::<4>::from_dispatch(result).permute([0, 3, 1, 2]).narrow(1, 0, out);
        Some((result.into_dispatch(), Vec::new()))
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
    ) -> Vec<Option<DispatchTensor>> {
        Vec::new()
    }
}
