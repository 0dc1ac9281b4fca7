//! What a step of training does to lists of tensors.

use burn::tensor::Tensor;

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::plain;
#[cfg(any(feature = "cpu", feature = "gpu"))]
use crate::uses_kernels;

/// The numbers of a step of AdamW (Loshchilov & Hutter, arXiv 1711.05101), bias corrections taken
/// into them.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Factor of the gradient, by which it is clipped.
    pub scale: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// `1 − lr·weight_decay`
    pub decay: f64,
    /// `lr / (1 − β₁ⁿ)`
    pub rate: f64,
    /// `1 / √(1 − β₂ⁿ)`
    pub root: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// A parameter and its first and second moment after a step, of those before and the gradient:
/// `g ← scale·g`, `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `p ← decay·p − rate·m / (root·√v + eps)`.
///
/// # Shapes
///
/// * `parameter`, `gradient` and each of `moments`: `[n]`
/// * returns the same
///
/// # Panics
///
/// If the shapes differ.
pub fn adamw(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    moments: [Tensor<1>; 2],
    step: AdamWStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes([&parameter, &gradient, &moments[0], &moments[1]]) {
        let update = AdamWUpdate { parameter, gradient, moments, step };
        return cpu::adamw::steps(vec![update]).remove(0);
    }
    #[cfg(feature = "gpu")]
    if uses_kernels() {
        let [first, second] = &moments;
        let inputs = given!(parameter, gradient, first, second);
        if let Some(after) = gpu::adamw::step(step, inputs) {
            let [parameter, first, second] = after.map(Tensor::from_dispatch);
            return (parameter, [first, second]);
        }
    }
    plain::adamw(parameter, gradient, moments, step)
}

/// What a step of AdamW takes of one parameter.
#[derive(Clone, Debug)]
pub struct AdamWUpdate {
    /// `[n]`
    pub parameter: Tensor<1>,
    /// `[n]`
    pub gradient: Tensor<1>,
    /// The first and the second one, `[n]` each.
    pub moments: [Tensor<1>; 2],
    /// The numbers.
    pub step: AdamWStep,
}

/// [`adamw`] of many parameters. On the CPU they are updated together, in place where nobody else refers to them.
///
/// # Shapes
///
/// * returns those of each parameter and its moments
///
/// # Panics
///
/// If the shapes of an update differ.
pub fn adamw_all(updates: Vec<AdamWUpdate>) -> Vec<(Tensor<1>, [Tensor<1>; 2])> {
    #[cfg(feature = "cpu")]
    if uses_kernels() {
        let tensors = updates.iter().flat_map(|update| {
            let [first, second] = &update.moments;
            [&update.parameter, &update.gradient, first, second]
        });
        if cpu::lists::takes(tensors) {
            return cpu::adamw::steps(updates);
        }
    }
    let one = |update: AdamWUpdate| {
        let AdamWUpdate { parameter, gradient, moments, step } = update;
        adamw(parameter, gradient, moments, step)
    };
    updates.into_iter().map(one).collect()
}

/// `a + share·(b − a)` of each average `a` and its value `b`, as an EMA moves. On the CPU all are computed together,
/// in place where nobody else refers to an average.
///
/// # Shapes
///
/// * `averages`, `values`: `[n]`, as many of one as of the other
/// * returns those of `averages`
///
/// # Panics
///
/// If there are not as many values as averages, or the shapes of two that belong together differ.
pub fn lerp(averages: Vec<Tensor<1>>, values: Vec<Tensor<1>>, share: f64) -> Vec<Tensor<1>> {
    assert_eq!(averages.len(), values.len(), "the numbers of averages and of values");
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes(averages.iter().chain(&values)) {
        return cpu::lists::lerp(averages, values, share);
    }
    plain::lerp(averages, values, share)
}

/// The sum of the squares of all values of some tensors, as the global norm of gradients wants it.
///
/// # Shapes
///
/// * `tensors`: `[n]` each
/// * returns `[1]`
///
/// # Panics
///
/// If there are no tensors.
pub fn sum_of_squares(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    assert!(!tensors.is_empty(), "there is nothing to sum");
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes(&tensors) {
        return cpu::lists::sum_of_squares(tensors);
    }
    plain::sum_of_squares(tensors)
}
