//! Samplers of denoisers D(x; σ), as in k-diffusion. `sigmas` descend from the noise to a final 0; those
//! before it are positive. The state at the start is noise times the first of them.
//!
//! In every function `s` is the current noise level, `s'` (`next`) the following one,
//! `d = (x − D)/s` the direction of the ODE and `h = ln(s/s')` a step in log-space. Euler's step along d is the way
//! to D, of which a share `1 − s'/s` is taken; at 0 it is D.

use super::flow::weighted;
use super::{Model, State, Step, Stop};

/// EDM's stochastic churn of Euler, Heun and DPM-2 (Karras et al. 2022, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Total amount, 0 or more, shared out over the steps; 0 is deterministic.
    pub s_churn: f64,
    /// Only from this noise level σ…
    pub s_tmin: f64,
    /// …to this one.
    pub s_tmax: f64,
    /// Factor on the added noise; 1 leaves it as it is.
    pub s_noise: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: f64::INFINITY, s_noise: 1.0 }
    }
}

/// Noise of ancestral and SDE samplers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stochastic {
    /// 0 is deterministic, 1 the full SDE.
    pub eta: f64,
    /// Factor on the noise; 1 leaves it as it is.
    pub s_noise: f64,
}

impl Default for Stochastic {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl Churn {
    /// The raised noise level and the noised state; one draw is consumed at every step.
    fn apply<M: Model>(
        self,
        model: &mut M,
        x: State,
        index: usize,
        sigmas: &[f64],
    ) -> (State, f64) {
        let s = sigmas[index];
        if self.s_churn <= 0.0 {
            return (x, s);
        }
        let eps = model.noise(index);
        let active = self.s_tmin <= s && s <= self.s_tmax;
        let most = std::f64::consts::SQRT_2 - 1.0;
        let gamma = if active { (self.s_churn / (sigmas.len() - 1) as f64).min(most) } else { 0.0 };
        let raised = s * (gamma + 1.0);
        if gamma > 0.0 {
            (x + eps * (self.s_noise * (raised * raised - s * s).sqrt()), raised)
        } else {
            (x, raised)
        }
    }
}

/// The noise level to step to and the noise to add afterwards, so that both make `next`.
///
/// Noise levels descend: 0 ≤ `next` ≤ `s`. `eta` is that of [`Stochastic`].
pub fn ancestral_step(s: f64, next: f64, eta: f64) -> (f64, f64) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let up = (next * next * (s * s - next * next) / (s * s)).sqrt() * eta;
    let up = up.min(next);
    ((next * next - up * up).sqrt(), up)
}

/// D at the current state, reported as a step.
async fn begin<M: Model>(
    model: &mut M,
    x: &State,
    sigmas: &[f64],
    index: usize,
    s: f64,
) -> Result<State, Stop> {
    let denoised = model.predict(x.clone(), s, s).await?;
    let total = Some(sigmas.len() - 1);
    model.on_step(Step { index, total, time: s, state: x, clean: &denoised }).await?;
    Ok(denoised)
}

pub(super) fn direction(x: &State, denoised: State, s: f64) -> State {
    (x.clone() - denoised) / s
}

/// Moves `x` along the line to `denoised`, from noise level `s` to `to`. It starts from the end that it stays nearer
/// to: float32 then rounds a small change and not, each time, the whole state or, where `to` is far below `s`, noise
/// that is about to go.
pub(super) fn toward(x: State, denoised: State, s: f64, to: f64) -> State {
    let ratio = to / s;
    if ratio > 0.5 {
        x.clone() + (denoised - x) * (1.0 - ratio)
    } else {
        denoised.clone() + (x - denoised) * ratio
    }
}

/// Euler's method with optional churn (algorithm 2 without its correction).
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn euler<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    churn: Churn,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (raised, s) = churn.apply(model, x, i, sigmas);
        let denoised = begin(model, &raised, sigmas, i, s).await?;
        x = toward(raised, denoised, s, sigmas[i + 1]);
    }
    Ok(x)
}

/// Heun's method (algorithm 2): the trapezoid, plain Euler onto 0.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn heun<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    churn: Churn,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (raised, s) = churn.apply(model, x, i, sigmas);
        let next = sigmas[i + 1];
        let denoised = begin(model, &raised, sigmas, i, s).await?;
        x = if next == 0.0 {
            denoised
        } else {
            let d = direction(&raised, denoised, s);
            let ahead = raised.clone() + d.clone() * (next - s);
            let corrected = model.predict(ahead.clone(), next, s).await?;
            let d2 = direction(&ahead, corrected, next);
            raised + (d + d2) * (0.5 * (next - s))
        };
    }
    Ok(x)
}

