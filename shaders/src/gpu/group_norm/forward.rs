//! The normalised, scaled and activated value.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::moments::moments;
use super::{GroupNormSilu, Sizes, of_groups, width};
use crate::gpu::activation::{Activation, with_derivative};
use crate::gpu::bridge::{Kernel, TensorSpec, buffers};
use crate::gpu::rows::{UNITS, cubes, elem};

#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub norm: GroupNormSilu,
    /// Whether the GPU is a program.
    pub software: bool,
}

impl Kernel for Forward {
    const NAME: &'static str = "group norm and silu";

    /// Inputs and outputs have channels last.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let x = &inputs[0];
        let sizes = Sizes::of(x.meta.shape(), self.norm.groups);
        let n = width(&inputs);
        let moments = moments(x, sizes, n, self.norm.eps, self.software);
        let total = sizes.values() / n;
        let [x_arg, weight, bias, moments, y] =
            buffers([x, &inputs[1], &inputs[2], &moments, &outputs[0]]);
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            forward::launch_unchecked::<R>(
                &x.client,
                cubes(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x_arg,
                weight,
                bias,
                moments,
                y,
                total as u32,
                sizes.area as u32,
                sizes.channels as u32,
                self.norm.groups as u32,
                elem(x.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn forward<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    moments: &[f32],
    y: &mut [Vector<F, N>],
    total: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < total {
        let width = channels / N::value() as u32;
        let (column, image) = (at % width, at / width / area);
        let (mean, inverse) = of_groups::<N>(moments, image, column, groups, channels);
        let n = (Vector::<f32, N>::cast_from(x[at as usize]) - mean) * inverse;
        let v = n * Vector::cast_from(weight[column as usize])
            + Vector::cast_from(bias[column as usize]);
        let (y_at, _) = with_derivative::<N>(v, Activation::Silu);
        y[at as usize] = Vector::cast_from(y_at);
    }
}
