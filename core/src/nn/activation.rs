//! Activations under the names and in the variants that the papers use.

use burn::tensor::Tensor;
pub use burn::tensor::activation::silu;
pub use tintype_shaders::plain::gelu as gelu_erf;

/// GELU with the tanh approximation: `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`.
///
/// # Shapes
///
/// * `x`: any shape
/// * returns the same
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    tintype_shaders::gelu_tanh(x)
}
