//! Distances between distributions of features, and between images.

pub mod evaluation;
pub mod frechet;
pub mod gather;
pub mod images;
pub mod inception_score;
pub mod judge;
pub mod kernel;
pub mod known;
pub mod numpy;
pub mod precision_recall;
pub mod preprocess;
pub mod protocol;
pub mod reconstruct;
pub mod reconstruction;
pub mod report;
pub mod score;

/// Mean and population standard deviation.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}
