//! What a step of training does to lists of tensors.
//!
//! On GPUs the host waits for nothing here: whether a step is made and how far its gradients are scaled down is read by
//! the kernels themselves ([`StepGuard`]), and they write over what is not shared. Bytes of memory traffic for
//! each parameter, in float32, with clipping and one EMA:
//!
//! | | norm | AdamW | EMA | all |
//! |---|---|---|---|---|
//! | three passes | 4 | 16 read, 12 written | 8 read, 4 written | 44 |
//! | one pass after the norm | 4 | 16 read, 12 written | 4 read, 4 written | 40 |
//!
//! Of plain operations, each a pass of its own, the norm (square, sum) moves 12 and an EMA (difference, product,
//! sum) 32.
//! A parameter has 20 bytes (itself, its gradient, two moments, an EMA) before, during and after a step. Results in
//! memory of their own take 12 more while they and what they replace exist, for the parameters that are under way.

use burn::tensor::Tensor;

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::plain;
#[cfg(any(feature = "cpu", feature = "gpu"))]
use crate::uses_kernels;

/// What decides whether a step of an optimizer is made, and how far its gradients are scaled down. It is read by the
/// kernels themselves.
#[derive(Clone, Debug)]
pub struct StepGuard {
    /// `[1 + k]`, float32: the sum of the squares of all gradients, then numbers (losses) that must be finite, too.
    pub numbers: Tensor<1>,
    /// Gradients are scaled down to this global L2 norm; `None` for no clipping.
    pub max_norm: Option<f64>,
}

impl StepGuard {
    /// The factor of the gradients for numbers that were read back, `min(1, max_norm / (norm + 1e-6))` as in
    /// `clip_grad_norm_`; `None` where one of them is not finite, and the step changes nothing. Computed in float64
    /// from a norm that is rounded to float32.
    pub fn scale(numbers: &[f32], max_norm: Option<f64>) -> Option<f64> {
        if !numbers.iter().all(|number| number.is_finite()) {
            return None;
        }
        let norm = f64::from(numbers.first().copied().unwrap_or(0.0).sqrt());
        let factor = max_norm.map_or(1.0, |max| max / (norm + 1e-6));
        Some(if factor < 1.0 { factor } else { 1.0 })
    }

    /// Its numbers, for which the host waits.
    pub fn read(&self) -> Vec<f32> {
        self.numbers.to_data().convert::<f32>().iter::<f32>().collect()
    }

    /// [`scale`](Self::scale) of its own numbers, for which the host waits.
    pub(crate) fn factor(&self) -> Option<f64> {
        Self::scale(&self.read(), self.max_norm)
    }
}

/// The numbers of a step of AdamW (Loshchilov & Hutter, arXiv 1711.05101), bias corrections taken
/// into them.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
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

/// What a step of AdamW takes of one parameter.
#[derive(Clone, Debug)]
pub struct AdamWUpdate {
    /// `[n]`
    pub parameter: Tensor<1>,
    /// `[n]`
    pub gradient: Tensor<1>,
    /// The first and the second one, `[n]` each.
    pub moments: [Tensor<1>; 2],
    /// EMAs of the parameter, `[n]` each, and the share `1 − decay` by which each moves to it after the step.
    pub averages: Vec<(Tensor<1>, f64)>,
    /// The numbers.
    pub step: AdamWStep,
}

impl AdamWUpdate {
    /// All of its tensors.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor<1>> {
        let [first, second] = &self.moments;
        let averages = self.averages.iter().map(|(average, _)| average);
        [&self.parameter, &self.gradient, first, second].into_iter().chain(averages)
    }

    /// What is there after a step that changes nothing.
    pub(crate) fn unchanged(self) -> AdamWUpdated {
        let averages = self.averages.into_iter().map(|(average, _)| average).collect();
        AdamWUpdated { parameter: self.parameter, moments: self.moments, averages }
    }
}

/// What a step of AdamW makes of one parameter, `[n]` each.
#[derive(Clone, Debug)]
pub struct AdamWUpdated {
    /// The parameter.
    pub parameter: Tensor<1>,
    /// Its first and second moment.
    pub moments: [Tensor<1>; 2],
    /// Its EMAs, in the order of those before.
    pub averages: Vec<Tensor<1>>,
}

