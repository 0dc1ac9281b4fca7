//! Distances between distributions of features `[n, d]`, in float64: what metrics compute once a network has
//! seen the images.
//!
//! A crate of its own, because linear algebra is generic and is compiled where it is used: here in one
//! codegen unit, in which its loops are inlined.

pub mod frechet;
pub mod inception_score;
pub mod kernel;
pub mod numpy;
pub mod precision_recall;

/// Mean and population standard deviation; NaN of no values.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}
