//! Activations under the names and in the variants that the papers use.

use burn::tensor::Tensor;
pub use burn::tensor::activation::{gelu as gelu_erf, silu};

/// GELU with the tanh approximation: `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    tintype_shaders::gelu_tanh(x)
}
