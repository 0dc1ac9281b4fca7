//! Solvers of flows for few evaluations: DPM-Solver++ (Lu et al., arXiv 2211.01095) and UniPC (Zhao et al.,
//! arXiv 2302.04867), on the linear path `α = 1 − t`, `σ = t`.
//!
//! In `λ = ln(α/σ)` the flow's ODE is linear but for the clean estimate `D = x − t·v`, and a step from `s` to `t`
//! is exact where D is known:
//!
//! `x_t = σ_t/σ_s·x_s + (1 − σ_t/σ_s)·D̄`, with D̄ the mean of D over the step, weighted by `e^λ`.
//!
//! The solvers differ in their D̄: of a polynomial in λ through estimates of earlier steps, or the estimate in the
//! middle. In this form nothing is infinite at the ends, where λ is: at t = 1 an estimate lies infinitely far back, and
//! the step to t = 0 is infinitely long. By these limits the first step, the one after it and the last are
//! predicted with order one (the second one of [`dpmpp_2s`] is not: it needs no past). A multistep solver begins with
//! order one wherever it begins, so that [`dpmpp_3m`] is of order three only where its first steps are short.
//! `times` descend, from 1 to 0 in a whole run.

use std::iter;

use super::karras::toward;
use super::{Model, State, Step, Stop};
use crate::diffusion::flow::Interpolant;

/// DPM-Solver++(2M): a line through the latest two estimates, one evaluation a step.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
pub async fn dpmpp_2m<M: Model>(model: &mut M, x: State, times: &[f64]) -> Result<State, Stop> {
    multistep(model, x, times, Multistep::predictor(2)).await
}

/// DPM-Solver++(3M): a parabola through the latest three estimates, one evaluation a step.
///
/// Integrated exactly. The authors' code, and k-diffusion's `dpmpp_3m_sde` after it, takes half of the parabola's
/// last term, which leaves an order of two.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
pub async fn dpmpp_3m<M: Model>(model: &mut M, x: State, times: &[f64]) -> Result<State, Stop> {
    multistep(model, x, times, Multistep::predictor(3)).await
}

/// UniPC with `B₂(h)`: each step is predicted through the latest `order` estimates (1 to 3) and corrected by the
/// estimate at its end, which the next step needs anyway; one evaluation a step. The correction adds one to the
/// order.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
pub async fn unipc<M: Model>(
    model: &mut M,
    x: State,
    times: &[f64],
    order: usize,
) -> Result<State, Stop> {
    multistep(model, x, times, Multistep::corrector(order)).await
}

/// DPM-Solver++(2S): the estimate in the middle of the step in λ. Two evaluations a step, one for the first
/// and the last, which have no middle.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
pub async fn dpmpp_2s<M: Model>(model: &mut M, mut x: State, times: &[f64]) -> Result<State, Stop> {
    let times = distinct(times);
    for index in 0..times.len().saturating_sub(1) {
        let (t, next) = (times[index], times[index + 1]);
        let clean = estimate(model, &x, &times, index).await?;
        let mean = match middle(t, next) {
            Some(middle) => {
                let half = toward(x.clone(), clean, t, middle);
                let v = model.predict(half.clone(), middle, t).await?;
                Interpolant::Linear.clean(half, v, middle)
            }
            None => clean,
        };
        x = toward(x, mean, t, next);
    }
    Ok(x)
}

async fn multistep<M: Model>(
    model: &mut M,
    mut x: State,
    times: &[f64],
    mut solver: Multistep,
) -> Result<State, Stop> {
    let times = distinct(times);
    for index in 0..times.len().saturating_sub(1) {
        let clean = estimate(model, &x, &times, index).await?;
        x = solver.step(x, clean, times[index], times[index + 1]);
    }
    Ok(x)
}

/// Without repetitions, as a strong time shift makes near the ends by rounding.
fn distinct(times: &[f64]) -> Vec<f64> {
    let mut times = times.to_vec();
    times.dedup();
    times
}

/// `D = x − t·v` at the beginning of a step, reported.
async fn estimate<M: Model>(
    model: &mut M,
    x: &State,
    times: &[f64],
    index: usize,
) -> Result<State, Stop> {
    let t = times[index];
    let v = model.predict(x.clone(), t, t).await?;
    let clean = Interpolant::Linear.clean(x.clone(), v, t);
    let total = Some(times.len() - 1);
    model.on_step(Step { index, total, time: t, state: x, clean: &clean }).await?;
    Ok(clean)
}

/// `λ = ln(α/σ)` at time `t` in 0…1: from −∞ at the noise to ∞ at the data.
pub fn half_log_snr(t: f64) -> f64 {
    ((1.0 - t) / t).ln()
}

/// The time of a λ.
fn time_of(lambda: f64) -> f64 {
    1.0 / (1.0 + lambda.exp())
}

/// The time in the middle of a step in λ; `None` where λ is infinite at either end.
pub(super) fn middle(t: f64, next: f64) -> Option<f64> {
    let middle = time_of(0.5 * (half_log_snr(t) + half_log_snr(next)));
    Some(middle).filter(|middle| 0.0 < *middle && *middle < 1.0)
}

