//! Attention of separate queries, keys and values as an operation with a gradient.

use burn::backend::DispatchTensor;
use burn::tensor::DType;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Form, Kernel, run};
use super::flash::{self, Dims, LARGEST_HEAD};
use super::neighborhood::{self, Image};
use super::view::View;
use crate::gradient::Operation;

/// `softmax(q kᵀ·scale) v` of `[B, heads, N, d]`, `[B, heads, M, d]` and `[B, heads, M, e]`; the
/// result is **`[B, N, heads, e]`**, as the projection behind it wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub scale: f64,
    /// The image whose neighborhoods are seen; everything where there is none.
    pub neighborhood: Option<Image>,
}

fn dims(inputs: &[Form]) -> Dims {
    let (q, v) = (&inputs[0].shape, &inputs[2].shape);
    Dims { batch: q[0], heads: q[1], queries: q[2], keys: v[2], d: q[3], e: v[3] }
}

/// A contiguous `[B, N, heads, e]`.
fn tokens_first<R: CubeRuntime>(tensor: CubeTensor<R>) -> View<R> {
    let tensor = burn_cubecl::kernel::into_contiguous(tensor);
    let shape = tensor.meta.shape();
    let dims = [shape[1], 1, shape[2], shape[3]];
    View::packed(tensor, 0, dims)
}

#[derive(Clone, Debug)]
struct Forward(Attention);

impl Kernel for Forward {
    const NAME: &'static str = "attention";

    /// The result, and the logarithms of the sums `[B, heads, N]`.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        let Dims { batch, heads, queries, e, .. } = dims(inputs);
        vec![
            Form::new([batch, queries, heads, e], inputs[0].dtype),
            Form::new([batch, heads, queries], DType::F32),
        ]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = dims(&Form::of(&inputs));
        let views: Vec<_> = inputs.into_iter().map(View::heads_first).collect();
        let out = tokens_first(outputs[0].clone());
        let (qkv, lse) = ([&views[0], &views[1], &views[2]], &outputs[1]);
        match self.0.neighborhood {
            None => flash::forward(dims, self.0.scale, qkv, &out, lse),
            Some(image) => neighborhood::forward(dims, image, self.0.scale, qkv, &out, lse),
        }
    }
}

#[derive(Clone, Debug)]
struct Backward(Attention);

impl Kernel for Backward {
    const NAME: &'static str = "attention backward";

    /// Inputs: q, k, v, result, logarithms, gradient.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        inputs[..3].to_vec()
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = dims(&Form::of(&inputs));
        let heads_first = |x: &CubeTensor<R>| View::heads_first(x.clone());
        let [q, k, v] = [0, 1, 2].map(|i| heads_first(&inputs[i]));
        let [dq, dk, dv] = [0, 1, 2].map(|i| heads_first(&outputs[i]));
        let [out, gradient] = [3, 5].map(|i| tokens_first(inputs[i].clone()));
        let (qkv, results, gradients) = ([&q, &k, &v], [&out, &gradient], [&dq, &dk, &dv]);
        let (scale, lse) = (self.0.scale, &inputs[4]);
        match self.0.neighborhood {
            None => flash::backward(dims, scale, qkv, results, lse, gradients),
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
        let [out, lse] = run(Forward(*self), inputs.to_vec())?;
        Some((out.clone(), vec![out, lse]))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Vec<Option<DispatchTensor>> {
        let given = inputs.iter().chain(kept).cloned().chain([gradient]).collect();
        let gradients: Option<[_; 3]> = run(Backward(*self), given);
        gradients.into_iter().flatten().map(Some).collect()
    }
}
