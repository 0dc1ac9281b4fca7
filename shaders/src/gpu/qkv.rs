//! Self-attention on a packed projection as one operation: queries and keys are prepared on the
//! way, and gradients come back packed, so that nothing is split, transposed or gathered in memory.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Kernel, TensorSpec, alloc, run};
use super::flash::{Dims, LARGEST_HEAD};
use super::is_on_software;
use super::neighborhood::{self, Image};
use super::prepare::{self, Cosine, Tokens};
use super::rows::Rows;
use super::softmax;
use super::view::View;
use crate::gradient::Operation;
use crate::preparation::Preparation;

/// `[B, N, 3·heads·d]` (q, k, v; head-major) → `[B, N, heads·d]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QkvAttention {
    pub heads: usize,
    pub scale: f64,
    pub preparation: Preparation,
    /// The image whose neighborhoods are seen; everything where there is none.
    pub neighborhood: Option<Image>,
}

impl QkvAttention {
    fn dims(&self, qkv: &TensorSpec) -> Dims {
        let (batch, n) = (qkv.shape[0], qkv.shape[1]);
        let d = qkv.shape[2] / 3 / self.heads;
        Dims { batch, heads: self.heads, queries: n, keys: n, d, e: d }
    }

    /// Prepared queries and keys, `[B·N, 2·heads·d]`; `None` where they are taken as they are.
    fn prepare<R: CubeRuntime>(
        &self,
        dims: Dims,
        qkv: &Rows<R>,
        parameters: &[CubeTensor<R>],
    ) -> Option<Rows<R>> {
        if let Preparation::Plain = self.preparation {
            return None;
        }
        let shape = [dims.batch * dims.queries, 2 * dims.heads * dims.d];
        let to = Rows::of(alloc(&qkv.tensor, shape, qkv.tensor.dtype));
        for part in [0, 1] {
            let [from, to] = [qkv, &to].map(|rows| view(rows, part, dims));
            match self.preparation {
                Preparation::Plain => unreachable!("it returned above"),
                Preparation::Rotary => {
                    prepare::rotate(tokens(dims), from, tables(parameters), to, false);
                }
                Preparation::Cosine { height, width } => {
                    prepare::cosine(tokens(dims), from, cosine(parameters, height, width), to);
                }
            }
        }
        Some(to)
    }
}

fn tables<R: CubeRuntime>(parameters: &[CubeTensor<R>]) -> [&CubeTensor<R>; 2] {
    [&parameters[0], &parameters[1]]
}

fn cosine<R: CubeRuntime>(
    parameters: &[CubeTensor<R>],
    height: usize,
    width: usize,
) -> Cosine<'_, R> {
    Cosine { scale: &parameters[0], freqs: &parameters[1], height, width }
}

fn tokens(dims: Dims) -> Tokens {
    Tokens { batch: dims.batch, n: dims.queries, heads: dims.heads, d: dims.d }
}

/// Queries (0), keys (1) or values (2) of packed rows.
fn view<R: CubeRuntime>(rows: &Rows<R>, part: usize, dims: Dims) -> View<'_, R> {
    View::packed(rows, part, dims.queries, [dims.heads, dims.d])
}

#[derive(Clone, Debug)]
struct Forward {
    attention: QkvAttention,
    /// Whether the GPU is a program.
    software: bool,
}

impl Kernel for Forward {
    const NAME: &'static str = "self-attention";

    /// The result, and the logarithms of the sums `[B, heads, N]`.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let Dims { batch, heads, queries, d, .. } = self.attention.dims(&inputs[0]);
        vec![
            TensorSpec::new([batch, queries, heads * d], inputs[0].dtype),
            TensorSpec::new([batch, heads, queries], DType::F32),
        ]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = self.attention.dims(&TensorSpec::of(&inputs)[0]);
        let (packed, parameters) = split(inputs);
        let prepared = self.attention.prepare(dims, &packed, &parameters);
        let both = prepared.as_ref().unwrap_or(&packed);
        let qkv = [view(both, 0, dims), view(both, 1, dims), view(&packed, 2, dims)];
        let (out, lse) = (Rows::of(outputs[0].clone()), &outputs[1]);
        let out = view(&out, 0, dims);
        let scale = self.attention.scale;
        match self.attention.neighborhood {
            None => softmax::forward(dims, scale, self.software, qkv, out, lse),
            Some(image) => neighborhood::forward(dims, image, scale, qkv, out, lse),
        }
    }
}

