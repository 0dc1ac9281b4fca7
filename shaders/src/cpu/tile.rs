//! Blocks of a matrix that pieces of work write, each its own.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

/// Some columns of some rows of a matrix: `rows` rows of `columns` values, which begin `stride` values apart.
pub(super) struct Tile<'a> {
    first: NonNull<f32>,
    rows: usize,
    columns: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: as a `&mut [f32]`, a tile is the only way to its values while it lives.
unsafe impl Send for Tile<'_> {}

impl<'a> Tile<'a> {
    /// A whole matrix of rows of `columns` values.
    pub(super) fn of(matrix: &'a mut [f32], columns: usize) -> Self {
        let rows = matrix.len() / columns.max(1);
        let first = NonNull::from(matrix).cast();
        Self { first, rows, columns, stride: columns, matrix: PhantomData }
    }

    /// Rows and columns.
    pub(super) fn dims(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Values from the beginning of a row to that of the next one.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first.as_ptr()
    }

    /// # Panics
    ///
    /// If there is no such row.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: the row lies inside of the matrix, whose values no other tile reaches, and borrows this one.
        unsafe {
            std::slice::from_raw_parts_mut(self.first.as_ptr().add(i * self.stride), self.columns)
        }
    }

    /// The same tile for a while.
    pub(super) fn reborrow(&mut self) -> Tile<'_> {
        self.columns(0..self.columns)
    }

    /// Some of its columns.
    ///
    /// # Panics
    ///
    /// If there are no such columns.
    pub(super) fn columns(&mut self, columns: Range<usize>) -> Tile<'_> {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        // SAFETY: the block is inside, and borrows this tile: there is no other way to its values while it lives.
        unsafe { self.block(0..self.rows, columns) }
    }

    /// Cuts it in `counts` ranges of rows and of columns, of whole units each but the last, as even as that can be.
    /// Each with the row and the column that it begins at.
    pub(super) fn cut(
        mut self,
        counts: [usize; 2],
        units: [usize; 2],
    ) -> Vec<([usize; 2], Tile<'a>)> {
        let [rows, columns] =
            [0, 1].map(|axis| ranges(self.dims()[axis], counts[axis], units[axis]));
        let mut tiles = Vec::with_capacity(rows.len() * columns.len());
        for rows in rows {
            for columns in &columns {
                // SAFETY: the ranges are the tile's, no two blocks have a value in common, and the tile itself, which
                // holds the matrix for `'a`, reaches none after this.
                let tile = unsafe { self.block(rows.clone(), columns.clone()) };
                tiles.push(([rows.start, columns.start], tile));
            }
        }
        tiles
    }

    /// # Safety
    ///
    /// The ranges have to be of the tile, and nothing else may reach a value of the block while it lives.
    unsafe fn block<'b>(&mut self, rows: Range<usize>, columns: Range<usize>) -> Tile<'b> {
        let at = rows.start * self.stride + columns.start;
        // SAFETY: without rows there may be no such place; else it is inside of the matrix, or right behind it.
        let first = if rows.is_empty() { self.first } else { unsafe { self.first.add(at) } };
        let (rows, columns) = (rows.len(), columns.len());
        Tile { first, rows, columns, stride: self.stride, matrix: PhantomData }
    }
}

/// `0..length` in at most `count` ranges of multiples of `unit`; the last one has the rest, too.
fn ranges(length: usize, count: usize, unit: usize) -> Vec<Range<usize>> {
    let units = (length / unit).max(1);
    let count = count.clamp(1, units);
    let start = |i: usize| if i == count { length } else { i * units / count * unit };
    (0..count).map(|i| start(i)..start(i + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_matrix_once() {
        for (counts, units) in
            [([1, 1], [1, 1]), ([2, 3], [4, 2]), ([9, 1], [2, 7]), ([50, 50], [1, 1])]
        {
            let mut values = vec![0.0f32; 17 * 11];
            for ([row, column], mut tile) in Tile::of(&mut values, 11).cut(counts, units) {
                let [rows, columns] = tile.dims();
                for i in 0..rows {
                    for (j, value) in tile.row(i).iter_mut().enumerate() {
                        *value += ((row + i) * 11 + column + j + 1) as f32;
                    }
                }
                assert_eq!(tile.columns(columns..columns).dims(), [rows, 0]);
            }
            assert!(values.iter().enumerate().all(|(i, &value)| value == (i + 1) as f32));
        }
    }

    #[test]
    fn ranges_are_of_whole_units_but_the_last() {
        let of = |length, count, unit| -> Vec<[usize; 2]> {
            ranges(length, count, unit).iter().map(|range| [range.start, range.end]).collect()
        };
        assert_eq!(of(300, 2, 128), [[0, 128], [128, 300]]);
        assert_eq!(of(100, 4, 128), [[0, 100]]);
        assert_eq!(of(90, 4, 16), [[0, 16], [16, 32], [32, 48], [48, 90]]);
        assert_eq!(of(0, 3, 8), [[0, 0]]);
    }
}
