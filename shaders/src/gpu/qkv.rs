//! Self-attention on a packed projection as one operation: queries and keys are prepared on the
//! way, and gradients come back packed, so that nothing is split, transposed or gathered in memory.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Form, Kernel, run};
use super::flash::{self, Dims, LARGEST_HEAD};
use super::neighborhood::{self, Image};
use super::prepare::{self, Cosine, Tokens};
use super::rows::Rows;
use super::view::View;
use crate::gradient::Operation;

/// How queries and keys are prepared; what it takes follows `qkv` among the inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preparation {
    /// Not at all.
    Plain,
    /// LightningDiT's rotation: cosines and sines, `[N, d]`.
    Rotary,
    /// HDiT's: scales `[heads]` and frequencies `[heads, d/8]`, for an image of this height and
    /// width.
    Cosine { height: usize, width: usize },
}

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
    fn dims(&self, qkv: &Form) -> Dims {
        let (batch, n) = (qkv.shape[0], qkv.shape[1]);
        let d = qkv.shape[2] / 3 / self.heads;
        Dims { batch, heads: self.heads, queries: n, keys: n, d, e: d }
    }

    /// Prepared queries and keys, and the values as they are.
    fn views<R: CubeRuntime>(&self, dims: Dims, inputs: &[CubeTensor<R>]) -> [View<R>; 3] {
        let raw = packed(&inputs[0], dims);
        let from = [&raw[0], &raw[1]];
        if let Preparation::Plain = self.preparation {
            return raw;
        }
        let (client, device, dtype) =
            (inputs[0].client.clone(), inputs[0].device.clone(), inputs[0].dtype);
        let shape = [dims.batch, dims.queries, 2, dims.heads, dims.d];
        let handle = client.empty(shape.iter().product::<usize>() * dtype.size());
        let both = CubeTensor::new_contiguous(client, device, shape.into(), handle, dtype);
        let place = [dims.queries, 2, dims.heads, dims.d];
        let to = [0, 1].map(|part| View::packed(both.clone(), part, place));
        for (from, to) in from.into_iter().zip(&to) {
            match self.preparation {
                Preparation::Plain => unreachable!("it returned above"),
                Preparation::Rotary => {
                    prepare::rotate(tokens(dims), from, [&inputs[1], &inputs[2]], to, false);
                }
                Preparation::Cosine { .. } => {
                    prepare::cosine(tokens(dims), from, self.cosine(inputs), to);
                }
            }
        }
        let [q, k] = to;
        let [_, _, v] = raw;
        [q, k, v]
    }

    fn cosine<'a, R: CubeRuntime>(&self, inputs: &'a [CubeTensor<R>]) -> Cosine<'a, R> {
        let Preparation::Cosine { height, width } = self.preparation else {
            unreachable!("only that preparation asks")
        };
        Cosine { scale: &inputs[1], freqs: &inputs[2], height, width }
    }
}

fn tokens(dims: Dims) -> Tokens {
    Tokens { batch: dims.batch, n: dims.queries, heads: dims.heads, d: dims.d }
}

/// q, k and v of a packed projection.
fn packed<R: CubeRuntime>(qkv: &CubeTensor<R>, dims: Dims) -> [View<R>; 3] {
    let rows = Rows::of(qkv.clone());
    [0, 1, 2].map(|part| {
        let offset = part * dims.heads * dims.d;
        let layout = [offset, dims.queries * rows.stride, rows.stride, dims.d];
        View { tensor: rows.tensor.clone(), layout }
    })
}

/// The heads of `[B, N, heads·d]`.
fn heads<R: CubeRuntime>(tensor: &CubeTensor<R>, dims: Dims) -> View<R> {
    let rows = Rows::of(tensor.clone());
    let layout = [0, dims.queries * rows.stride, rows.stride, dims.e];
    View { tensor: rows.tensor, layout }
}

#[derive(Clone, Debug)]
struct Forward(QkvAttention);

impl Kernel for Forward {
    const NAME: &'static str = "self-attention";