/// The projection, whose rows may be spaced, and what follows it.
fn split<R: CubeRuntime>(mut inputs: Vec<CubeTensor<R>>) -> (Rows<R>, Vec<CubeTensor<R>>) {
    let parameters = inputs.split_off(1).into_iter().map(into_contiguous).collect();
    (Rows::of(inputs.remove(0)), parameters)
}

#[derive(Clone, Debug)]
struct Backward(QkvAttention);

impl Kernel for Backward {
    const NAME: &'static str = "self-attention backward";

    /// Inputs: those of the forward pass, result, logarithms, gradient. Outputs: the gradient of
    /// the projection and, for the cosine's scales, two of `[B·N, heads]`.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let dims = self.0.dims(&inputs[0]);
        let tokens = dims.batch * dims.queries;
        let scales = match self.0.preparation {
            Preparation::Cosine { .. } => {
                vec![TensorSpec::new([tokens, dims.heads], DType::F32); 2]
            }
            _ => Vec::new(),
        };
        [vec![inputs[0].clone()], scales].concat()
    }

    fn launch<R: CubeRuntime>(&self, mut inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let dims = self.0.dims(&TensorSpec::of(&inputs)[0]);
        let kept = inputs.split_off(inputs.len() - 3);
        let (packed, parameters) = split(inputs);
        let prepared = self.0.prepare(dims, &packed, &parameters);
        let both = prepared.as_ref().unwrap_or(&packed);
        let qkv = [view(both, 0, dims), view(both, 1, dims), view(&packed, 2, dims)];
        let results = [&kept[0], &kept[2]].map(|x| Rows::of(x.clone()));
        let results = [0, 1].map(|i| view(&results[i], 0, dims));
        let to = Rows::of(outputs[0].clone());
        let gradients = [0, 1, 2].map(|part| view(&to, part, dims));
        let (scale, lse) = (self.0.scale, &kept[1]);
        match self.0.neighborhood {
            None => softmax::backward(dims, scale, qkv, results, lse, gradients),
            Some(image) => {
                neighborhood::backward(dims, image, scale, qkv, results, lse, gradients);
            }
        }
        // From the gradients of what was prepared to those of the projection, in place.
        for part in [0, 1] {
            let (from, gradient) = (view(&packed, part, dims), gradients[part]);
            match self.0.preparation {
                Preparation::Plain => {}
                Preparation::Rotary => {
                    prepare::rotate(tokens(dims), from, tables(&parameters), gradient, true);
                }
                Preparation::Cosine { height, width } => {
                    let (of, to) = (cosine(&parameters, height, width), &outputs[1 + part]);
                    prepare::cosine_backward(tokens(dims), from, of, gradient, to);
                }
            }
        }
    }
}

impl Operation for QkvAttention {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let d = inputs[0].shape()[2] / 3 / self.heads;
        let fits = self.neighborhood.is_none_or(|image| neighborhood::fits(image.kernel, d));
        if d > LARGEST_HEAD || !fits {
            return None;
        }
        let kernel = Forward { attention: *self, software: is_on_software(&inputs[0]) };
        let [out, lse] = run(kernel, inputs.to_vec())?;
        Some((out.clone(), vec![out, lse]))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let given: Vec<_> = inputs.iter().chain(kept).cloned().chain([gradient]).collect();
        let mut gradients = match self.preparation {
            Preparation::Cosine { .. } => {
                let [dqkv, dq, dk] = run(Backward(*self), given)?;
                let scale = || {
                    let [dq, dk] = [dq, dk].map(Tensor::<2>::from_dispatch);
                    let sum: Tensor<1> = (dq + dk).sum_dim(0).squeeze_dim(0);
                    sum.into_dispatch()
                };
                vec![Some(dqkv), wanted[1].then(scale)]
            }
            _ => {
                let [dqkv] = run(Backward(*self), given)?;
                vec![Some(dqkv)]
            }
        };
        gradients.resize(inputs.len(), None);
        Some(gradients)
    }
}
