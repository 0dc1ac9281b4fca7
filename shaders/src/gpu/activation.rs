//! Activations, alone after a bias and as the gates of a feed-forward network.

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::columns::Columns;
use super::rows::{Rows, UNITS, cubes, elem, vector_size};
use crate::gradient::{Operation, of_one_type};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    /// `x / (1 + e⁻ˣ)`
    Silu,
    /// `x Φ(x)`
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))`
    GeluTanh,
}

/// The function of a value and its derivative there.
#[cube]
pub(super) fn with_derivative<N: Size>(
    x: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let one = Vector::<f32, N>::new(1.0f32);
    let half = Vector::<f32, N>::new(0.5f32);
    match comptime!(activation) {
        Activation::Silu => {
            let s = one / (one + (-x).exp());
            (x * s, s * (one + x * (one - s)))
        }
        Activation::Gelu => {
            let phi = half * (one + (x * Vector::new(0.707_106_77f32)).erf());
            let density = (-(half * x * x)).exp() * Vector::new(0.398_942_3f32);
            (x * phi, phi + x * density)
        }
        Activation::GeluTanh => {
            let cubic = Vector::<f32, N>::new(0.044_715f32) * x * x;
            let root = Vector::<f32, N>::new(0.797_884_6f32);
            let t = tanh::<N>(root * x * (one + cubic));
            let slope = root * (one + cubic + cubic + cubic);
            (half * x * (one + t), half * (one + t) + half * x * (one - t * t) * slope)
        }
    }
}

/// The hyperbolic tangent without overflow, which some drivers' own has.
#[cube]
fn tanh<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let bounded = max(min(x, Vector::new(15.0f32)), Vector::new(-15.0f32));
    let e = (bounded + bounded).exp();
    (e - one) / (e + one)
}

/// `activation(first)·second` or `first·activation(second)` of the halves of `[…, 2·d]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glu {
    pub activation: Activation,
    /// Whether the activation is the first half's.
    pub first: bool,
}

/// Inputs `[…, 2·d]` and, for the gradient of the first, that of the result `[…, d]`.
#[derive(Clone, Copy, Debug)]
struct GluKernel {
    glu: Glu,
    backward: bool,
}

impl Kernel for GluKernel {
    const NAME: &'static str = "gated linear unit";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let mut form = inputs[0].clone();
        let last = form.shape.num_dims() - 1;
        if !self.backward {
            form.shape[last] /= 2;
        }
        vec![form]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, mut outputs: Vec<CubeTensor<R>>) {
        let out = Rows::of(outputs.remove(0));
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let half = rows[0].d / 2;
        let halves = Rows { tensor: out.tensor.clone(), count: out.count, d: half, stride: half };
        let n = vector_size(&[&rows[0], rows.last().expect("a kernel has inputs"), &halves]);
        let gradient = rows.last().expect("a kernel has inputs");
        let [x, gradient_arg, out] = buffers([&rows[0].tensor, &gradient.tensor, &out.tensor]);
        // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            glu_kernel::launch_unchecked::<R>(
                &rows[0].tensor.client,
                cubes((rows[0].count * half / n).div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x,
                gradient_arg,
                out,
                rows[0].count as u32,
                (half / n) as u32,
                (rows[0].stride / n) as u32,
                (gradient.stride / n) as u32,
                self.glu.activation,
                self.glu.first,
                self.backward,
                elem(rows[0].tensor.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn glu_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    count: u32,
    d: u32,
    stride: u32,
    gradient_stride: u32,
    #[comptime] activation: Activation,
    #[comptime] first_is_active: bool,
    #[comptime] backward: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < count * d {
        let (row, column) = (at / d, at % d);
        let start = (row * stride + column) as usize;
        let first = Vector::<f32, N>::cast_from(x[start]);
        let second = Vector::<f32, N>::cast_from(x[start + d as usize]);
        let active = if first_is_active { first } else { second };
        let other = if first_is_active { second } else { first };
        let (value, slope) = with_derivative::<N>(active, activation);
        if backward {
            let gradient = gradient[(row * gradient_stride + column) as usize];
            let gradient = Vector::<f32, N>::cast_from(gradient);
            let d_active = gradient * other * slope;
            let d_other = gradient * value;
            let to = (row * 2 * d + column) as usize;
            let d_first = if first_is_active { d_active } else { d_other };
            let d_second = if first_is_active { d_other } else { d_active };
            out[to] = Vector::cast_from(d_first);
            out[to + d as usize] = Vector::cast_from(d_second);
        } else {
            out[at as usize] = Vector::cast_from(value * other);
        }
    }
}

impl Operation for Glu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [out] = run(GluKernel { glu: *self, backward: false }, inputs.to_vec())?;
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let kernel = GluKernel { glu: *self, backward: true };
        let [dx] = run(kernel, vec![inputs[0].clone(), gradient])?;
        Some(vec![Some(dx)])
    }
}

/// `activation(x + bias)` of `[…, d]`; the bias `[d]` may be absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BiasActivation {
    pub activation: Activation,
    pub bias: bool,
}

/// Inputs `x`, `bias`? and, for the gradient of the first, that of the result.
#[derive(Clone, Copy, Debug)]
struct BiasKernel {
    of: BiasActivation,
    backward: bool,
}

impl Kernel for BiasKernel {
    const NAME: &'static str = "bias and activation";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&rows.iter().collect::<Vec<_>>());
        let (x, d) = (&rows[0], rows[0].d / n);
        let bias = &rows[usize::from(self.of.bias)];
        let gradient = rows.last().expect("a kernel has inputs");
        let [x_arg, bias, gradient_arg, out] =
            buffers([&x.tensor, &bias.tensor, &gradient.tensor, &outputs[0]]);
        // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            bias_kernel::launch_unchecked::<R>(
                &x.tensor.client,
                cubes((x.count * d).div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x_arg,
                bias,
                gradient_arg,
                out,
                x.count as u32,
                d as u32,
                (x.stride / n) as u32,
                (gradient.stride / n) as u32,
                self.of.activation,
                self.of.bias,
                self.backward,
                elem(x.tensor.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn bias_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    count: u32,
    d: u32,
    stride: u32,
    gradient_stride: u32,
    #[comptime] activation: Activation,
    #[comptime] has_bias: bool,
    #[comptime] backward: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < count * d {
        let (row, column) = (at / d, at % d);
        let mut v = Vector::<f32, N>::cast_from(x[(row * stride + column) as usize]);
        if has_bias {
            v += Vector::cast_from(bias[column as usize]);
        }
        let (value, slope) = with_derivative::<N>(v, activation);
        if backward {
            let gradient = gradient[(row * gradient_stride + column) as usize];
            out[at as usize] = Vector::cast_from(Vector::<f32, N>::cast_from(gradient) * slope);
        } else {
            out[at as usize] = Vector::cast_from(value);
        }
    }
}

impl Operation for BiasActivation {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [out] = of_one_type(inputs)
            .then(|| run(BiasKernel { of: *self, backward: false }, inputs.to_vec()))??;
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let given = inputs.iter().cloned().chain([gradient]).collect();
        let [dx] = run(BiasKernel { of: *self, backward: true }, given)?;
        let mut gradients = vec![Some(dx.clone())];
        if self.bias {
            let columns = Columns { groups: 1, sum: true, normalised: false };
            let sums = wanted[1].then(|| columns.run(vec![dx])).flatten();
            gradients.push(sums.map(|sums| {
                let bias: Tensor<1> = sums.reshape([-1]);
                bias.cast(inputs[1].dtype()).into_dispatch()
            }));
        }
        Some(gradients)
    }
}
