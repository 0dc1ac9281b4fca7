//! Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991) as ADM's evaluator counts
//! them, in float64.

use ndarray::{Array1, Array2};

/// Neighbours that make a radius.
pub const NEIGHBOURS: usize = 3;

/// Squared distance of every point to its `k`-th neighbour in its own set.
pub fn squared_radii(points: &Array2<f64>, k: usize) -> Vec<f64> {
    let rows = 0..points.nrows();
    rows.map(|i| {
        let mut distances = squared_distances(points, i, points);
        // Entry 0 is the point itself.
        let k = k.min(distances.len() - 1);
        *distances.select_nth_unstable_by(k, f64::total_cmp).1
    })
    .collect()
}

/// Precision, the share of samples inside the reference's manifold, and recall, the share of the
/// reference inside the samples'.
pub fn precision_recall(reference: &Array2<f64>, samples: &Array2<f64>, k: usize) -> (f64, f64) {
    let inside = |points: &Array2<f64>, manifold: &Array2<f64>| -> f64 {
        let radii = squared_radii(manifold, k);
        let is_inside = |i: &usize| {
            let distances = squared_distances(points, *i, manifold);
            distances.iter().zip(&radii).any(|(d, r)| d <= r)
        };
        (0..points.nrows()).filter(is_inside).count() as f64 / points.nrows() as f64
    };
    (inside(samples, reference), inside(reference, samples))
}

/// Squared distances of point `i` to all of `others`.
fn squared_distances(points: &Array2<f64>, i: usize, others: &Array2<f64>) -> Vec<f64> {
    let point: Array1<f64> = points.row(i).to_owned();
    let to = |other: ndarray::ArrayView1<'_, f64>| -> f64 {
        point.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    others.rows().into_iter().map(to).collect()
}
