//! Distances between distributions of features.

pub mod frechet;
pub mod kernel;
