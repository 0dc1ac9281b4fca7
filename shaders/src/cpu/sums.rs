//! Sums over the rows of a group: how the gradients of a row's parameters come together. Rows are
//! summed in pieces first, and the pieces in their order: long sums in float32 lose digits.

use super::vectors::vectorized;
use super::{for_each_piece, math};

/// Most rows of a piece.
pub(super) const ROWS: usize = 32;

/// Rows of a piece where `groups` have `rows` rows each: no piece has rows of two groups.
pub(super) fn piece_rows(groups: usize, rows: usize) -> usize {
    if groups <= 1 {
        return ROWS;
    }
    (1..=ROWS).rev().find(|&piece| rows.is_multiple_of(piece)).unwrap_or(1)
}

/// `[groups, pieces, d]` → `[groups, d]`
pub(super) fn of_pieces(pieces: &[f32], d: usize, sums: &mut [f32]) {
    let group = pieces.len() / sums.len().max(1) * d;
    for_each_piece(sums, d, |i, sums| {
        let pieces = &pieces[i * group..][..group];
        sums.fill(0.0);
        vectorized(
            #[inline(always)]
            || {
                for piece in pieces.chunks_exact(d) {
                    math::add(sums, piece);
                }
            },
        );
    });
}

/// `[rows, d]` → `[d]`
pub(super) fn of_rows(values: &[f32], d: usize, sums: &mut [f32]) {
    let mut pieces = vec![0.0f32; values.len().div_ceil(ROWS * d) * d];
    for_each_piece(&mut pieces, d, |i, sums| {
        let rows = &values[i * ROWS * d..];
        let rows = &rows[..rows.len().min(ROWS * d)];
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(d) {
                    math::add(sums, row);
                }
            },
        );
    });
    of_pieces(&pieces, d, sums);
}
