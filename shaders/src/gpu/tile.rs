//! Products of tiles, the two of which flash attention is made: `A Bᵀ` of rows in memory, and
//! `P B` of a tile in shared memory with rows in memory.
//!
//! A cube of 16 × 16 units works on a square tile, of which a unit holds a square of `per` rows and
//! columns: unit `(x, y)` those from row `per·y` and column `per·x` on, a row as one vector. Of the
//! second product it holds the same rows, and columns `x + 16·j`.

use cubecl::prelude::*;

/// Units on a side of the cube.
pub(super) const SIDE: u32 = 16;
/// Columns (of `A Bᵀ`) or rows (of `P B`) that are staged in shared memory at a time.
const DEPTH: u32 = 8;

/// Tile side for units that hold `per` rows and columns.
pub(super) const fn side(per: u32) -> u32 {
    SIDE * per
}

/// Vectors that staging `A` and `B` takes: `per` rows of a column each.
pub(super) const PRODUCT_STAGE: usize = (2 * SIDE * DEPTH) as usize;

/// Places that staging rows of at most `d` values takes.
pub(super) const fn stage_size(d: u32) -> usize {
    (d.div_ceil(SIDE) * SIDE * DEPTH) as usize
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

/// `result[i]` = the products of row `i` of `a` with the unit's rows of `b`, over `d` columns.
#[cube]
pub(super) fn rows_by_rows<F: Float, N: Size>(
    a: &[F],
    a_span: &Span,
    b: &[F],
    b_span: &Span,
    stage: &mut Shared<[Vector<f32, N>]>,
    result: &mut Array<Vector<f32, N>>,
    #[comptime] d: u32,
    #[comptime] per: u32,
) {
    #[unroll]
    for i in 0..per {
        result[i as usize] = Vector::new(0.0f32);
    }
    // Half of the units stage `a`, the other half `b`: `per` rows of one column each.
    let half = comptime!(SIDE * DEPTH);
    let (column, group) = (UNIT_POS % DEPTH, UNIT_POS % half / DEPTH);
    let to = (UNIT_POS / half * half + column * SIDE + group) as usize;
    for chunk in 0..comptime!(d.div_ceil(DEPTH)) {
        let from = chunk * DEPTH + column;
        let mut rows = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for i in 0..per {
            let row = group * per + i;
            let value = if UNIT_POS < half {
                read::<F>(a, a_span, row, from, d)
            } else {
                read::<F>(b, b_span, row, from, d)
            };
            rows.insert(comptime!(i as usize), value);
        }
        stage[to] = rows;
        sync_cube();
        for column in 0..DEPTH {
            let a_rows = stage[(column * SIDE + UNIT_POS_Y) as usize];
            let b_rows = stage[(half + column * SIDE + UNIT_POS_X) as usize];
            #[unroll]
            for i in 0..per {
                result[i as usize] += Vector::new(a_rows.extract(comptime!(i as usize))) * b_rows;
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
                let own = UNIT_POS_Y * per + i;
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
