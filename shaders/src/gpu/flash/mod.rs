//! Attention that never holds its scores in memory (FlashAttention-2, Dao 2023, arXiv 2307.08691).
//!
//! The forward pass goes through the keys a tile at a time with a running maximum and keeps the
//! logarithm of each query's sum; the backward pass computes the scores again from that. Sums are
//! in float32 whatever the values are.

pub(super) mod alone;
pub(super) mod backward;
pub(super) mod forward;

pub(super) use backward::statistics;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::tile::{PRODUCT_STAGE, SIDE, Span, side, stage_size, tile_size};
use super::view::Layout;

/// Below every score; not infinite, since WGSL has no infinities.
const LOWEST: f32 = -1.0e30;

/// The longest rows of a head that units hold in registers.
pub(in crate::gpu) const LARGEST_HEAD: usize = 128;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Dims {
    pub batch: usize,
    pub heads: usize,
    /// Queries N.
    pub queries: usize,
    /// Keys M.
    pub keys: usize,
    /// Values of a query and a key.
    pub d: usize,
    /// Values of a value.
    pub e: usize,
}

impl Dims {
    /// Tokens of all heads, as `lse` counts them: `[B, heads, N]`.
    pub(in crate::gpu) fn rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }
}

/// Rows a unit holds: large tiles where shared memory has room for them.
fn rows_per_unit<R: CubeRuntime>(tensor: &CubeTensor<R>, dims: Dims) -> u32 {
    let room = tensor.client.properties().hardware.max_shared_memory_size;
    let rows = stage_size(dims.d.max(dims.e) as u32);
    let needed = |per| 4 * (tile_size(per) + PRODUCT_STAGE * per as usize + rows);
    if dims.queries > side(2) as usize && needed(4) <= room { 4 } else { 2 }
}

/// The rows of a head.
#[cube]
fn span(layout: &Layout, image: u32, head: u32, first: u32, count: u32) -> Span {
    Span { start: layout.start(image, head), stride: layout.row, first, count }
}

/// Registers of one value.
#[cube]
fn filled(#[comptime] length: u32, value: f32) -> Array<f32> {
    let mut array = Array::<f32>::new(comptime!(length as usize));
    #[unroll]
    for i in 0..length {
        array[i as usize] = value;
    }
    array
}

/// Writes the unit's part of a tile of rows, each times its factor.
#[cube]
fn write<F: Float>(
    values: &Array<f32>,
    factors: &Array<f32>,
    to: &mut [F],
    span: &Span,
    #[comptime] d: u32,
    #[comptime] per: u32,
) {
    let columns = comptime!(d.div_ceil(SIDE));
    #[unroll]
    for i in 0..per {
        let row = span.first + UNIT_POS_Y * per + i;
        if row < span.count {
            #[unroll]
            for j in 0..columns {
                let column = UNIT_POS_X + j * SIDE;
                if column < d {
                    let value = values[(i * columns + j) as usize] * factors[i as usize];
                    to[span.start + (row * span.stride + column) as usize] = F::cast_from(value);
                }
            }
        }
    }
}

/// Puts a unit's part of a tile where all units find it.
#[cube]
fn share<N: Size>(values: &Array<Vector<f32, N>>, p: &mut Shared<[f32]>, #[comptime] per: u32) {
    #[unroll]
    for i in 0..per {
        let start = (UNIT_POS_Y * per + i) * comptime!(side(per) + 1) + UNIT_POS_X * per;
        #[unroll]
        for j in 0..per {
            p[(start + j) as usize] = values[i as usize].extract(comptime!(j as usize));
        }
    }
    sync_cube();
}
