//! Cuts through the graph of gradients. Where a loss is weighed by its own gradients, the graph ends at a leaf; each loss
//! behind it is differentiated up to there, and the weighed sum of the gradients is carried across the cut.

use tintype::burn::tensor::{Gradients, Tensor};

/// A tensor as the beginning of a new graph.
pub fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.inner()).require_grad()
}

/// The gradient at a leaf, off the graph; zeros where the loss does not depend on it.
///
/// # Shapes
///
/// * returns the shape of `x`
pub fn gradient_at<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Tensor<D> {
    x.grad(gradients).unwrap_or_else(|| x.clone().inner().zeros_like())
}

/// `clamp(‖a‖/(‖b‖ + eps), 0, max)`, the weight of a loss that makes its gradient b as large as a.
///
/// # Shapes
///
/// * `a`, `b`: any
/// * returns `[1]`
pub fn ratio_of_norms<const D: usize>(a: Tensor<D>, b: Tensor<D>, eps: f64, max: f64) -> Tensor<1> {
    let norm = |x: Tensor<D>| x.square().sum().sqrt();
    (norm(a) / (norm(b) + eps)).clamp(0.0, max)
}
