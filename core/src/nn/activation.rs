//! Activations under the names and in the variants that the papers use.

pub use burn::tensor::activation::{gelu as gelu_erf, silu};
use burn::tensor::Tensor;

/// GELU with the tanh approximation: `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    tintype_shaders::gelu_tanh(x)
}
