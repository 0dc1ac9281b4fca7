//! GroupNorm with SiLU behind it (VA-VAE), two passes over memory.
//!
//! Channels lie innermost, as convolutions on GPUs have them: neighbouring units take neighbouring
//! channels. A unit goes through a run of pixels for its channels, another kernel puts what the
//! units found together for each group, and a last one writes the result.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::activation::{Activation, with_derivative};
use super::bridge::{Kernel, TensorSpec, alloc, buffers, run};
use super::rows::{Rows, UNITS, cubes, elem, row_sum, vector_size};
use crate::gradient::{Operation, of_one_type};

/// Inputs `x` `[B, C, H, W]`, weight `[C]`, bias `[C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNormSilu {
    pub groups: usize,
    pub eps: f64,
}

/// Pixels that a unit goes through.
const RUN: u32 = 64;

/// The sizes of `[B, H, W, C]`.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    /// Pixels of an image.
    area: usize,
    channels: usize,
    /// Groups of an image.
    groups: usize,
}

impl Sizes {
    fn of(shape: &[usize], groups: usize) -> Self {
        Self { batch: shape[0], area: shape[1] * shape[2], channels: shape[3], groups }
    }

    /// Runs of an image.
    fn runs(&self) -> usize {
        self.area.div_ceil(RUN as usize)
    }

    fn values(&self) -> usize {
        self.batch * self.area * self.channels
    }
}

/// Channels that are read at a time.
fn width<R: CubeRuntime>(tensors: &[CubeTensor<R>]) -> usize {
    let rows: Vec<_> = tensors.iter().cloned().map(Rows::of).collect();
    vector_size(&rows.iter().collect::<Vec<_>>())
}

