//! The gradients: of the input, and of each channel's weight and bias.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::moments::moments;
use super::{GroupNormSilu, Sizes, of_groups, run_of, store_pairs, width};
use crate::gpu::activation::{Activation, with_derivative};
use crate::gpu::bridge::{Kernel, TensorSpec, alloc, buffers};
use crate::gpu::rows::{UNITS, cubes, elem};

#[derive(Clone, Debug)]
pub(super) struct Backward {
    pub norm: GroupNormSilu,
    /// Whether the GPU is a program.
    pub software: bool,
}

impl Kernel for Backward {
    const NAME: &'static str = "group norm and silu backward";

    /// Inputs: x, weight, bias, gradient. Outputs: the gradient of x and, of each channel of each
    /// image, `Σ h` and `Σ h·n`, `[B·C, 2]`, with `h` the gradient before the SiLU.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let shape = &inputs[0].shape;
        vec![inputs[0].clone(), TensorSpec::new([shape[0] * shape[3], 2], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let (x, [dx, sums]) = (&inputs[0], [&outputs[0], &outputs[1]]);
        let sizes = Sizes::of(x.meta.shape(), self.norm.groups);
        let n = width(&inputs);
        let moments = moments(x, sizes, n, self.norm.eps, self.software);
        let Sizes { batch, area, channels, groups } = sizes;
        let runs = alloc(x, [batch * sizes.runs() * channels, 2], DType::F32);
        let means = alloc(x, [batch * groups, 2], DType::F32);
        let (units, total) = (batch * sizes.runs() * channels / n, sizes.values() / n);
        let [area, channels, groups] = [area, channels, groups].map(|n| n as u32);
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            let [x_arg, weight, bias, moments_arg, gradient, runs_arg] =
                buffers([x, &inputs[1], &inputs[2], &moments, &inputs[3], &runs]);
            run_sums::launch_unchecked::<R>(
                &x.client,
                cubes(units.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x_arg,
                weight,
                bias,
                moments_arg,
                gradient,
                runs_arg,
                units as u32,
                area,
                channels,
                groups,
                elem(x.dtype),
            );
            let [runs_arg, sums_arg] = buffers([&runs, sums]);
            channel_sums::launch_unchecked::<R>(
                &x.client,
                cubes((batch * sizes.channels).div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                runs_arg,
                sums_arg,
                (batch * sizes.channels) as u32,
                sizes.runs() as u32,
                channels,
            );
            let [sums_arg, weight, means_arg] = buffers([sums, &inputs[1], &means]);
            group_means::launch_unchecked::<R>(
                &x.client,
                cubes((batch * sizes.groups).div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                sums_arg,
                weight,
                means_arg,
                (batch * sizes.groups) as u32,
                area,
                channels,
                groups,
                elem(x.dtype),
            );
            let [x_arg, weight, bias, moments, means, gradient, dx] =
                buffers([x, &inputs[1], &inputs[2], &moments, &means, &inputs[3], dx]);
            backward::launch_unchecked::<R>(
                &x.client,
                cubes(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x_arg,
                weight,
                bias,
                moments,
                means,
                gradient,
                dx,
                total as u32,
                area,
                channels,
                groups,
                elem(x.dtype),
            );
        }
    }
}

/// The gradient before the SiLU, and the normalised value.
#[cube]
fn gradient_and_value<F: Float, N: Size>(
    x: Vector<F, N>,
    weight: Vector<F, N>,
    bias: Vector<F, N>,
    gradient: Vector<F, N>,
    mean: Vector<f32, N>,
    inverse: Vector<f32, N>,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let n = (Vector::<f32, N>::cast_from(x) - mean) * inverse;
    let v = n * Vector::cast_from(weight) + Vector::cast_from(bias);
    let (_, slope) = with_derivative::<N>(v, Activation::Silu);
    (Vector::<f32, N>::cast_from(gradient) * slope, n)
}

/// `Σ h` and `Σ h·n` of each channel of each run.
#[cube(launch_unchecked)]
fn run_sums<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    moments: &[f32],
    gradient: &[Vector<F, N>],
    runs: &mut [f32],
    units: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = ABSOLUTE_POS as u32;
    if unit < units {
        let width = channels / N::value() as u32;
        let run = run_of(unit, area, width);
        let (mean, inverse) = of_groups::<N>(moments, run.image, run.column, groups, channels);
        let (weight, bias) = (weight[run.column as usize], bias[run.column as usize]);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut product = Vector::<f32, N>::new(0.0f32);
        for i in 0..run.length {
            let at = run.start + (i * width) as usize;
            let (h, n) =
                gradient_and_value::<F, N>(x[at], weight, bias, gradient[at], mean, inverse);
            sum += h;
            product += h * n;
        }
        store_pairs::<N>(runs, unit, sum, product);
    }
}

/// The sums of an image's runs.
#[cube(launch_unchecked)]
fn channel_sums(runs: &[f32], sums: &mut [f32], count: u32, runs_of_image: u32, channels: u32) {
    let place = ABSOLUTE_POS as u32;
    if place < count {
        let (image, channel) = (place / channels, place % channels);
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        for run in 0..runs_of_image {
            let at = (2 * ((image * runs_of_image + run) * channels + channel)) as usize;
            sum += runs[at];
            product += runs[at + 1];
        }
        sums[(2 * place) as usize] = sum;
        sums[(2 * place + 1) as usize] = product;
    }
}

/// The means of `h·w` and `h·w·n` over each group.
#[cube(launch_unchecked)]
fn group_means<F: Float>(
    sums: &[f32],
    weight: &[F],
    means: &mut [f32],
    count: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let place = ABSOLUTE_POS as u32;
    if place < count {
        let width = channels / groups;
        let (image, first) = (place / groups, place % groups * width);
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        for channel in first..first + width {
            let gain = f32::cast_from(weight[channel as usize]);
            let at = (2 * (image * channels + channel)) as usize;
            sum += gain * sums[at];
            product += gain * sums[at + 1];
        }
        let values = f32::cast_from(area * width);
        means[(2 * place) as usize] = sum / values;
        means[(2 * place + 1) as usize] = product / values;
    }
}

/// `dx = (h·w − mean(h·w) − n·mean(h·w·n))/σ`, the means over the group.
#[cube(launch_unchecked)]
fn backward<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    moments: &[f32],
    means: &[f32],
    gradient: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
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
        let (gain, place) = (weight[column as usize], at as usize);
        let bias = bias[column as usize];
        let (h, n) =
            gradient_and_value::<F, N>(x[place], gain, bias, gradient[place], mean, inverse);
        let (mean_h, mean_product) = of_groups::<N>(means, image, column, groups, channels);
        let h = h * Vector::cast_from(gain);
        dx[place] = Vector::cast_from((h - mean_h - n * mean_product) * inverse);
    }
}
