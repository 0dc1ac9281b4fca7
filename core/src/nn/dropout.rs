//! Dropout for training, with masks that a seed gives again.

use burn::tensor::{Distribution, Tensor};

/// Zeroes elements with probability `rate` and scales the rest by `1/(1 − rate)`; the identity
/// where there is no seed (sampling) or nothing to drop.
///
/// The device's generator is seeded, so the same seed gives the same mask: a pass that is computed
/// again drops the same elements.
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, seed: Option<u64>) -> Tensor<D> {
    let Some(seed) = seed.filter(|_| rate > 0.0) else { return x };
    let device = x.device();
    device.seed(seed);
    let keep: Tensor<D> = Tensor::random(x.dims(), Distribution::Bernoulli(1.0 - rate), &device);
    let dtype = x.dtype();
    x * keep.cast(dtype) * (1.0 / (1.0 - rate))
}