/// Parameters, their moments and their EMAs after a step of AdamW, where `s` is the guard's factor and `w` the share of
/// an EMA `a`: `g ← s·g`, `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`,
/// `p ← decay·p − rate·m / (root·√v + eps)`, `a ← a + w·(p − a)`. All keep their bits where a number of the guard is
/// not finite.
///
/// On the CPU and on GPUs they are updated in place where they are not shared. On GPUs the guard's factor is
/// computed in float32, and the host waits for nothing.
///
/// # Shapes
///
/// * returns those of each parameter, its moments and its EMAs
///
/// # Panics
///
/// If the shapes of an update differ.
pub fn adamw_all(updates: Vec<AdamWUpdate>, guard: &StepGuard) -> Vec<AdamWUpdated> {
    for update in &updates {
        let n = update.parameter.dims();
        assert!(
            update.tensors().all(|x| x.dims() == n),
            "the sizes of parameter, gradient, moments and averages"
        );
    }
    #[cfg(feature = "cpu")]
    if uses_kernels() {
        let tensors = updates.iter().flat_map(AdamWUpdate::tensors);
        if cpu::lists::takes(tensors.chain([&guard.numbers])) {
            return cpu::adamw::steps(updates, guard);
        }
    }
    #[cfg(feature = "gpu")]
    if uses_kernels() && updates.iter().all(|update| gpu::adamw::takes(update.tensors(), guard)) {
        let guard = gpu::guard::folded(guard);
        return updates.into_iter().map(|update| gpu::adamw::step(update, &guard)).collect();
    }
    plain::adamw_all(updates, guard)
}

/// `a + share·(b − a)` of each average `a` and its value `b`, as an EMA moves; the averages themselves where one of the
/// guard's numbers is not finite. On the CPU and on GPUs this happens in place where an average is not shared.
///
/// # Shapes
///
/// * `averages`, `values`: `[n]`, as many of one as of the other
/// * returns those of `averages`
///
/// # Panics
///
/// If there are not as many values as averages, or the shapes of two that belong together differ.
pub fn lerp(
    averages: Vec<Tensor<1>>,
    values: Vec<Tensor<1>>,
    share: f64,
    guard: &StepGuard,
) -> Vec<Tensor<1>> {
    assert_eq!(averages.len(), values.len(), "the numbers of averages and of values");
    let fit = averages.iter().zip(&values).all(|(a, b)| a.dims() == b.dims());
    assert!(fit, "the sizes of an average and of its value");
    #[cfg(feature = "cpu")]
    if uses_kernels() && cpu::lists::takes(averages.iter().chain(&values).chain([&guard.numbers])) {
        return cpu::lists::lerp(averages, values, share, guard);
    }
    #[cfg(feature = "gpu")]
    if uses_kernels() && averages.iter().zip(&values).all(|(a, b)| gpu::adamw::takes([a, b], guard))
    {
        let guard = gpu::guard::folded(guard);
        let pairs = averages.into_iter().zip(values);
        return pairs.map(|(a, b)| gpu::averages::lerp(a, b, share, &guard)).collect();
    }
    plain::lerp(averages, values, share, guard)
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
    #[cfg(feature = "gpu")]
    if uses_kernels()
        && let Some(sum) = gpu::squares::sum_of_squares(&tensors)
    {
        return sum;
    }
    plain::sum_of_squares(tensors)
}

#[cfg(test)]
mod tests {
    use super::StepGuard;

    #[test]
    fn a_step_is_scaled_to_the_norm_or_left_out() {
        assert_eq!(StepGuard::scale(&[1e18], None), Some(1.0));
        assert_eq!(StepGuard::scale(&[0.25, 3.0], Some(1.0)), Some(1.0));
        assert_eq!(StepGuard::scale(&[16.0, -3.0], Some(1.0)), Some(1.0 / (4.0 + 1e-6)));
        assert_eq!(StepGuard::scale(&[0.0], Some(0.0)), Some(0.0));
        assert_eq!(StepGuard::scale(&[], Some(1.0)), Some(1.0));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for max_norm in [None, Some(1.0)] {
                assert_eq!(StepGuard::scale(&[wrong], max_norm), None);
                assert_eq!(StepGuard::scale(&[1.0, 2.0, wrong], max_norm), None);
            }
        }
    }
}
