//! GroupNorm with SiLU behind it (VA-VAE), two passes over memory.
//!
//! A group of an image is one stretch of memory, long where images are large: several cubes sum a
//! part of it each, another kernel puts the parts together, and a last one writes the result.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::activation::{Activation, with_derivative};
use super::bridge::{Form, Kernel, buffers, room, run};
use super::rows::{UNITS, cubes, elem, row_sum};
use crate::gradient::{Operation, of_one_type};

/// Inputs `x` `[B, C, H, W]`, weight `[C]`, bias `[C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNormSilu {
    pub groups: usize,
    pub eps: f64,
}

/// Values that a cube sums.
const PART: usize = 1 << 14;

/// The sizes of a tensor seen as groups of consecutive channels.
#[derive(Clone, Copy)]
struct Sizes {
    /// Groups of all images.
    groups: usize,
    /// Channels of a group.
    channels: usize,
    /// Values of a channel.
    area: usize,
}

impl Sizes {
    fn of(shape: &[usize], groups: usize) -> Self {
        let area = shape[2] * shape[3];
        Self { groups: shape[0] * groups, channels: shape[1] / groups, area }
    }

    fn values(&self) -> usize {
        self.channels * self.area
    }

    /// Cubes that share a group.
    fn parts(&self) -> usize {
        self.values().div_ceil(PART)
    }
}

