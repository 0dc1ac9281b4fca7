//! Products with few rows, such as an image's modulation of every block: the weight is most of what is read, so
//! units walk along its rows side by side, and each of its values is read once.

use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::rows::{Rows, cubes, elem, vector_sum};
use super::finished;

/// Units that walk along a row of the weight.
const WIDTH: u32 = 32;
/// Vectors of results of a workgroup. Shared memory has one of [`WIDTH`] units for each row: 16 KiB for eight.
const HEIGHT: u32 = 4;

/// The product of the first two inputs, both with values along the sum, plus the third, in vectors of `width`
/// values.
pub(super) fn start<R: CubeRuntime>(inputs: &[Rows<R>], to: &Rows<R>, gelu: bool, width: usize) {
    let (x, weight) = (&inputs[0], &inputs[1]);
    let bias = inputs.get(2);
    // An absent bias is never read; the weight stands in its place.
    let [x_arg, weight_arg, bias_arg, to_arg] =
        buffers([&x.tensor, &weight.tensor, &bias.unwrap_or(weight).tensor, &to.tensor]);
    // SAFETY: units beyond the last results read what the last ones do and write nothing; places fit 32 bits
    // (`bridge::MOST`).
    unsafe {
        few_rows::launch_unchecked::<R>(
            &x.tensor.client,
            cubes((to.d / width).div_ceil(HEIGHT as usize)),
            CubeDim::new_2d(WIDTH, HEIGHT),
            width,
            x_arg,
            weight_arg,
            bias_arg,
            to_arg,
            (x.stride / width) as u32,
            (weight.stride / width) as u32,
            (x.d / width) as u32,
            (to.d / width) as u32,
            x.count as u32,
            bias.is_some(),
            gelu,
            width as u32,
            elem(x.tensor.dtype),
        );
    }
}

/// A row of units makes a vector of neighbouring results in each row. Their parts come together in shared memory
/// behind one barrier; subgroups would save a few reads, and their width is not known in advance.
#[cube(launch_unchecked)]
fn few_rows<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    to: &mut [Vector<F, N>],
    x_stride: u32,
    weight_stride: u32,
    length: u32,
    columns: u32,
    #[comptime] rows: u32,
    #[comptime] has_bias: bool,
    #[comptime] gelu: bool,
    #[comptime] width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let mut parts =
        Shared::<[Vector<f32, N>]>::new_slice(comptime!((rows * WIDTH * HEIGHT) as usize));
    let mut sums = Array::<f32>::new(comptime!((rows * width) as usize));
    #[unroll]
    for i in 0..comptime!(rows * width) {
        sums[i as usize] = 0.0f32;
    }
    // Units beyond the last column repeat it, for the barrier's sake, and write nothing.
    let place = CUBE_POS as u32 * HEIGHT + UNIT_POS_Y;
    let column = min(place, columns - 1);
    let mut at = UNIT_POS_X;
    while at < length {
        let mut values = Array::<Vector<f32, N>>::new(comptime!(rows as usize));
        #[unroll]
        for i in 0..rows {
            values[i as usize] = Vector::<f32, N>::cast_from(x[(i * x_stride + at) as usize]);
        }
        #[unroll]
        for j in 0..width {
            let weights = weight[((column * width + j) * weight_stride + at) as usize];
            let weights = Vector::<f32, N>::cast_from(weights);
            #[unroll]
            for i in 0..rows {
                let product = values[i as usize] * weights;
                sums[comptime!((i * width + j) as usize)] += vector_sum::<N>(product);
            }
        }
        at += WIDTH;
    }
    #[unroll]
    for i in 0..rows {
        let mut part = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for j in 0..width {
            let value = sums[comptime!((i * width + j) as usize)];
            part.insert(comptime!(j as usize), value);
        }
        parts[((i * HEIGHT + UNIT_POS_Y) * WIDTH + UNIT_POS_X) as usize] = part;
    }
    sync_cube();
    if UNIT_POS_X < rows && place < columns {
        let start = (UNIT_POS_X * HEIGHT + UNIT_POS_Y) * WIDTH;
        let mut total = Vector::<f32, N>::new(0.0f32);
        for unit in 0..WIDTH {
            total += parts[(start + unit) as usize];
        }
        let result = finished::<F, N>(total, bias, place, has_bias, gelu);
        to[(UNIT_POS_X * columns + place) as usize] = result;
    }
}
