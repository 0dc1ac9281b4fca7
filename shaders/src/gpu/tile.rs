//! Products of tiles, the two of which flash attention is made: `A Bᵀ` of rows in memory, and
//! `P B` of a tile in shared memory with rows in memory.
//!
//! A cube of 16 × 16 units works on a square tile; unit `(x, y)` holds rows `y + 16·i` and columns
//! `x + 16·j` of it, `i, j < per`, so that neighbouring units read neighbouring places.

use cubecl::prelude::*;

/// Units on a side of the cube.
pub(super) const SIDE: u32 = 16;
/// Columns (of `A Bᵀ`) or rows (of `P B`) that are staged in shared memory at a time.
const DEPTH: u32 = 8;

/// Tile side for units that hold `per` rows and columns.
pub(super) const fn side(per: u32) -> u32 {
    SIDE * per
}

/// Places that the staging area needs, for rows of at most `d` values.
pub(super) const fn stage_size(per: u32, d: u32) -> usize {
    let product = 2 * side(per) * DEPTH;
    let rows = d.div_ceil(SIDE) * SIDE * DEPTH;
    (if product > rows { product } else { rows }) as usize
}

/// Places that a tile in shared memory takes: a row is one place longer than the tile, so that
/// columns fall on different banks.
pub(super) const fn tile_size(per: u32) -> usize {
    (side(per) * (side(per) + 1)) as usize
}

/// Rows of a head: those of a tile are `first, first + 1, …`, zero from `count` on.
#[derive(CubeType)]
pub(super) struct Span {
    /// Where row 0 begins.
    pub start: usize,
    /// From one row to the next.
    pub stride: u32,
    /// The tile's first row.
    pub first: u32,
    /// Rows that there are.
    pub count: u32,
}

#[cube]
fn read<F: Float>(values: &[F], span: &Span, row: u32, column: u32, #[comptime] d: u32) -> f32 {
    let mut value = 0.0f32;
    let row = span.first + row;
    if row < span.count && column < d {
        value = f32::cast_from(values[span.start + (row * span.stride + column) as usize]);
    }
    value
}

/// `result[i·per + j]` = the product of rows `i` of `a` and `j` of `b`, over `d` columns.
#[cube]
pub(super) fn rows_by_rows<F: Float>(
    a: &[F],
    a_span: &Span,
    b: &[F],
    b_span: &Span,
    stage: &mut Shared<[f32]>,
    result: &mut Array<f32>,
    #[comptime] d: u32,
    #[comptime] per: u32,
) {
    let tile = comptime!(side(per));
    #[unroll]
    for i in 0..comptime!(per * per) {
        result[i as usize] = 0.0f32;
    }
    for chunk in 0..comptime!(d.div_ceil(DEPTH)) {
        #[unroll]
        for load in 0..comptime!(tile * DEPTH / (SIDE * SIDE)) {
            let element = load * SIDE * SIDE + UNIT_POS;
            let (row, column) = (element / DEPTH, element % DEPTH);
            let at = (column * tile + row) as usize;
            let column = chunk * DEPTH + column;
            stage[at] = read::<F>(a, a_span, row, column, d);
            stage[at + comptime!((tile * DEPTH) as usize)] = read::<F>(b, b_span, row, column, d);
        }
        sync_cube();
        for column in 0..DEPTH {
            let a_at = (column * tile + UNIT_POS_Y) as usize;
            let b_at = ((column + DEPTH) * tile + UNIT_POS_X) as usize;
            #[unroll]
            for i in 0..per {
                let v = stage[a_at + comptime!((i * SIDE) as usize)];
                #[unroll]
                for j in 0..per {
                    result[(i * per + j) as usize] +=
                        v * stage[b_at + comptime!((j * SIDE) as usize)];
                }
            }
        }
        sync_cube();
    }
}

/// `result[i·columns + j] += Σ_k p[i, k]·b[k, j]`, `columns` of 16 units to a row of `d` values;
/// `transposed` takes `p[k, i]`. The tile `p` may be written again afterwards.
#[cube]
pub(super) fn tile_by_rows<F: Float>(
    p: &Shared<[f32]>,
    b: &[F],
    b_span: &Span,
    stage: &mut Shared<[f32]>,
    result: &mut Array<f32>,
    #[comptime] transposed: bool,
    #[comptime] d: u32,
    #[comptime] per: u32,
) {
    let tile = comptime!(side(per));
    let pitch = comptime!(side(per) + 1);
    let columns = comptime!(d.div_ceil(SIDE));
    let width = comptime!(d.div_ceil(SIDE) * SIDE);
    for slab in 0..comptime!(tile / DEPTH) {
        let mut element = UNIT_POS;
        while element < comptime!(width * DEPTH) {
            let row = slab * DEPTH + element / width;
            stage[element as usize] = read::<F>(b, b_span, row, element % width, d);
            element += comptime!(SIDE * SIDE);
        }
        sync_cube();
        for row in 0..DEPTH {
            let k = slab * DEPTH + row;
            let b_at = (row * width + UNIT_POS_X) as usize;
            #[unroll]
            for i in 0..per {
                let own = UNIT_POS_Y + i * SIDE;
                let at = if transposed { k * pitch + own } else { own * pitch + k };
                let v = p[at as usize];
                #[unroll]
                for j in 0..columns {
                    result[(i * columns + j) as usize] +=
                        v * stage[b_at + comptime!((j * SIDE) as usize)];
                }
            }
        }
        sync_cube();
    }
}