/// Mean and inverse deviation of each group, `[groups, 2]`.
fn moments<R: CubeRuntime>(x: &CubeTensor<R>, sizes: Sizes, eps: f64) -> CubeTensor<R> {
    let parts = room(x, [sizes.groups * sizes.parts(), 2], DType::F32);
    let moments = room(x, [sizes.groups, 2], DType::F32);
    // SAFETY: parts end with their group.
    unsafe {
        let [x_arg, parts_arg] = buffers([x, &parts]);
        part_moments::launch_unchecked::<R>(
            &x.client,
            cubes(sizes.groups * sizes.parts()),
            CubeDim::new_2d(UNITS, 1),
            x_arg,
            parts_arg,
            sizes.values() as u32,
            (sizes.groups * sizes.parts()) as u32,
            sizes.parts() as u32,
            elem(x.dtype),
        );
        let [parts, moments] = buffers([&parts, &moments]);
        whole_moments::launch_unchecked::<R>(
            &x.client,
            cubes(sizes.groups.div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            parts,
            moments,
            sizes.values() as u32,
            sizes.groups as u32,
            sizes.parts() as u32,
            eps as f32,
        );
    }
    moments
}

/// Values of part `part` of a group of `values`.
#[cube]
fn part_length(part: u32, values: u32) -> u32 {
    min(values - part * comptime!(PART as u32), comptime!(PART as u32))
}

/// Of each part, its mean and the sum of squares around it.
#[cube(launch_unchecked)]
fn part_moments<F: Float>(
    x: &[F],
    parts: &mut [f32],
    values: u32,
    count: u32,
    parts_of_group: u32,
    #[define(F)] _dtype: ElemType,
) {
    let mut sums = Shared::new_slice(comptime!(UNITS as usize));
    let place = CUBE_POS as u32;
    if place < count {
        let (group, part) = (place / parts_of_group, place % parts_of_group);
        let start = (group * values) as usize + (part * comptime!(PART as u32)) as usize;
        let length = part_length(part, values);
        let mut sum = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < length {
            sum += f32::cast_from(x[start + i as usize]);
            i += UNITS;
        }
        let mean = row_sum(sum, &mut sums, UNITS) / f32::cast_from(length);
        let mut squares = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < length {
            let v = f32::cast_from(x[start + i as usize]) - mean;
            squares += v * v;
            i += UNITS;
        }
        let squares = row_sum(squares, &mut sums, UNITS);
        if UNIT_POS_X == 0 {
            parts[(2 * place) as usize] = mean;
            parts[(2 * place + 1) as usize] = squares;
        }
    }
}

/// Of each group, mean and inverse deviation (Chan, Golub and LeVeque's combination of parts).
#[cube(launch_unchecked)]
fn whole_moments(
    parts: &[f32],
    moments: &mut [f32],
    values: u32,
    groups: u32,
    parts_of_group: u32,
    eps: f32,
) {
    let group = ABSOLUTE_POS as u32;
    if group < groups {
        let start = group * parts_of_group;
        let mut mean = 0.0f32;
        for part in 0..parts_of_group {
            let share = f32::cast_from(part_length(part, values)) / f32::cast_from(values);
            mean += share * parts[(2 * (start + part)) as usize];
        }
        let mut squares = 0.0f32;
        for part in 0..parts_of_group {
            let off = parts[(2 * (start + part)) as usize] - mean;
            let length = f32::cast_from(part_length(part, values));
            squares += parts[(2 * (start + part) + 1) as usize] + length * off * off;
        }
        moments[(2 * group) as usize] = mean;
        moments[(2 * group + 1) as usize] =
            1.0f32 / (squares / f32::cast_from(values) + eps).sqrt();
    }
}

#[derive(Clone, Debug)]
struct Forward(GroupNormSilu);

impl Kernel for Forward {
    const NAME: &'static str = "group norm and silu";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let x = &inputs[0];
        let sizes = Sizes::of(x.meta.shape(), self.0.groups);
        let moments = moments(x, sizes, self.0.eps);
        let total = sizes.groups * sizes.values();
        let [x_arg, weight, bias, moments, y] =
            buffers([x, &inputs[1], &inputs[2], &moments, &outputs[0]]);
        // SAFETY: units beyond the last value do nothing.
        unsafe {
            forward::launch_unchecked::<R>(
                &x.client,
                cubes(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
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

/// The normalised value, and its affine map, of one value.
#[cube]
fn affine<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    moments: &[f32],
    at: u32,
    area: u32,
    channels: u32,
    groups: u32,
) -> (f32, f32, f32) {
    let group = at / area / channels;
    let channel = (group % groups * channels + at / area % channels) as usize;
    let (mean, inverse) = (moments[(2 * group) as usize], moments[(2 * group + 1) as usize]);
    let n = (f32::cast_from(x[at as usize]) - mean) * inverse;
    let gain = f32::cast_from(weight[channel]);
    (n, gain, n * gain + f32::cast_from(bias[channel]))
}

#[cube(launch_unchecked)]
fn forward<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    moments: &[f32],
    y: &mut [F],
    total: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < total {
        let (_, _, v) = affine::<F>(x, weight, bias, moments, at, area, channels, groups);
        y[at as usize] = F::cast_from(v / (1.0f32 + (-v).exp()));
    }
}

#[derive(Clone, Debug)]
struct Backward(GroupNormSilu);

impl Kernel for Backward {
    const NAME: &'static str = "group norm and silu backward";

    /// Inputs: x, weight, bias, gradient. Outputs: the gradient of x and, of each channel of each
    /// image, `Σ h` and `Σ h·n`, `[B·C, 2]`, with `h` the gradient before the SiLU.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        let shape = &inputs[0].shape;
        vec![inputs[0].clone(), Form::new([shape[0] * shape[1], 2], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let x = &inputs[0];
        let sizes = Sizes::of(x.meta.shape(), self.0.groups);
        let moments = moments(x, sizes, self.0.eps);
        let total = sizes.groups * sizes.values();
        let planes = sizes.groups * sizes.channels;
        let (area, channels) = (sizes.area as u32, sizes.channels as u32);
        // SAFETY: units beyond the last value do nothing.
        unsafe {
            let [x_arg, weight, bias, moments_arg, gradient, sums] =
                buffers([x, &inputs[1], &inputs[2], &moments, &inputs[3], &outputs[1]]);
            channel_sums::launch_unchecked::<R>(
                &x.client,
                cubes(planes),
                CubeDim::new_2d(UNITS, 1),
                x_arg,
                weight,
                bias,
                moments_arg,
                gradient,
                sums,
                planes as u32,
                area,
                channels,
                self.0.groups as u32,
                elem(x.dtype),
            );
            let [x_arg, weight, bias, moments, gradient, sums, dx] = buffers([
                x,
                &inputs[1],
                &inputs[2],
                &moments,
                &inputs[3],
                &outputs[1],
                &outputs[0],
            ]);
            backward::launch_unchecked::<R>(
                &x.client,
                cubes(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                x_arg,
                weight,
                bias,
                moments,
                gradient,
                sums,
                dx,
                total as u32,
                area,
                channels,
                self.0.groups as u32,
                elem(x.dtype),
            );
        }
    }
}

/// The derivative of the SiLU at `v`.
#[cube]
fn silu_slope(v: f32) -> f32 {
    let (_, slope) = with_derivative::<Const<1>>(Vector::new(v), Activation::Silu);
    slope.extract(0usize)
}

#[cube(launch_unchecked)]
fn channel_sums<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    moments: &[f32],
    gradient: &[F],
    to: &mut [f32],
    planes: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let mut sums = Shared::new_slice(comptime!(UNITS as usize));
    let plane = CUBE_POS as u32;
    if plane < planes {
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < area {
            let at = plane * area + i;
            let (n, _, v) = affine::<F>(x, weight, bias, moments, at, area, channels, groups);
            let h = f32::cast_from(gradient[at as usize]) * silu_slope(v);
            sum += h;
            product += h * n;
            i += UNITS;
        }
        let sum = row_sum(sum, &mut sums, UNITS);
        let product = row_sum(product, &mut sums, UNITS);
        if UNIT_POS_X == 0 {
            to[(2 * plane) as usize] = sum;
            to[(2 * plane + 1) as usize] = product;
        }
    }
}

/// `dx = (h·w − mean(h·w) − n·mean(h·w·n))/σ`, the means over the group.
#[cube(launch_unchecked)]
fn backward<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    moments: &[f32],
    gradient: &[F],
    sums: &[f32],
    dx: &mut [F],
    total: u32,
    area: u32,
    channels: u32,
    groups: u32,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < total {
        let (n, gain, v) = affine::<F>(x, weight, bias, moments, at, area, channels, groups);
        let h = f32::cast_from(gradient[at as usize]) * silu_slope(v) * gain;
        let group = at / area / channels;
        let mut mean = 0.0f32;
        let mut product = 0.0f32;
        for channel in 0..channels {
            let gain = f32::cast_from(weight[(group % groups * channels + channel) as usize]);
            let plane = 2 * (group * channels + channel);
            mean += gain * sums[plane as usize];
            product += gain * sums[(plane + 1) as usize];
        }
        let values = f32::cast_from(area * channels);
        let inverse = moments[(2 * group + 1) as usize];
        dx[at as usize] = F::cast_from((h - mean / values - n * product / values) * inverse);
    }
}

impl Operation for GroupNormSilu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [y] = of_one_type(inputs).then(|| run(Forward(*self), inputs.to_vec()))??;
        Some((y, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Vec<Option<DispatchTensor>> {
        let given = inputs.iter().cloned().chain([gradient]).collect();
        let Some([dx, sums]) = run(Backward(*self), given) else { return Vec::new() };
        let channels = inputs[1].shape()[0];
        let sums = Tensor::<2>::from_dispatch(sums).reshape([-1, channels as i32 * 2]);
        let sums: Tensor<2> = sums.sum_dim(0).reshape([channels, 2]); // over the images
        let column = |i: usize| {
            let column: Tensor<1> = sums.clone().narrow(1, i, 1).reshape([channels]);
            column.cast(inputs[1].dtype()).into_dispatch()
        };
        let [dbias, dweight] = [0, 1].map(column);
        vec![Some(dx), wanted[1].then_some(dweight), wanted[2].then_some(dbias)]
    }
}
