//! Matrix products on one thread: pieces of work share the cores out.

use super::tile::Tile;

/// Rows and columns of a tile are multiples of this, except at the end: whole vectors of every kernel of products.
const UNIT: usize = 16;

/// A matrix inside of an array: value `(i, j)` lies at `i·row + j·column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows that begin `row` values apart.
    pub(super) fn new(data: &'a [f32], row: usize) -> Self {
        Self { data, row, column: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// From row `first` on.
    pub(super) fn below(self, first: usize) -> Self {
        Self { data: &self.data[first * self.row..], ..self }
    }

    /// The first `width` values of row `i` of a matrix that is not transposed.
    #[inline(always)]
    pub(super) fn row(self, i: usize, width: usize) -> &'a [f32] {
        &self.data[i * self.row..][..width]
    }

    fn holds(self, rows: usize, columns: usize) -> bool {
        let last = |rows: usize, columns: usize| rows * self.row + columns * self.column;
        rows == 0 || columns == 0 || last(rows - 1, columns - 1) < self.data.len()
    }
}

/// `out = a b·scale` of `[m, k]` and `[k, n]`, or `out += a b·scale` where it `adds`, for `out` of `[m, n]`.
pub(super) fn product(
    k: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    mut out: Tile<'_>,
    adds: bool,
) {
    let [m, n] = out.dims();
    assert!(a.holds(m, k) && b.holds(k, n));
    // SAFETY: the slices hold m×k and k×n values in the strides given, as was just asserted, and the tile m×n.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out.stride() as isize,
            adds,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            if adds { 1.0f32 } else { 0.0f32 },
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Cuts the result `[m, n]` of a product for all cores, in tiles of which each packs its rows of the one factor and
/// its columns of the other anew: in a way that packs least. Each with the row and the column that it begins at.
///
/// A tile's bits do not depend on how the result is cut. gemm sums in blocks that `k` alone decides, except of small
/// results: such as have at most 256 values, or at most 64 rows and columns. So no tile is small where the whole is not.
pub(super) fn tiles(out: Tile<'_>) -> Vec<([usize; 2], Tile<'_>)> {
    let [m, n] = out.dims();
    // More than cores, for these may have other work.
    #[cfg(not(target_family = "wasm"))]
    let pieces = 2 * rayon::current_num_threads();
    #[cfg(target_family = "wasm")]
    let pieces = 1;
    let least = |other: usize| if other > 64 { 128 } else { 320 };
    let most = [m / least(n), n / least(m)].map(|most| most.clamp(1, pieces));
    let splits = (1..=most[0]).map(|rows| [rows, pieces.div_ceil(rows).min(most[1])]);
    let packed = |&[rows, columns]: &[usize; 2]| {
        (pieces.saturating_sub(rows * columns), rows * n + columns * m)
    };
    out.cut(splits.min_by_key(packed).unwrap_or([1, 1]), [UNIT; 2])
}