    /// The result, and the logarithms of the sums `[B, heads, N]`.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        let Dims { batch, heads, queries, d, .. } = self.0.dims(&inputs[0]);
        vec![
            Form::new([batch, queries, heads * d], inputs[0].dtype),
            Form::new([batch, heads, queries], DType::F32),
        ]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs = contiguous_parameters(inputs);
        let dims = self.0.dims(&Form::of(&inputs)[0]);
        let [q, k, v] = self.0.views(dims, &inputs);
        let out = heads(&outputs[0], dims);
        let (qkv, lse) = ([&q, &k, &v], &outputs[1]);
        match self.0.neighborhood {
            None => flash::forward(dims, self.0.scale, qkv, &out, lse),
            Some(image) => neighborhood::forward(dims, image, self.0.scale, qkv, &out, lse),
        }
    }
}

/// Everything but the projection itself, whose rows may be spaced.
fn contiguous_parameters<R: CubeRuntime>(mut inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
    let parameters = inputs.split_off(1);
    inputs.extend(parameters.into_iter().map(burn_cubecl::kernel::into_contiguous));
    inputs
}

#[derive(Clone, Debug)]
struct Backward(QkvAttention);

impl Kernel for Backward {
    const NAME: &'static str = "self-attention backward";

    /// Inputs: those of the forward pass, result, logarithms, gradient. Outputs: the gradient of
    /// the projection and, for the cosine's scales, `[2, B·N, heads]`.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        let dims = self.0.dims(&inputs[0]);
        let tokens = dims.batch * dims.queries;
        let scales = match self.0.preparation {
            Preparation::Cosine { .. } => vec![Form::new([tokens, dims.heads], DType::F32); 2],
            _ => Vec::new(),
        };
        [vec![inputs[0].clone()], scales].concat()
    }

    fn launch<R: CubeRuntime>(&self, mut inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let kept = inputs.split_off(inputs.len() - 3);
        let inputs = contiguous_parameters(inputs);
        let dims = self.0.dims(&Form::of(&inputs)[0]);
        let [q, k, v] = self.0.views(dims, &inputs);
        let [out, gradient] = [&kept[0], &kept[2]].map(|x| heads(x, dims));
        let [dq, dk, dv] = packed(&outputs[0], dims);
        let (qkv, results, gradients) = ([&q, &k, &v], [&out, &gradient], [&dq, &dk, &dv]);
        let (scale, lse) = (self.0.scale, &kept[1]);
        match self.0.neighborhood {
            None => flash::backward(dims, scale, qkv, results, lse, gradients),
            Some(image) => {
                neighborhood::backward(dims, image, scale, qkv, results, lse, gradients);
            }
        }
        let raw = packed(&inputs[0], dims);
        for (part, gradient) in [&dq, &dk].into_iter().enumerate() {
            match self.0.preparation {
                Preparation::Plain => {}
                Preparation::Rotary => {
                    let tables = [&inputs[1], &inputs[2]];
                    prepare::rotate(tokens(dims), &raw[part], tables, gradient, true);
                }
                Preparation::Cosine { .. } => {
                    let of = self.0.cosine(&inputs);
                    let to = &outputs[1 + part];
                    prepare::cosine_backward(tokens(dims), &raw[part], of, gradient, to);
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
        let [out, lse] = run(Forward(*self), inputs.to_vec())?;
        Some((out.clone(), vec![out, lse]))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Vec<Option<DispatchTensor>> {
        let given: Vec<_> = inputs.iter().chain(kept).cloned().chain([gradient]).collect();
        let mut gradients = match self.preparation {
            Preparation::Cosine { .. } => {
                let Some([dqkv, dq, dk]) = run(Backward(*self), given) else { return Vec::new() };
                let scale = || {
                    let [dq, dk] = [dq, dk].map(Tensor::<2>::from_dispatch);
                    let sum: Tensor<1> = (dq + dk).sum_dim(0).squeeze_dim(0);
                    sum.cast(inputs[1].dtype()).into_dispatch()
                };
                vec![Some(dqkv), wanted[1].then(scale)]
            }
            _ => {
                let Some([dqkv]) = run(Backward(*self), given) else { return Vec::new() };
                vec![Some(dqkv)]
            }
        };
        gradients.resize(inputs.len(), None);
        gradients
    }
}
