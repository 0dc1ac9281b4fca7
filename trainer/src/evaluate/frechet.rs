//! The Fréchet distance of two Gaussians (FID, Heusel et al., arXiv 1706.08500).

use faer::{Mat, Side};
use ndarray::{Array1, Array2};

use crate::data::npz::Statistics;

/// A covariance that is not one.
#[derive(Debug, thiserror::Error)]
#[error("the covariance has no eigendecomposition; its values are not finite")]
pub struct NotSymmetric;

/// Mean and unbiased covariance of features `[n, d]`, n ≥ 2, with `ridge` on the diagonal.
pub fn statistics(features: &Array2<f64>, ridge: f64) -> Statistics {
    let (n, d) = features.dim();
    let mu: Array1<f64> = features.sum_axis(ndarray::Axis(0)) / n as f64;
    let centred = features - &mu;
    let mut sigma = centred.t().dot(&centred) / (n as f64 - 1.0);
    for i in 0..d {
        sigma[[i, i]] += ridge;
    }
    Statistics { mu, sigma }
}

/// `‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁^½ Σ₂ Σ₁^½)^½)`, roots by symmetric eigendecomposition.
pub fn distance(a: &Statistics, b: &Statistics) -> Result<f64, NotSymmetric> {
    let means: f64 = (&a.mu - &b.mu).mapv(|v| v * v).sum();
    let traces = a.sigma.diag().sum() + b.sigma.diag().sum();
    let (sigma_a, sigma_b) = (to_mat(&a.sigma), to_mat(&b.sigma));
    let root = square_root(&sigma_a)?;
    let inner = &root * &sigma_b * &root;
    let symmetric = (&inner + inner.transpose()) * faer::Scale(0.5);
    let values = symmetric.self_adjoint_eigenvalues(Side::Lower).map_err(|_| NotSymmetric)?;
    let trace_of_root: f64 = values.iter().map(|v| v.abs().sqrt()).sum();
    Ok(means + traces - 2.0 * trace_of_root)
}

/// The symmetric square root, with |λ| for eigenvalues that rounding made negative.
fn square_root(matrix: &Mat<f64>) -> Result<Mat<f64>, NotSymmetric> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| NotSymmetric)?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let d = matrix.nrows();
    let scaled = Mat::from_fn(d, d, |i, j| vectors[(i, j)] * values[j].abs().sqrt());
    Ok(&scaled * vectors.transpose())
}

fn to_mat(array: &Array2<f64>) -> Mat<f64> {
    Mat::from_fn(array.nrows(), array.ncols(), |i, j| array[[i, j]])
}