/// Mean and inverse deviation of each group, `[B·groups, 2]`.
fn moments<R: CubeRuntime>(x: &CubeTensor<R>, sizes: Sizes, n: usize, eps: f64) -> CubeTensor<R> {
    let Sizes { batch, area, channels, groups } = sizes;
    let runs = alloc(x, [batch * sizes.runs() * channels, 2], DType::F32);
    let moments = alloc(x, [batch * groups, 2], DType::F32);
    let units = batch * sizes.runs() * channels / n;
    // SAFETY: runs end with their image, and units beyond the last do nothing.
    unsafe {
        let [x_arg, runs_arg] = buffers([x, &runs]);
        run_moments::launch_unchecked::<R>(
            &x.client,
            cubes(units.div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            n,
            x_arg,
            runs_arg,
            units as u32,
            area as u32,
            (channels / n) as u32,
            elem(x.dtype),
        );
        let [runs_arg, moments_arg] = buffers([&runs, &moments]);
        group_moments::launch_unchecked::<R>(
            &x.client,
            cubes(batch * groups),
            CubeDim::new_2d(UNITS, 1),
            runs_arg,
            moments_arg,
            (batch * groups) as u32,
            area as u32,
            channels as u32,
            groups as u32,
            eps as f32,
        );
    }
    moments
}

/// A unit's run of pixels: where its vectors begin, and how many pixels it has.
#[derive(CubeType)]
struct Run {
    start: usize,
    length: u32,
    /// The first of its channels, in vectors.
    column: u32,
    image: u32,
}

/// Of unit `unit`: images of `area` pixels of `width` vectors.
#[cube]
fn run_of(unit: u32, area: u32, width: u32) -> Run {
    let runs = area.div_ceil(RUN);
    let (column, run, image) = (unit % width, unit / width % runs, unit / width / runs);
    Run {
        start: (image * area + run * RUN) as usize * width as usize + column as usize,
        length: min(area - run * RUN, RUN),
        column,
        image,
    }
}

/// Of each channel of each run, its mean and the sum of squares around it.
#[cube(launch_unchecked)]
fn run_moments<F: Float, N: Size>(
    x: &[Vector<F, N>],
    runs: &mut [f32],
    units: u32,
    area: u32,
    width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = ABSOLUTE_POS as u32;
    if unit < units {
        let run = run_of(unit, area, width);
        let mut mean = Vector::<f32, N>::new(0.0f32);
        for i in 0..run.length {
            mean += Vector::cast_from(x[run.start + (i * width) as usize]);
        }
        mean /= Vector::new(f32::cast_from(run.length));
        let mut squares = Vector::<f32, N>::new(0.0f32);
        for i in 0..run.length {
            let v = Vector::<f32, N>::cast_from(x[run.start + (i * width) as usize]) - mean;
            squares += v * v;
        }
        let to = unit as usize * N::value() * 2;
        #[unroll]
        for i in 0..N::value() {
            runs[to + 2 * i] = mean.extract(i);
            runs[to + 2 * i + 1] = squares.extract(i);
        }
    }
}

/// Of each group, mean and inverse deviation (Chan, Golub and LeVeque's combination of parts).
#[cube(launch_unchecked)]
fn group_moments(
    runs: &[f32],
    moments: &mut [f32],
    count: u32,
    area: u32,
    channels: u32,
    groups: u32,
    eps: f32,
) {
    let mut sums = Shared::new_slice(comptime!(UNITS as usize));
    let place = CUBE_POS as u32;
    if place < count {
        let (image, group) = (place / groups, place % groups);
        let width = channels / groups;
        let runs_of_image = area.div_ceil(RUN);
        let start = image * runs_of_image * channels + group * width;
        let values = f32::cast_from(area * width);
        let mut sum = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < runs_of_image * width {
            let (run, channel) = (i / width, i % width);
            let length = f32::cast_from(min(area - run * RUN, RUN));
            sum += length * runs[(2 * (start + run * channels + channel)) as usize];
            i += UNITS;
        }
        let mean = row_sum(sum, &mut sums, UNITS) / values;
        let mut squares = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < runs_of_image * width {
            let (run, channel) = (i / width, i % width);
            let at = (2 * (start + run * channels + channel)) as usize;
            let off = runs[at] - mean;
            squares += runs[at + 1] + f32::cast_from(min(area - run * RUN, RUN)) * off * off;
            i += UNITS;
        }
        let squares = row_sum(squares, &mut sums, UNITS);
        if UNIT_POS_X == 0 {
            moments[(2 * place) as usize] = mean;
            moments[(2 * place + 1) as usize] = 1.0f32 / (squares / values + eps).sqrt();
        }
    }
}

/// Of each channel the two numbers that are known of its group, `[B·groups, 2]`.
#[cube]
fn of_groups<N: Size>(
    known: &[f32],
    image: u32,
    column: u32,
    groups: u32,
    channels: u32,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let mut first = Vector::<f32, N>::new(0.0f32);
    let mut second = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..N::value() {
        let channel = column * N::value() as u32 + i as u32;
        let group = (2 * (image * groups + channel * groups / channels)) as usize;
        first.insert(i, known[group]);
        second.insert(i, known[group + 1]);
    }
    (first, second)
}

#[derive(Clone, Debug)]
struct Forward(GroupNormSilu);

impl Kernel for Forward {
    const NAME: &'static str = "group norm and silu";

    /// Inputs and outputs have channels last.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let x = &inputs[0];
        let sizes = Sizes::of(x.meta.shape(), self.0.groups);
        let n = width(&inputs);
        let moments = moments(x, sizes, n, self.0.eps);
        let total = sizes.values() / n;
        let [x_arg, weight, bias, moments, y] =
            buffers([x, &inputs[1], &inputs[2], &moments, &outputs[0]]);
        // SAFETY: units beyond the last value do nothing.
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
                self.0.groups as u32,
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

#[derive(Clone, Debug)]
struct Backward(GroupNormSilu);

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
        let sizes = Sizes::of(x.meta.shape(), self.0.groups);
        let n = width(&inputs);
        let moments = moments(x, sizes, n, self.0.eps);
        let Sizes { batch, area, channels, groups } = sizes;
        let runs = alloc(x, [batch * sizes.runs() * channels, 2], DType::F32);
        let means = alloc(x, [batch * groups, 2], DType::F32);
        let (units, total) = (batch * sizes.runs() * channels / n, sizes.values() / n);
        let [area, channels, groups] = [area, channels, groups].map(|n| n as u32);
        // SAFETY: units beyond the last value do nothing.
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
        let to = unit as usize * N::value() * 2;
        #[unroll]
        for i in 0..N::value() {
            runs[to + 2 * i] = sum.extract(i);
            runs[to + 2 * i + 1] = product.extract(i);
        }
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

/// `[B, C, H, W]` with its channels last, and back.
fn channels_last(tensor: &DispatchTensor) -> DispatchTensor {
    Tensor::<4>::from_dispatch(tensor.clone()).permute([0, 2, 3, 1]).into_dispatch()
}

fn channels_first(tensor: DispatchTensor) -> DispatchTensor {
    Tensor::<4>::from_dispatch(tensor).permute([0, 3, 1, 2]).into_dispatch()
}

impl Operation for GroupNormSilu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        if !of_one_type(inputs) {
            return None;
        }
        let given = vec![channels_last(&inputs[0]), inputs[1].clone(), inputs[2].clone()];
        let [y] = run(Forward(*self), given)?;
        Some((channels_first(y), Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Vec<Option<DispatchTensor>> {
        let [x, gradient] = [&inputs[0], &gradient].map(channels_last);
        let given = vec![x, inputs[1].clone(), inputs[2].clone(), gradient];
        let Some([dx, sums]) = run(Backward(*self), given) else { return Vec::new() };
        let channels = inputs[1].shape()[0];
        let sums = Tensor::<2>::from_dispatch(sums).reshape([-1, channels as i32 * 2]);
        let sums: Tensor<2> = sums.sum_dim(0).reshape([channels, 2]); // over the images
        let column = |i: usize| {
            let column: Tensor<1> = sums.clone().narrow(1, i, 1).reshape([channels]);
            column.cast(inputs[1].dtype()).into_dispatch()
        };
        let [dbias, dweight] = [0, 1].map(column);
        vec![Some(channels_first(dx)), wanted[1].then_some(dweight), wanted[2].then_some(dbias)]
    }
}
