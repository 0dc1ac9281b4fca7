//! What iMF and pMF share: transformers of the *average* velocity of a flow.
//!
//! On this library's clock (t = 1 is noise, t = 0 is data) `z_t = (1 − t)·x + t·e`. The network gives the average
//! velocity `u(z_t, r, t)` over r…t, so `z_r = z_t − (t − r)·u`, and one evaluation with t = 1 and r = 0 makes an image.
//! Guidance is one of its inputs, the scale ω and the interval t_min…t_max, and costs no second evaluation.
//!
//! A sequence is `[class ‖ ω ‖ t_min ‖ t_max ‖ time ‖ patches]`: conditions are tokens, and nothing is modulated.

mod block;
mod shape;
mod transformer;

use burn::tensor::{Int, Tensor};

pub use block::Block;
pub use shape::Shape;
pub(in crate::model) use shape::{Patches, is_one, told};
pub use transformer::{Embeddings, Trace, Transformer};

/// What the network is told beside the state, one value a sample; names are the papers'.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `h = t − r`, how far the average velocity reaches, `[B]` in 0…1.
    pub h: Tensor<1>,
    /// The guidance scale ω, 1 (none) or more, `[B]`.
    pub omega: Tensor<1>,
    /// Lower end of the times that guidance acts in, `[B]` in 0…1.
    pub t_min: Tensor<1>,
    /// Upper end, `[B]` in 0…1.
    pub t_max: Tensor<1>,
    /// Classes, `[B]`; the label after the last is the null class.
    pub y: Tensor<1, Int>,
}

impl Condition {
    /// Of the velocity at a single time (h = 0) without guidance (ω = 1).
    ///
    /// # Shapes
    ///
    /// * `y`: `[B]`
    /// * `like`: `[B]`, of any values
    pub fn instantaneous(y: Tensor<1, Int>, like: &Tensor<1>) -> Self {
        let (zero, one) = (like.zeros_like(), like.ones_like());
        Self { h: zero.clone(), omega: one.clone(), t_min: zero, t_max: one, y }
    }
}

/// A network of average velocities, by which [`Sampler::MeanFlow`](crate::settings::Sampler::MeanFlow) steps.
pub trait MeanFlow: Send + Sync {
    /// The average velocity over `t − h`…`t`.
    ///
    /// # Shapes
    ///
    /// * `z`: the state at time t, `[B, C, H, W]` in float32
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * `condition`: `[B]` each
    /// * returns `[B, C, H, W]` in float32
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null class.
    fn u(&self, z: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4>;

    /// The instantaneous velocity that the head of v gives; `None` for a network without it, as published ones are.
    ///
    /// # Shapes
    ///
    /// As in [`u`](Self::u).
    ///
    /// # Panics
    ///
    /// As [`u`](Self::u).
    fn v(&self, z: Tensor<4>, t: Tensor<1>, condition: Condition) -> Option<Tensor<4>>;

    /// [`u`](Self::u) and [`v`](Self::v) of one pass through the blocks that they share.
    ///
    /// # Shapes
    ///
    /// As in [`u`](Self::u).
    ///
    /// # Panics
    ///
    /// As [`u`](Self::u).
    fn u_and_v(
        &self,
        z: Tensor<4>,
        t: Tensor<1>,
        condition: Condition,
    ) -> (Tensor<4>, Option<Tensor<4>>);
}
