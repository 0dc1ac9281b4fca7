//! Products by tiles: a workgroup brings slices of both factors to shared memory, and its units multiply them into
//! sums in registers, 4 × 4 or 8 × 4 each.

use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::rows::{Rows, cubes, elem};
use super::plan::{BLOCK, Sizes, Tile};
use super::{Inner, finished};

/// Rows of tiles that are gone through together, column by column, so that tiles at work at the same time share
/// what caches hold.
const GROUP: u32 = 8;

/// A factor's rows, counted in vectors.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
struct Factor {
    /// Rows.
    count: u32,
    /// Vectors of a row.
    length: u32,
    /// Vectors from the start of one row to the start of the next.
    stride: u32,
}

/// The product of the first two inputs, plus the third, in vectors of `width` values.
pub(super) fn start<R: CubeRuntime>(
    tile: Tile,
    inner: Inner,
    inputs: &[Rows<R>],
    to: &Rows<R>,
    gelu: bool,
    width: usize,
) {
    let (a, b) = (&inputs[0], &inputs[1]);
    let bias = inputs.get(2);
    let k = if inner.a { a.d } else { a.count };
    let sizes = Sizes { m: to.count, n: to.d, k };
    let factor = |x: &Rows<R>| {
        let [count, length, stride] = [x.count, x.d / width, x.stride / width].map(|n| n as u32);
        FactorLaunch::new(count, length, stride)
    };
    // An absent bias is never read; `b` stands in its place.
    let [a_arg, b_arg, bias_arg, to_arg] =
        buffers([&a.tensor, &b.tensor, &bias.unwrap_or(b).tensor, &to.tensor]);
    // SAFETY: what lies beyond the factors is not read, and beyond the result not written; places fit 32 bits
    // (`bridge::MOST`).
    unsafe {
        tiles::launch_unchecked::<R>(
            &a.tensor.client,
            cubes(tile.count(sizes)),
            CubeDim::new_2d(tile.side, tile.side),
            width,
            BLOCK as usize,
            a_arg,
            b_arg,
            bias_arg,
            to_arg,
            factor(a),
            factor(b),
            sizes.m as u32,
            sizes.n as u32,
            sizes.k as u32,
            tile.side,
            tile.tall,
            tile.depth,
            inner.a,
            inner.b,
            bias.is_some(),
            gelu,
            width as u32,
            elem(a.tensor.dtype),
        );
    }
}

