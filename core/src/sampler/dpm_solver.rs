//! DPM-Solver (Lu et al., arXiv 2206.00927) of orders 1 to 3 in `t = −ln σ`, with a fixed budget of
//! evaluations (*fast*) or an adaptive step size (*adaptive*), as in k-diffusion. Both go from
//! `sigma_max` down to `sigma_min`, which is positive, and not on to 0.

use super::flow::rms;
use super::karras::{Stochastic, ancestral_step, direction};
use super::{Model, State, Step, Stop};

/// The steps of one interval, with the noise level at its start.
struct Solver<'m, M> {
    model: &'m mut M,
    /// Noise level at the start of the step.
    start: f64,
}

impl<M: Model> Solver<'_, M> {
    /// ε̂ = (x − D)/σ at `t`.
    async fn eps(&mut self, x: &State, t: f64) -> Result<State, Stop> {
        let sigma = (-t).exp();
        let denoised = self.model.predict(x.clone(), sigma, self.start).await?;
        Ok(direction(x, denoised, sigma))
    }

    fn first(x: &State, t: f64, next: f64, eps: &State) -> State {
        x.clone() - eps.clone() * ((-next).exp() * (next - t).exp_m1())
    }

    /// Second order, with the prediction at the intermediate point `t + r1·h`.
    async fn second(
        &mut self,
        x: &State,
        t: f64,
        next: f64,
        eps: &State,
        r1: f64,
    ) -> Result<(State, State), Stop> {
        let h = next - t;
        let s1 = t + r1 * h;
        let u1 = Self::first(x, t, s1, eps);
        let eps_1 = self.eps(&u1, s1).await?;
        let correction = (eps_1.clone() - eps.clone()) * ((-next).exp() / (2.0 * r1) * h.exp_m1());
        Ok((Self::first(x, t, next, eps) - correction, eps_1))
    }

    /// Third order; `known` is the prediction at `t + h/3` where it was already computed.
    async fn third(
        &mut self,
        x: &State,
        t: f64,
        next: f64,
        eps: &State,
        known: Option<State>,
    ) -> Result<State, Stop> {
        const R1: f64 = 1.0 / 3.0;
        const R2: f64 = 2.0 / 3.0;
        let h = next - t;
        let (s1, s2) = (t + R1 * h, t + R2 * h);
        let eps_1 = match known {
            Some(eps_1) => eps_1,
            None => {
                let u1 = Self::first(x, t, s1, eps);
                self.eps(&u1, s1).await?
            }
        };
        let bend = |h: f64| h.exp_m1() / h - 1.0;
        let u2 = Self::first(x, t, s2, eps)
            - (eps_1 - eps.clone()) * ((-s2).exp() * (R2 / R1) * bend(R2 * h));
        let eps_2 = self.eps(&u2, s2).await?;
        Ok(Self::first(x, t, next, eps) - (eps_2 - eps.clone()) * ((-next).exp() / R2 * bend(h)))
    }
}

/// The time to step to so that noise of the returned standard deviation completes `next`.
fn solver_noise(t: f64, next: f64, t_end: f64, eta: f64) -> (f64, f64) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let (down, _) = ancestral_step((-t).exp(), (-next).exp(), eta);
    let target = t_end.min(-down.ln());
    let variance = (-2.0 * next).exp() - (-2.0 * target).exp();
    (target, variance.max(0.0).sqrt())
}

/// A state with so much of a draw; none is drawn, and sent to a GPU, for nothing.
fn noised<M: Model>(model: &mut M, x: State, draw: usize, amount: f64) -> State {
    if amount == 0.0 { x } else { x + model.noise(draw) * amount }
}

/// DPM-Solver-fast: `nfe` evaluations in steps of order 3 with a shorter end.
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
/// If `nfe` is 0.
pub async fn dpm_fast<M: Model>(
    model: &mut M,
    mut x: State,
    sigma_min: f64,
    sigma_max: f64,
    nfe: usize,
    noise: Stochastic,
) -> Result<State, Stop> {
    let (t_start, t_end) = (-sigma_max.ln(), -sigma_min.ln());
    let steps = nfe / 3 + 1;
    let ts = crate::diffusion::flow::linspace(t_start, t_end, steps + 1);
    let orders: Vec<usize> = if nfe.is_multiple_of(3) {
        std::iter::repeat_n(3, steps - 2).chain([2, 1]).collect()
    } else {
        std::iter::repeat_n(3, steps - 1).chain([nfe % 3]).collect()
    };
    for (i, order) in orders.into_iter().enumerate() {
        let (t, next) = (ts[i], ts[i + 1]);
        let (target, deviation) = solver_noise(t, next, t_end, noise.eta);
        let mut solver = Solver { model, start: (-t).exp() };
        let eps = solver.eps(&x, t).await?;
        report_solver(solver.model, i, Some(steps), t, &x, &eps).await?;
        x = match order {
            1 => Solver::<M>::first(&x, t, target, &eps),
            2 => solver.second(&x, t, target, &eps, 0.5).await?.0,
            _ => solver.third(&x, t, target, &eps, None).await?,
        };
        x = noised(model, x, i, deviation * noise.s_noise);
    }
    Ok(x)
}

