//! Matrix products on one thread: pieces of work share the cores out.

use super::tile::Tile;

/// Rows and columns of a tile are multiples of this, except at the end: whole vectors of every kernel of products.
const UNIT: usize = 16;

/// Values of a result that gemm sums in a way of its own if there are no more, where both factors have their terms
/// next to each other, as in `x Wᵀ`.
pub(super) const SMALL: usize = 256;

/// Most terms of a sum that gemm is given at once. It sums as many as it is given up to here, one after another, and
/// cuts longer sums, in one way where a result has at most 64 rows and columns, and in another where it is larger.
const DEPTH: usize = 512;

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

    /// From column `first` on.
    fn right_of(self, first: usize) -> Self {
        Self { data: &self.data[first * self.column..], ..self }
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
///
/// A value's bits do not depend on `m` and `n`, if `out` has more than [`SMALL`] values, and more than one row and
/// column.
pub(super) fn product(
    k: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    mut out: Tile<'_>,
    adds: bool,
) {
    let [m, n] = out.dims();
    if m == 0 || n == 0 {
        return;
    }
    let depth = k.div_ceil(k.div_ceil(DEPTH).max(1));
    // Without terms the sums are zero.
    for first in (0..k.max(1)).step_by(depth.max(1)) {
        let (a, b) = (a.right_of(first), b.below(first));
        block(depth.min(k - first), a, b, scale, out.reborrow(), adds || first > 0);
    }
}

/// The same for at most [`DEPTH`] terms.
fn block(k: usize, a: Matrix<'_>, b: Matrix<'_>, scale: f32, mut out: Tile<'_>, adds: bool) {
    let [m, n] = out.dims();
    assert!(a.holds(m, k) && b.holds(k, n));
    // SAFETY: the slices hold m×k and k×n values in the strides given, as was just asserted. The tile has m×n, to which
    // its borrow is the only way, so they are none of the slices'.
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
/// The result's bits do not depend on how it is cut, and so on the number of cores: no tile has so few values, rows or
/// columns that its [`product`] is another one, where the whole has more.
pub(super) fn tiles(out: Tile<'_>) -> Vec<([usize; 2], Tile<'_>)> {
    let [m, n] = out.dims();
    // More than cores, for these may have other work.
    #[cfg(not(target_family = "wasm"))]
    let pieces = 2 * rayon::current_num_threads();
    #[cfg(target_family = "wasm")]
    let pieces = 1;
    // More than `SMALL` values.
    let least = |other: usize| if other > 2 { 128 } else { SMALL + UNIT };
    let most = [m / least(n), n / least(m)].map(|most| most.clamp(1, pieces));
    let splits = (1..=most[0]).map(|rows| [rows, pieces.div_ceil(rows).min(most[1])]);
    let packed = |&[rows, columns]: &[usize; 2]| {
        (pieces.saturating_sub(rows * columns), rows * n + columns * m)
    };
    out.cut(splits.min_by_key(packed).unwrap_or([1, 1]), [UNIT; 2])
}
