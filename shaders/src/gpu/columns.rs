//! Sums over the rows of a group: how the gradients of a row's parameters come together.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::rows::{Rows, elem};

/// Columns of a cube.
const WIDTH: u32 = 32;
/// Rows that a cube works on at a time.
const HEIGHT: u32 = 8;

/// Of inputs `a`, `b` (`[rows, d]`) and the statistics `[rows, 2]` of `b`'s rows, the sums over the
/// rows of each group: `Σ a` and `Σ a·n`, or one of them, `[1 or 2, groups, d]` in float32. Here `n`
/// is `b` normalised by the statistics, or `b` itself where there are none; without `b`, only `Σ a`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// Consecutive groups of equally many rows.
    pub groups: usize,
    /// Whether Σ a is wanted.
    pub sum: bool,
    /// Whether statistics are among the inputs.
    pub normalised: bool,
}

/// Groups to which the rows of a single one are dealt, so that there is work for many cubes.
const PARTS: usize = 64;

impl Columns {
    /// The sums, `[1 or 2, groups, d]`.
    pub(crate) fn run(mut self, inputs: Vec<DispatchTensor>) -> Option<Tensor<3>> {
        if self.groups > 1 {
            let [sums] = run(self, inputs)?;
            return Some(Tensor::from_dispatch(sums));
        }
        let shape = inputs[0].shape();
        let rows = shape.num_elements() / shape[shape.num_dims() - 1];
        self.groups = (1..=PARTS).rev().find(|&parts| rows.is_multiple_of(parts)).unwrap_or(1);
        let [sums] = run(self, inputs)?;
        Some(Tensor::<3>::from_dispatch(sums).sum_dim(1))
    }
}

impl Kernel for Columns {
    const NAME: &'static str = "columns";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let a = &inputs[0].shape;
        let kinds = usize::from(self.sum) + usize::from(inputs.len() > 1);
        vec![TensorSpec::new([kinds, self.groups, a[a.num_dims() - 1]], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let product = inputs.len() > 1;
        let stats = inputs.get(2).cloned();
        let rows: Vec<Rows<R>> = inputs.into_iter().take(2).map(Rows::of).collect();
        let (a, b) = (&rows[0], rows.last().expect("there is an `a`"));
        let stats = stats.as_ref().unwrap_or(&a.tensor);
        let d = a.d;
        let [a_arg, b_arg, stats, sums] = buffers([&a.tensor, &b.tensor, stats, &outputs[0]]);
        // SAFETY: every index is within the rows that the counts describe, and fits 32 bits (`bridge::MOST`).
        unsafe {
            columns::launch_unchecked::<R>(
                &a.tensor.client,
                CubeCount::Static((d as u32).div_ceil(WIDTH), self.groups as u32, 1),
                CubeDim::new_2d(WIDTH, HEIGHT),
                a_arg,
                b_arg,
                stats,
                sums,
                d as u32,
                (a.count / self.groups) as u32,
                a.stride as u32,
                b.stride as u32,
                self.sum,
                product,
                self.normalised,
                elem(a.tensor.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn columns<F: Float>(
    a: &[F],
    b: &[F],
    stats: &[f32],
    sums: &mut [f32],
    d: u32,
    group: u32,
    a_stride: u32,
    b_stride: u32,
    #[comptime] has_sum: bool,
    #[comptime] has_product: bool,
    #[comptime] normalised: bool,
    #[define(F)] _dtype: ElemType,
) {
    let mut parts = Shared::<[f32]>::new_slice(comptime!((2 * WIDTH * HEIGHT) as usize));
    let column = CUBE_POS_X * WIDTH + UNIT_POS_X;
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    if column < d {
        let mut i = UNIT_POS_Y;
        while i < group {
            let row = (CUBE_POS_Y * group + i) as usize;
            let v = f32::cast_from(a[row * a_stride as usize + column as usize]);
            sum += v;
            if has_product {
                let mut n = f32::cast_from(b[row * b_stride as usize + column as usize]);
                if normalised {
                    n = (n - stats[2 * row]) * stats[2 * row + 1];
                }
                product += v * n;
            }
            i += HEIGHT;
        }
    }
    let own = (UNIT_POS_Y * WIDTH + UNIT_POS_X) as usize;
    parts[own] = sum;
    parts[own + (WIDTH * HEIGHT) as usize] = product;
    sync_cube();
    if UNIT_POS_Y == 0 && column < d {
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        #[unroll]
        for y in 0..HEIGHT {
            let at = (y * WIDTH + UNIT_POS_X) as usize;
            sum += parts[at];
            product += parts[at + (WIDTH * HEIGHT) as usize];
        }
        let at = (CUBE_POS_Y * d + column) as usize;
        if has_sum {
            sums[at] = sum;
        }
        if has_product {
            let kind = comptime!(u32::from(has_sum));
            sums[at + (kind * CUBE_COUNT_Y * d) as usize] = product;
        }
    }
}
