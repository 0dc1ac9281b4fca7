//! Attention of separate queries, keys and values as an operation with a gradient.

use burn::backend::DispatchTensor;
use burn::tensor::DType;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Kernel, TensorSpec, run};
use super::flash::{Dims, LARGEST_HEAD};
use super::is_on_software;
use super::neighborhood::{self, Image};
use super::rows::Rows;
use super::softmax;
use super::view::{View, contiguous_heads};
use crate::gradient::{Operation, of_one_type};

/// `softmax(q kᵀ·scale) v` of `[B, heads, N, d]`, `[B, heads, M, d]` and `[B, heads, M, e]`; the
/// result is **`[B, N, heads, e]`**, as the projection behind it wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub scale: f64,
    /// The image whose neighborhoods are seen; everything where there is none.
    pub neighborhood: Option<Image>,
}

fn dims(inputs: &[TensorSpec]) -> Dims {
    let (q, v) = (&inputs[0].shape, &inputs[2].shape);
    Dims { batch: q[0], heads: q[1], queries: q[2], keys: v[2], d: q[3], e: v[3] }
}

/// `[B, N, heads, e]` as rows of tokens.
fn tokens<R: CubeRuntime>(tensor: CubeTensor<R>) -> Rows<R> {
    let rows = Rows::of(into_contiguous(tensor));
    let parts = rows.tensor.meta.shape()[2];
    Rows { count: rows.count / parts, d: rows.d * parts, stride: rows.d * parts, ..rows }
}

#[derive(Clone, Debug)]
struct Forward {
    attention: Attention,
    /// Whether the GPU is a program.
    software: bool,
}

impl Kernel for Forward {
    const NAME: &'static str = "attention";

    /// The result, and the logarithms of the sums `[B, heads, N]`.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let Dims { batch, heads, queries, e, .. } = dims(inputs);
        vec![
            TensorSpec::new([batch, queries, heads, e], inputs[0].dtype),
            TensorSpec::new([batch, heads, queries], DType::F32),
        ]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = dims(&TensorSpec::of(&inputs));
        let inputs: Vec<_> = inputs.into_iter().map(contiguous_heads).collect();
        let qkv = [0, 1, 2].map(|i| View::heads_first(&inputs[i]));
        let (out, lse) = (tokens(outputs[0].clone()), &outputs[1]);
        let out = View::packed(&out, 0, dims.queries, [dims.heads, dims.e]);
        let scale = self.attention.scale;
        match self.attention.neighborhood {
            None => softmax::forward(dims, scale, self.software, qkv, out, lse),
            Some(image) => neighborhood::forward(dims, image, scale, qkv, out, lse),
        }
    }
}

#[derive(Clone, Debug)]
struct Backward(Attention);

impl Kernel for Backward {
    const NAME: &'static str = "attention backward";

    /// Inputs: q, k, v, result, logarithms, gradient.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        inputs[..3].to_vec()
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = dims(&TensorSpec::of(&inputs));
        let qkv = [0, 1, 2].map(|i| contiguous_heads(inputs[i].clone()));
        let qkv = [0, 1, 2].map(|i| View::heads_first(&qkv[i]));
        let gradients = [0, 1, 2].map(|i| View::heads_first(&outputs[i]));
        let results = [3, 5].map(|i| tokens(inputs[i].clone()));
        let results =
            [0, 1].map(|i| View::packed(&results[i], 0, dims.queries, [dims.heads, dims.e]));
        let (scale, lse) = (self.0.scale, &inputs[4]);
        match self.0.neighborhood {
            None => softmax::backward(dims, scale, qkv, results, lse, gradients),
            Some(image) => {
                neighborhood::backward(dims, image, scale, qkv, results, lse, gradients);
            }
        }
    }
}

impl Operation for Attention {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let head = inputs.iter().map(|x| x.shape()[3]).max()?;
        let fits = self.neighborhood.is_none_or(|image| neighborhood::fits(image.kernel, head));
        if head > LARGEST_HEAD || !fits {
            return None;
        }
        let kernel = Forward { attention: *self, software: is_on_software(&inputs[0]) };
        let [out, lse] = of_one_type(inputs).then(|| run(kernel, inputs.to_vec()))??;
        Some((out.clone(), vec![out, lse]))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let given = inputs.iter().chain(kept).cloned().chain([gradient]).collect();
        let gradients: [_; 3] = run(Backward(*self), given)?;
        Some(gradients.map(Some).into())
    }
}
