//! Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991) as ADM's evaluator counts
//! them, in float64 (ADM computes distances in float16, good to about 0.003).

use faer::{Mat, MatRef};
use ndarray::Array2;
use rayon::prelude::*;

/// Neighbours that make a radius.
pub const NEIGHBOURS: usize = 3;
/// Points whose distances to all others are in memory at once.
const BLOCK: usize = 512;

/// Points `[n, d]` and the squares of their lengths.
struct Points {
    rows: Mat<f64>,
    squares: Vec<f64>,
}

impl Points {
    fn new(points: &Array2<f64>) -> Self {
        let rows = Mat::from_fn(points.nrows(), points.ncols(), |i, j| points[[i, j]]);
        let squares = points.rows().into_iter().map(|r| r.dot(&r)).collect();
        Self { rows, squares }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    fn block(&self, start: usize) -> (MatRef<'_, f64>, &[f64]) {
        let n = BLOCK.min(self.len() - start);
        (self.rows.subrows(start, n), &self.squares[start..start + n])
    }

    /// `|u|² − 2uᵀv + |v|²`, not below 0: a column for each point of the block, a row for each
    /// point of `self`.
    fn squared_distances(&self, (block, squares): (MatRef<'_, f64>, &[f64])) -> Mat<f64> {
        let mut out = &self.rows * block.transpose();
        for (j, &v) in squares.iter().enumerate() {
            for (i, &u) in self.squares.iter().enumerate() {
                out[(i, j)] = (u - 2.0 * out[(i, j)] + v).max(0.0);
            }
        }
        out
    }
}

/// Squared distance of every point of `[n, d]` to its `k`-th neighbour in its own set, to the last
/// where there are fewer.
pub fn squared_radii(points: &Array2<f64>, k: usize) -> Vec<f64> {
    radii(&Points::new(points), k)
}

fn radii(points: &Points, k: usize) -> Vec<f64> {
    let mut radii = Vec::with_capacity(points.len());
    // Entry 0 is the point itself.
    let k = k.min(points.len().saturating_sub(1));
    for start in (0..points.len()).step_by(BLOCK) {
        let distances = points.squared_distances(points.block(start));
        radii.par_extend((0..distances.ncols()).into_par_iter().map(|j| {
            let mut column: Vec<f64> = distances.col(j).iter().copied().collect();
            // Rounding must not push the point away from itself.
            column[start + j] = 0.0;
            *column.select_nth_unstable_by(k, f64::total_cmp).1
        }));
    }
    radii
}

/// Precision, the share of samples inside the reference's manifold, and recall, the share of the
/// reference inside the samples'.
///
/// Both are features `[n, d]`; the share of an empty set is NaN.
///
/// # Panics
///
/// If the numbers of features differ.
pub fn precision_recall(reference: &Array2<f64>, samples: &Array2<f64>, k: usize) -> (f64, f64) {
    let (reference, samples) = (Points::new(reference), Points::new(samples));
    let (reference_radii, sample_radii) = (radii(&reference, k), radii(&samples, k));
    let mut precise = 0;
    let mut recalled = vec![false; reference.len()];
    for start in (0..samples.len()).step_by(BLOCK) {
        let distances = reference.squared_distances(samples.block(start));
        let inside = |j: &usize| {
            distances.col(*j).iter().zip(&reference_radii).any(|(d, radius)| d <= radius)
        };
        precise += (0..distances.ncols()).into_par_iter().filter(inside).count();
        recalled.par_iter_mut().enumerate().for_each(|(i, recalled)| {
            let near = |j: usize| distances[(i, j)] <= sample_radii[start + j];
            *recalled = *recalled || (0..distances.ncols()).any(near);
        });
    }
    let recalled = recalled.iter().filter(|r| **r).count();
    (precise as f64 / samples.len() as f64, recalled as f64 / reference.len() as f64)
}