/// A multistep solver of one stream, between its steps.
#[derive(Debug)]
pub(super) struct Multistep {
    /// Estimates that a prediction goes through.
    order: usize,
    /// Whether the estimate at the end of a step corrects it.
    corrects: bool,
    /// Newest first.
    past: Vec<Estimate>,
    /// State and time at which the latest step began.
    origin: Option<(State, f64)>,
}

/// A clean estimate and where it was made.
#[derive(Debug)]
struct Estimate {
    lambda: f64,
    clean: State,
}

impl Multistep {
    /// A polynomial through the latest `order` estimates, 1 or more.
    pub(super) fn predictor(order: usize) -> Self {
        Self { order: order.max(1), corrects: false, past: Vec::new(), origin: None }
    }

    /// The same, each step corrected by the estimate at its end.
    pub(super) fn corrector(order: usize) -> Self {
        Self { corrects: true, ..Self::predictor(order) }
    }

    /// From time `t`, where the network makes `clean` of the state, to `next`.
    pub(super) fn step(&mut self, x: State, clean: State, t: f64, next: f64) -> State {
        let lambda = half_log_snr(t);
        let x = match self.origin.take() {
            Some((start, s)) if self.corrects => {
                toward(start, self.mean(lambda, Some(&clean)), s, t)
            }
            _ => x,
        };
        // What was estimated at t = 1 lies at −∞, and two estimates at one place make no line.
        self.past.retain(|old| old.lambda.is_finite() && old.lambda < lambda);
        self.past.insert(0, Estimate { lambda, clean });
        self.past.truncate(self.order);
        let mean = self.mean(half_log_snr(next), None);
        self.origin = Some((x.clone(), t));
        toward(x, mean, t, next)
    }

    /// D̄ of the step from the latest estimate to λ `to`, where `end` is estimated, if anything is.
    fn mean(&self, to: f64, end: Option<&State>) -> State {
        let (now, older) = (&self.past[0], &self.past[1..]);
        let h = to - now.lambda;
        let mut nodes: Vec<(f64, &State)> = Vec::new();
        if h > 0.0 && h.is_finite() {
            nodes.extend(older.iter().map(|old| ((old.lambda - now.lambda) / h, &old.clean)));
        }
        if h > 0.0 {
            nodes.extend(end.map(|end| (1.0, end)));
        }
        let places: Vec<f64> = nodes.iter().map(|(place, _)| *place).collect();
        let weighted = nodes.into_iter().zip(weights(&places, h));
        weighted.fold(now.clean.clone(), |mean, ((_, clean), weight)| {
            mean + (clean.clone() - now.clean.clone()) * weight
        })
    }
}

/// What each difference `D_k − D_0` adds to D̄, for estimates at `λ_0 + r_k·h`: the mean over the step of Lagrange's
/// polynomial, which is 1 at `r_k` and 0 at the others and at 0. Of a single one half of its slope, as both papers
/// have it, which is as exact as the order asks for.
fn weights(places: &[f64], h: f64) -> Vec<f64> {
    if let [only] = places {
        return vec![0.5 / only];
    }
    let lagrange = |k: usize| {
        let at = places[k];
        let (mut polynomial, mut scale) = (vec![0.0, 1.0], at); // r, in rising powers
        for (_, other) in places.iter().enumerate().filter(|(i, _)| *i != k) {
            let raised = iter::once(0.0).chain(polynomial.iter().copied());
            let same = polynomial.iter().copied().chain([0.0]);
            polynomial = raised.zip(same).map(|(up, here)| up - other * here).collect();
            scale *= at - other;
        }
        let sum: f64 = polynomial.iter().enumerate().map(|(j, c)| c * moment(j, h)).sum();
        sum / moment(0, h) / scale
    };
    (0..places.len()).map(lagrange).collect()
}

/// `∫₀¹ r^j·e^{−h(1−r)} dr` for h > 0, without cancellation where h is small.
fn moment(j: usize, h: f64) -> f64 {
    if h < 1.0 {
        // Σ (−h)^k·j!/(j + k + 1)!
        let mut term = 1.0 / (j + 1) as f64;
        let mut sum = term;
        for k in 0..20 {
            term *= -h / (j + k + 2) as f64;
            sum += term;
        }
        return sum;
    }
    let zeroth = -(-h).exp_m1() / h;
    (1..=j).fold(zeroth, |before, power| (1.0 - power as f64 * before) / h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_integrals() {
        let n = 200_000;
        for h in [1e-6, 0.3, 0.999, 1.0, 2.5, 40.0] {
            for j in 0..4 {
                let value = |i: usize| {
                    let r = (i as f64 + 0.5) / n as f64;
                    r.powi(j as i32) * (-h * (1.0 - r)).exp() / n as f64
                };
                let integral: f64 = (0..n).map(value).sum();
                assert!((moment(j, h) - integral).abs() < 1e-8, "{j} {h}");
            }
        }
    }

    #[test]
    fn weights_are_exact_for_polynomials() {
        let (places, h) = ([-0.7, -1.9, 1.0], 0.8);
        let weights = weights(&places, h);
        for power in 1..=3 {
            let sum: f64 = weights.iter().zip(places).map(|(w, r)| w * r.powi(power)).sum();
            let mean = moment(power as usize, h) / moment(0, h);
            assert!((sum - mean).abs() < 1e-12, "{power}: {sum} {mean}");
        }
    }
}
