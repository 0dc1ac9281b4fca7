//! Mean and inverse deviation of groups of channels.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{RUN, Sizes, run_of, store_pairs};
use crate::gpu::bridge::{alloc, buffers};
use crate::gpu::rows::{ALONE, UNITS, cubes, elem, row_sum};

/// Mean and inverse deviation of each group, `[B·groups, 2]`.
pub(super) fn moments<R: CubeRuntime>(
    x: &CubeTensor<R>,
    sizes: Sizes,
    n: usize,
    eps: f64,
    software: bool,
) -> CubeTensor<R> {
    let Sizes { batch, area, channels, groups } = sizes;
    let runs = alloc(x, [batch * sizes.runs() * channels, 2], DType::F32);
    let moments = alloc(x, [batch * groups, 2], DType::F32);
    let units = batch * sizes.runs() * channels / n;
    // SAFETY: runs end with their image, and units beyond the last do nothing; places fit 32 bits (`bridge::MOST`).
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
        // Units of a group: all of a cube's, or on a software GPU one, which waits for nobody.
        let cube = if software { CubeDim::new_2d(1, ALONE) } else { CubeDim::new_2d(UNITS, 1) };
        let [runs_arg, moments_arg] = buffers([&runs, &moments]);
        group_moments::launch_unchecked::<R>(
            &x.client,
            cubes((batch * groups).div_ceil(cube.y as usize)),
            cube,
            runs_arg,
            moments_arg,
            (batch * groups) as u32,
            area as u32,
            channels as u32,
            groups as u32,
            eps as f32,
            cube.x,
        );
    }
    moments
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
        store_pairs::<N>(runs, unit, mean, squares);
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
    #[comptime] width: u32,
) {
    // The same for all units that meet at a barrier.
    let place = if comptime!(width == 1) { ABSOLUTE_POS as u32 } else { CUBE_POS as u32 };
    if place < count {
        let (image, group) = (place / groups, place % groups);
        let of_group = channels / groups;
        let runs_of_image = area.div_ceil(RUN);
        let start = image * runs_of_image * channels + group * of_group;
        let values = f32::cast_from(area * of_group);
        let mut sum = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < runs_of_image * of_group {
            let (run, channel) = (i / of_group, i % of_group);
            let length = f32::cast_from(min(area - run * RUN, RUN));
            sum += length * runs[(2 * (start + run * channels + channel)) as usize];
            i += width;
        }
        let mean = row_sum(sum, width) / values;
        let mut squares = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < runs_of_image * of_group {
            let (run, channel) = (i / of_group, i % of_group);
            let at = (2 * (start + run * channels + channel)) as usize;
            let off = runs[at] - mean;
            squares += runs[at + 1] + f32::cast_from(min(area - run * RUN, RUN)) * off * off;
            i += width;
        }
        let squares = row_sum(squares, width);
        if UNIT_POS_X == 0 {
            moments[(2 * place) as usize] = mean;
            moments[(2 * place + 1) as usize] = 1.0f32 / (squares / values + eps).sqrt();
        }
    }
}