async fn report_solver<M: Model>(
    model: &mut M,
    index: usize,
    total: Option<usize>,
    t: f64,
    x: &State,
    eps: &State,
) -> Result<(), Stop> {
    let sigma = (-t).exp();
    let clean = x.clone() - eps.clone() * sigma;
    model.on_step(Step { index, total, time: sigma, state: x, clean: &clean }).await
}

/// Settings of [`dpm_adaptive`].
#[derive(Clone, Copy, Debug)]
pub struct Adaptive {
    /// 2 or 3.
    pub order: usize,
    /// Relative tolerance, 0 or more.
    pub rtol: f64,
    /// Absolute tolerance, in units of the state; positive.
    pub atol: f64,
    /// First step in −ln σ, positive.
    pub h_init: f64,
    /// Proportional gain of the step controller.
    pub pcoeff: f64,
    /// Integral gain.
    pub icoeff: f64,
    /// Differential gain.
    pub dcoeff: f64,
    /// A step is accepted if the controller would not shrink it below this factor, in 0…1.
    pub accept_safety: f64,
    /// Noise.
    pub noise: Stochastic,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            order: 3,
            rtol: 0.05,
            atol: 0.0078,
            h_init: 0.05,
            pcoeff: 0.0,
            icoeff: 1.0,
            dcoeff: 0.0,
            accept_safety: 0.81,
            noise: Stochastic { eta: 0.0, s_noise: 1.0 },
        }
    }
}

/// What an adaptive run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdaptiveInfo {
    /// Steps tried.
    pub steps: usize,
    /// Evaluations counted as the reference does: `order` a step.
    pub nfe: usize,
    /// Steps kept.
    pub accepted: usize,
    /// Steps tried again.
    pub rejected: usize,
}

/// DPM-Solver with embedded orders and a PID step controller.
///
/// As in k-diffusion the images of a batch share their steps, which the error of all of them decides.
/// [`Pipeline::generate`](crate::generate::Pipeline::generate) gives it one image at a time.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// * [`Stop::NotFinite`] where a prediction is not finite
/// * [`Stop::Device`] where the error cannot be read from the device
/// * what [`Model::predict`] and [`Model::on_step`] fail with
pub async fn dpm_adaptive<M: Model>(
    model: &mut M,
    mut x: State,
    sigma_min: f64,
    sigma_max: f64,
    options: Adaptive,
) -> Result<(State, AdaptiveInfo), Stop> {
    let Adaptive { order, rtol, atol, noise, accept_safety, .. } = options;
    let (t_start, t_end) = (-sigma_max.ln(), -sigma_min.ln());
    let mut pid = Pid::new(&options);
    let mut info = AdaptiveInfo::default();
    let mut t = t_start;
    let mut previous_low = x.clone();
    let mut draws = 0;
    while t < t_end - 1e-5 {
        let next = t_end.min(t + pid.h);
        let (target, deviation) = solver_noise(t, next, t_end, noise.eta);
        let mut solver = Solver { model, start: (-t).exp() };
        let eps = solver.eps(&x, t).await?;
        report_solver(solver.model, info.steps, None, t, &x, &eps).await?;
        let (low, high) = if order == 2 {
            let (high, _) = solver.second(&x, t, target, &eps, 0.5).await?;
            (Solver::<M>::first(&x, t, target, &eps), high)
        } else {
            let (low, eps_1) = solver.second(&x, t, target, &eps, 1.0 / 3.0).await?;
            let high = solver.third(&x, t, target, &eps, Some(eps_1)).await?;
            (low, high)
        };
        let delta = (low.clone().abs().max_pair(previous_low.clone().abs()) * rtol).clamp_min(atol);
        let error = rms((low.clone() - high.clone()) / delta).await?;
        if !error.is_finite() {
            return Err(Stop::NotFinite);
        }
        info.steps += 1;
        info.nfe += order;
        if pid.propose(error, accept_safety) {
            previous_low = low;
            x = noised(model, high, draws, deviation * noise.s_noise);
            draws += 1;
            t = next;
            info.accepted += 1;
        } else {
            info.rejected += 1;
        }
    }
    Ok((x, info))
}

/// The step-size controller of [`dpm_adaptive`].
struct Pid {
    h: f64,
    exponents: [f64; 3],
    inverse_errors: Option<[f64; 3]>,
}

impl Pid {
    fn new(options: &Adaptive) -> Self {
        let Adaptive { order, h_init, pcoeff: p, icoeff: i, dcoeff: d, noise, .. } = *options;
        let k = if noise.eta == 0.0 { order as f64 } else { 1.5 };
        Self {
            h: h_init,
            exponents: [(p + i + d) / k, -(p + 2.0 * d) / k, d / k],
            inverse_errors: None,
        }
    }

    /// Takes the error of a step, sets the next step size, and says whether to keep the step.
    fn propose(&mut self, error: f64, accept_safety: f64) -> bool {
        let inverse = 1.0 / (error + 1e-8);
        let history = self.inverse_errors.get_or_insert([inverse; 3]);
        history[0] = inverse;
        let product: f64 =
            history.iter().zip(self.exponents).map(|(error, b)| error.powf(b)).product();
        let factor = 1.0 + (product - 1.0).atan();
        let accept = factor >= accept_safety;
        if accept {
            history[2] = history[1];
            history[1] = history[0];
        }
        self.h *= factor;
        accept
    }
}