/// DPM-Solver-2 in Karras form: the midpoint at the geometric mean of the noise levels.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpm_2<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    churn: Churn,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (raised, s) = churn.apply(model, x, i, sigmas);
        let next = sigmas[i + 1];
        let denoised = begin(model, &raised, sigmas, i, s).await?;
        x = if next == 0.0 {
            denoised
        } else {
            let d = direction(&raised, denoised, s);
            midpoint(model, raised, d, s, next).await?
        };
    }
    Ok(x)
}

/// The second-order step of DPM-2 from `s` to `next > 0`.
async fn midpoint<M: Model>(
    model: &mut M,
    x: State,
    d: State,
    s: f64,
    next: f64,
) -> Result<State, Stop> {
    let middle = (s * next).sqrt();
    let half = x.clone() + d * (middle - s);
    let denoised = model.predict(half.clone(), middle, s).await?;
    Ok(x + direction(&half, denoised, middle) * (next - s))
}

/// Euler with ancestral noise.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn euler_ancestral<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        let (down, up) = ancestral_step(s, next, noise.eta);
        x = toward(x, denoised, s, down);
        if next > 0.0 {
            x = x + model.noise(i) * (noise.s_noise * up);
        }
    }
    Ok(x)
}

/// DPM-2 with ancestral noise.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpm_2_ancestral<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        let (down, up) = ancestral_step(s, next, noise.eta);
        x = if down == 0.0 {
            denoised
        } else {
            let d = direction(&x, denoised, s);
            midpoint(model, x, d, s, down).await? + model.noise(i) * (noise.s_noise * up)
        };
    }
    Ok(x)
}

/// Linear multistep (Adams–Bashforth on the given grid), order up to `order`.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn lms<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    order: usize,
) -> Result<State, Stop> {
    let mut past: Vec<State> = Vec::new(); // newest first
    for i in 0..sigmas.len() - 1 {
        let denoised = begin(model, &x, sigmas, i, sigmas[i]).await?;
        past.insert(0, direction(&x, denoised, sigmas[i]));
        past.truncate(order);
        let weights: Vec<f64> =
            (0..past.len()).map(|j| lms_coefficient(past.len(), sigmas, i, j)).collect();
        x = x + weighted(&past, &weights);
    }
    Ok(x)
}

/// Integral from `σ_i` to `σ_{i+1}` of the Lagrange basis polynomial that is 1 at `σ_{i−j}` and 0
/// at the other `order − 1` latest noise levels.
///
/// # Panics
///
/// If `sigmas` ends before `i + 1`, or `order − 1` or `j` is beyond `i`.
pub fn lms_coefficient(order: usize, sigmas: &[f64], i: usize, j: usize) -> f64 {
    // Around σ_i, so that powers of large noise levels do not cancel.
    let origin = sigmas[i];
    let mut polynomial = vec![1.0]; // coefficients, constant first
    for k in (0..order).filter(|&k| k != j) {
        let root = sigmas[i - k] - origin;
        let scale = sigmas[i - j] - sigmas[i - k];
        let mut product = vec![0.0; polynomial.len() + 1];
        for (power, c) in polynomial.iter().enumerate() {
            product[power] -= c * root / scale;
            product[power + 1] += c / scale;
        }
        polynomial = product;
    }
    let end = sigmas[i + 1] - origin;
    let integral = |(power, c): (usize, &f64)| c * end.powi(power as i32 + 1) / (power + 1) as f64;
    polynomial.iter().enumerate().map(integral).sum()
}

/// DPM-Solver++(2S) with ancestral noise.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpmpp_2s_ancestral<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
) -> Result<State, Stop> {
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        let (down, up) = ancestral_step(s, next, noise.eta);
        x = if down == 0.0 {
            denoised
        } else {
            let middle = (s * down).sqrt();
            let half = toward(x.clone(), denoised, s, middle);
            let denoised = model.predict(half, middle, s).await?;
            toward(x, denoised, s, down)
        };
        if next > 0.0 {
            x = x + model.noise(i) * (noise.s_noise * up);
        }
    }
    Ok(x)
}

