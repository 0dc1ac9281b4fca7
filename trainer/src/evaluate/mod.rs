//! Distances between distributions of features, and between images.

pub mod evaluation;
pub mod gather;
pub mod images;
pub mod judge;
pub mod known;
pub mod preprocess;
pub mod protocol;
pub mod reconstruct;
pub mod reconstruction;
pub mod report;
pub mod score;

pub use tintype_metrics::{frechet, inception_score, kernel, numpy, precision_recall};
