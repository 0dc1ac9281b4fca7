//! Activations under the names and in the variants that the papers use.

use burn::tensor::Tensor;
pub use burn::tensor::activation::silu;

/// The exact GELU, `x/2 · (1 + erf(x/√2))`. Spelt out: the derivative of Burn's own `gelu` is that
/// of the tanh approximation on GPU backends.
pub fn gelu_erf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let erf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf();
    x * (erf + 1.0) * 0.5
}

/// GELU with the tanh approximation: `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    tintype_shaders::gelu_tanh(x)
}
