//! The Inception Score (Salimans et al., arXiv 1606.03498) of logits `[n, classes]` without bias.

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::numpy::RandomState;

/// ADM's: mean of the scores of consecutive chunks of `size` samples, the last one as it is.
pub fn chunked(logits: &Array2<f64>, size: usize) -> f64 {
    let scores: Vec<f64> =
        logits.axis_chunks_iter(Axis(0), size.max(1)).map(|chunk| score(chunk)).collect();
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// torch-fidelity's: mean and population deviation of the scores of `splits` parts, cut at
/// `i·n/splits`, after numpy's permutation of the samples if `shuffle` gives its seed.
///
/// `splits` is 1 to n; the score of a part without samples is NaN.
pub fn split(logits: &Array2<f64>, splits: usize, shuffle: Option<u32>) -> (f64, f64) {
    let n = logits.nrows();
    let order = match shuffle {
        Some(seed) => RandomState::new(seed).permutation(n),
        None => (0..n).collect(),
    };
    let shuffled = logits.select(Axis(0), &order);
    let part = |i: usize| shuffled.slice(s![i * n / splits..(i + 1) * n / splits, ..]);
    let scores: Vec<f64> = (0..splits).map(|i| score(part(i))).collect();
    crate::mean_and_deviation(&scores)
}

/// `exp(mean_i KL(p_i ‖ mean_j p_j))` with p the softmax of the logits.
fn score(logits: ArrayView2<'_, f64>) -> f64 {
    let mut p = logits.to_owned();
    for mut row in p.rows_mut() {
        let largest = row.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
        row.mapv_inplace(|v| (v - largest).exp());
        let sum = row.sum();
        row /= sum;
    }
    let n = p.nrows() as f64;
    let marginal = p.sum_axis(Axis(0)) / n;
    let divergence = |row: ndarray::ArrayView1<'_, f64>| -> f64 {
        let terms = row.iter().zip(&marginal);
        terms.map(|(&p, &q)| if p > 0.0 { p * (p.ln() - q.ln()) } else { 0.0 }).sum()
    };
    (p.rows().into_iter().map(divergence).sum::<f64>() / n).exp()
}
