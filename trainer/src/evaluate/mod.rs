//! Evaluation: metrics of sample sets and of autoencoder reconstructions.

pub mod cache;
pub mod eval_set;
pub mod evaluation;
pub mod extraction;
pub mod extractor;
pub mod images;
pub mod preprocess;
pub mod protocol;
pub mod reconstruct;
pub mod reconstruction;
pub mod report;
pub mod score;

pub use tintype_metrics::{frechet, inception_score, kernel, numpy, precision_recall};