/// Shared memory has vectors of four rows (or columns) of each step along the sum: those of `a`, then those of
/// `b`. Unit `(x, y)` holds columns `4x…4x + 3` of rows `4y…4y + 3`, and of those `side` blocks further down.
#[cube(launch_unchecked)]
fn tiles<F: Float, N: Size, V: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    to: &mut [Vector<F, N>],
    a_factor: Factor,
    b_factor: Factor,
    m: u32,
    features: u32,
    k: u32,
    #[comptime] side: u32,
    #[comptime] tall: u32,
    #[comptime] depth: u32,
    #[comptime] a_inner: bool,
    #[comptime] b_inner: bool,
    #[comptime] has_bias: bool,
    #[comptime] gelu: bool,
    #[comptime] width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let height = comptime!(side * tall);
    let b_start = comptime!(height * depth);
    let a_blocks = comptime!(height * depth / BLOCK);
    let blocks = comptime!((height + side) * depth / BLOCK);
    let mut stage =
        Shared::<[Vector<f32, V>]>::new_slice(comptime!(((height + side) * depth) as usize));
    let mut sums = Array::<Vector<f32, V>>::new(comptime!((tall * BLOCK) as usize));
    #[unroll]
    for i in 0..comptime!(tall * BLOCK) {
        sums[i as usize] = Vector::new(0.0f32);
    }
    let rows = m.div_ceil(comptime!(height * BLOCK));
    let columns = features.div_ceil(comptime!(side * BLOCK));
    let place = CUBE_POS as u32;
    if place < rows * columns {
        let group = place / (columns * GROUP) * GROUP;
        let within = place % (columns * GROUP);
        let members = min(rows - group, GROUP);
        let row = (group + within % members) * comptime!(height * BLOCK);
        let column = within / members * comptime!(side * BLOCK);
        for step in 0..k.div_ceil(depth) {
            let at = step * depth;
            let mut block = UNIT_POS;
            while block < blocks {
                if block < a_blocks {
                    bring::<F, N, V>(
                        a, &a_factor, row, at, block, &mut stage, a_inner, height, 0u32, width,
                    );
                } else {
                    let own = block - a_blocks;
                    bring::<F, N, V>(
                        b, &b_factor, column, at, own, &mut stage, b_inner, side, b_start, width,
                    );
                }
                block += comptime!(side * side);
            }
            sync_cube();
            for some in 0..comptime!(depth / BLOCK) {
                #[unroll]
                for i in 0..BLOCK {
                    let slice = some * BLOCK + i;
                    let b_values = stage[(b_start + slice * side + UNIT_POS_X) as usize];
                    #[unroll]
                    for t in 0..tall {
                        let a_at = slice * height + comptime!(t * side) + UNIT_POS_Y;
                        let a_values = stage[a_at as usize];
                        #[unroll]
                        for j in 0..BLOCK {
                            let sum = comptime!((t * BLOCK + j) as usize);
                            let value = Vector::new(a_values.extract(comptime!(j as usize)));
                            sums[sum] = fma(value, b_values, sums[sum]);
                        }
                    }
                }
            }
            sync_cube();
        }
        #[unroll]
        for t in 0..tall {
            #[unroll]
            for i in 0..BLOCK {
                let own_row = row + (UNIT_POS_Y + comptime!(t * side)) * BLOCK + i;
                let sum = sums[comptime!((t * BLOCK + i) as usize)];
                #[unroll]
                for j in 0..comptime!(BLOCK / width) {
                    let own_column = column + UNIT_POS_X * BLOCK + comptime!(j * width);
                    if own_row < m && own_column < features {
                        let mut part = Vector::<f32, N>::new(0.0f32);
                        #[unroll]
                        for c in 0..width {
                            let value = sum.extract(comptime!((j * width + c) as usize));
                            part.insert(comptime!(c as usize), value);
                        }
                        let result =
                            finished::<F, N>(part, bias, own_column / width, has_bias, gelu);
                        to[((own_row * features + own_column) / width) as usize] = result;
                    }
                }
            }
        }
    }
}

/// Brings a block of a factor to shared memory: the four rows of the result from `first + 4·(block % height)` on,
/// or columns, in four places along the sum from `at + 4·(block / height)` on. Zeros where there is nothing.
#[cube]
fn bring<F: Float, N: Size, V: Size>(
    from: &[Vector<F, N>],
    factor: &Factor,
    first: u32,
    at: u32,
    block: u32,
    stage: &mut Shared<[Vector<f32, V>]>,
    #[comptime] inner: bool,
    #[comptime] height: u32,
    #[comptime] start: u32,
    #[comptime] width: u32,
) {
    let outward = first + block % height * BLOCK;
    let slice = block / height * BLOCK;
    let along = at + slice;
    // A factor's own rows, and the vectors of one.
    let row = if inner { outward } else { along };
    let column = if inner { along / width } else { outward / width };
    let mut values = Array::<f32>::new(comptime!((BLOCK * BLOCK) as usize));
    #[unroll]
    for i in 0..BLOCK {
        #[unroll]
        for j in 0..comptime!(BLOCK / width) {
            let mut value = Vector::<f32, N>::new(0.0f32);
            if row + i < factor.count && column + j < factor.length {
                let place = (row + i) * factor.stride + column + j;
                value = Vector::<f32, N>::cast_from(from[place as usize]);
            }
            #[unroll]
            for c in 0..width {
                values[comptime!((i * BLOCK + j * width + c) as usize)] =
                    value.extract(comptime!(c as usize));
            }
        }
    }
    #[unroll]
    for i in 0..BLOCK {
        let mut rows = Vector::<f32, V>::new(0.0f32);
        #[unroll]
        for j in 0..BLOCK {
            let place = comptime!((if inner { j * BLOCK + i } else { i * BLOCK + j }) as usize);
            let value = values[place];
            rows.insert(comptime!(j as usize), value);
        }
        stage[(start + (slice + i) * height + block % height) as usize] = rows;
    }
}