/// DPM-Solver++ (stochastic, second order, r = 1/2); two draws a step.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpmpp_sde<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
) -> Result<State, Stop> {
    const R: f64 = 0.5;
    const F: f64 = 1.0 / (2.0 * R);
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let middle = s * (-R * (s / next).ln()).exp();
        let (down, up) = ancestral_step(s, middle, noise.eta);
        let half = toward(x.clone(), denoised.clone(), s, down)
            + model.noise(2 * i) * (noise.s_noise * up);
        let denoised_2 = model.predict(half, middle, s).await?;
        let (down, up) = ancestral_step(s, next, noise.eta);
        let mixed = denoised * (1.0 - F) + denoised_2 * F;
        x = toward(x, mixed, s, down) + model.noise(2 * i + 1) * (noise.s_noise * up);
    }
    Ok(x)
}

/// DPM-Solver++(2M) (Lu et al., arXiv 2211.01095).
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpmpp_2m<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
) -> Result<State, Stop> {
    let mut previous: Option<(State, f64)> = None; // denoised, h
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        let h = (s / next).ln();
        let extrapolated = match &previous {
            Some((old, h_last)) if next > 0.0 => {
                let r = h_last / h;
                denoised.clone() * (1.0 + 0.5 / r) - old.clone() * (0.5 / r)
            }
            _ => denoised.clone(),
        };
        x = toward(x, extrapolated, s, next);
        previous = Some((denoised, h));
    }
    Ok(x)
}

/// How DPM-Solver++(2M) SDE uses the previous prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SdeSolver {
    /// k-diffusion's default.
    #[default]
    Midpoint,
    /// What its training script uses for demonstrations.
    Heun,
}

/// DPM-Solver++(2M) SDE.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpmpp_2m_sde<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
    solver: SdeSolver,
) -> Result<State, Stop> {
    let Stochastic { eta, s_noise } = noise;
    let mut previous: Option<(State, f64)> = None;
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let h = (s / next).ln();
        let a = -(-h * (1.0 + eta)).exp_m1();
        x = x * (-h * (1.0 + eta)).exp() + denoised.clone() * a;
        if let Some((old, h_last)) = previous {
            let slope = (denoised.clone() - old) * (h / h_last);
            x = x + slope
                * match solver {
                    SdeSolver::Midpoint => 0.5 * a,
                    SdeSolver::Heun => 1.0 - a / (h * (1.0 + eta)),
                };
        }
        if eta > 0.0 {
            x = x + model.noise(i) * (next * (-(-2.0 * h * eta).exp_m1()).sqrt() * s_noise);
        }
        previous = Some((denoised, h));
    }
    Ok(x)
}

/// DPM-Solver++(3M) SDE, the sampler of the HDiT paper.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
///
/// # Panics
///
/// If `sigmas` is empty.
pub async fn dpmpp_3m_sde<M: Model>(
    model: &mut M,
    mut x: State,
    sigmas: &[f64],
    noise: Stochastic,
) -> Result<State, Stop> {
    let Stochastic { eta, s_noise } = noise;
    let mut past: Vec<(State, f64)> = Vec::new(); // newest first: denoised, h of its step
    for i in 0..sigmas.len() - 1 {
        let (s, next) = (sigmas[i], sigmas[i + 1]);
        let denoised = begin(model, &x, sigmas, i, s).await?;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let h = (s / next).ln();
        let h_eta = h * (eta + 1.0);
        x = x * (-h_eta).exp() + denoised.clone() * -(-h_eta).exp_m1();
        let phi_2 = (-h_eta).exp_m1() / h_eta + 1.0;
        let phi_3 = phi_2 / h_eta - 0.5;
        match past.as_slice() {
            [] => {}
            [(d1, h1)] => {
                x = x + (denoised.clone() - d1.clone()) * (phi_2 * h / h1);
            }
            [(d1, h1), (d2, h2), ..] => {
                let (r0, r1) = (h1 / h, h2 / h);
                let a = (denoised.clone() - d1.clone()) / r0;
                let b = (d1.clone() - d2.clone()) / r1;
                let first = a.clone() + (a.clone() - b.clone()) * (r0 / (r0 + r1));
                let second = (a - b) / (r0 + r1);
                x = x + first * phi_2 - second * phi_3;
            }
        }
        if eta > 0.0 {
            x = x + model.noise(i) * (next * (-(-2.0 * h * eta).exp_m1()).sqrt() * s_noise);
        }
        past.insert(0, (denoised, h));
        past.truncate(2);
    }
    Ok(x)
}
