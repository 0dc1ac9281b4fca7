//! Matrix products on one thread: pieces of work share the cores out.

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

/// `out = a b·scale` of `[m, k]` and `[k, n]`, or `out += a b·scale` where it `adds`; the rows of
/// `out` lie one behind the other.
pub(super) fn product(
    sizes: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    adds: bool,
) {
    product_into(sizes, a, b, scale, out, sizes[2], adds);
}

/// The same where the rows of `out` begin `row` values apart.
pub(super) fn product_into(
    [m, k, n]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    row: usize,
    adds: bool,
) {
    assert!(a.holds(m, k) && b.holds(k, n) && n <= row);
    assert!(m == 0 || out.len() >= (m - 1) * row + n);
    // SAFETY: the slices hold m×k, k×n and m×n values in the strides given, as was just asserted.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row as isize,
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
