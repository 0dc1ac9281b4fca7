//! Dropout for training, with masks that a seed gives again.

use burn::tensor::{Distribution, Tensor};

use crate::device::seeded;

/// Zeroes elements with probability `rate` and scales the rest by `1/(1 − rate)`; the identity
/// where there is no seed (sampling) or nothing to drop.
///
/// The same seed gives the same mask on a device: a pass that is computed again drops the same
/// elements.
///
/// `rate` lies in 0…1, 1 excluded.
///
/// # Shapes
///
/// * `x`: any shape
/// * returns the same
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, seed: Option<u64>) -> Tensor<D> {
    let Some(seed) = seed.filter(|_| rate > 0.0) else { return x };
    let (device, keep) = (x.device(), Distribution::Bernoulli(1.0 - rate));
    let mask: Tensor<D> = seeded(&device, seed, || Tensor::random(x.dims(), keep, &device));
    let dtype = x.dtype();
    x * mask.cast(dtype) * (1.0 / (1.0 - rate))
}

/// One dropout of a pass; no seed outside of training.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropout {
    /// Probability that an element is zeroed, in 0…1, 1 excluded.
    pub rate: f64,
    /// Seed of its mask; no dropout where absent.
    pub seed: Option<u64>,
}

impl Dropout {
    /// The same dropout in another place of a block, with a mask of its own.
    pub fn at(self, place: u64) -> Self {
        Self { seed: self.seed.map(|seed| seed.wrapping_add(place)), ..self }
    }

    /// [`dropout`] of this rate and seed.
    ///
    /// # Shapes
    ///
    /// * `x`: any shape
    /// * returns the same
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        dropout(x, self.rate, self.seed)
    }
}
