//! Samplers of flow models: the state goes from t = 1 (noise) to t = 0 (data), so `times` descend. They are
//! on this library's clock; a network with another one is asked in its own by the [`Model`].

use super::{Model, State, Step, Stop, read};
use crate::diffusion::flow::Interpolant;

/// Euler's method: `x ← x + (t' − t)·v`.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`Model::predict`] and [`Model::on_step`] fail with.
pub async fn euler<M: Model>(
    model: &mut M,
    mut x: State,
    times: &[f64],
    path: Interpolant,
) -> Result<State, Stop> {
    for (index, pair) in times.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let v = model.predict(x.clone(), t, t).await?;
        report(model, index, times.len() - 1, t, &x, &v, path).await?;
        x = x + v * (next - t);
    }
    Ok(x)
}

/// Heun's method: Euler corrected by the trapezoid on every step but the last (SiT's `--heun`).
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
/// If `times` is empty and the build checks overflow.
pub async fn heun<M: Model>(
    model: &mut M,
    mut x: State,
    times: &[f64],
    path: Interpolant,
) -> Result<State, Stop> {
    let steps = times.len() - 1;
    for (index, pair) in times.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let v = model.predict(x.clone(), t, t).await?;
        report(model, index, steps, t, &x, &v, path).await?;
        let ahead = x.clone() + v.clone() * (next - t);
        x = if index + 1 < steps {
            let corrected = model.predict(ahead, next, t).await?;
            x + (v + corrected) * (0.5 * (next - t))
        } else {
            ahead
        };
    }
    Ok(x)
}

/// Euler–Maruyama on the reverse SDE with diffusion `w_t = 2t` (SiT §2.4; `sit_repa` §6): drift
/// `v − w/2·score`, noise `√(w·|dt|)·ε`; the last step adds none but keeps the score.
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
/// If `times` is empty and the build checks overflow.
pub async fn euler_maruyama<M: Model>(
    model: &mut M,
    mut x: State,
    times: &[f64],
    path: Interpolant,
) -> Result<State, Stop> {
    let steps = times.len() - 1;
    for (index, pair) in times.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let eps = (index + 1 < steps).then(|| model.noise(index));
        let v = model.predict(x.clone(), t, t).await?;
        report(model, index, steps, t, &x, &v, path).await?;
        x = maruyama_step(x, v, t, next, eps, path);
    }
    Ok(x)
}

/// One step of [`euler_maruyama`]; without `eps` the step is deterministic.
pub(super) fn maruyama_step(
    x: State,
    v: State,
    t: f64,
    next: f64,
    eps: Option<State>,
    path: Interpolant,
) -> State {
    let (w, dt) = (2.0 * t, next - t);
    let drift = v.clone() - path.score(x.clone(), v, t) * (0.5 * w);
    let x = x + drift * dt;
    match eps {
        Some(eps) => x + eps * (w.sqrt() * dt.abs().sqrt()),
        None => x,
    }
}

async fn report<M: Model>(
    model: &mut M,
    index: usize,
    total: usize,
    t: f64,
    x: &State,
    v: &State,
    path: Interpolant,
) -> Result<(), Stop> {
    let clean = path.clean(x.clone(), v.clone(), t);
    model.on_step(Step { index, total: Some(total), time: t, state: x, clean: &clean }).await
}

/// Tolerances of [`dopri5`].
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Relative to the state, 0 or more.
    pub relative: f64,
    /// Absolute, in units of the state; positive.
    pub absolute: f64,
}

/// The adaptive Dormand–Prince method of order 5(4) with torchdiffeq's step control and dense
/// output; returns the state at every one of `times` (monotone), the first included.
///
/// As in torchdiffeq the images of a batch share their steps, which the error of all of them decides.
/// [`Pipeline::generate`](crate::generate::Pipeline::generate) gives it one image at a time.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns the same for each time
///
/// # Errors
///
/// * [`Stop::NotFinite`] where a prediction is not finite
/// * [`Stop::Device`] where the error cannot be read from the device
/// * what [`Model::predict`] and [`Model::on_step`] fail with
///
/// # Panics
///
/// If `times` is empty.
pub async fn dopri5<M: Model>(
    model: &mut M,
    x: State,
    times: &[f64],
    tolerance: Tolerance,
) -> Result<Vec<State>, Stop> {
    let direction = (times[times.len() - 1] - times[0]).signum();
    let Tolerance { relative, absolute } = tolerance;
    let mut t = times[0];
    let mut y = x;
    let mut f = model.predict(y.clone(), t, t).await?;
    let mut h = initial_step(model, t, direction, &y, &f, tolerance).await?;
    // An infinite slope leaves no step, and steps of 0 would never end.
    if !h.is_finite() || h == 0.0 {
        return Err(Stop::NotFinite);
    }
    let mut out = vec![y.clone()];
    let mut index = 0;
    while out.len() < times.len() {
        let clean = Interpolant::Linear.clean(y.clone(), f.clone(), t);
        model.on_step(Step { index, total: None, time: t, state: &y, clean: &clean }).await?;
        index += 1;
        let dt = h * direction;
        let mut k = vec![f.clone()];
        let mut end = y.clone();
        for (a, c) in STAGES {
            end = y.clone() + weighted(&k, a) * dt;
            let at = t + c * dt;
            k.push(model.predict(end.clone(), at, at).await?);
        }
        let error = weighted(&k, &ERROR) * dt;
        let scale = y.clone().abs().max_pair(end.clone().abs()) * relative + absolute;
        let ratio = rms(error / scale).await?;
        if !ratio.is_finite() {
            return Err(Stop::NotFinite);
        }
        if ratio <= 1.0 {
            let ahead = t + dt;
            while out.len() < times.len() && (ahead - times[out.len()]) * direction >= 0.0 {
                let at = (times[out.len()] - t) / dt;
                out.push(y.clone() + weighted(&k, &between(at)) * dt);
            }
            (t, y, f) = (ahead, end, k.swap_remove(6));
        }
        h *= if ratio == 0.0 {
            10.0
        } else {
            let slowest = if ratio < 1.0 { 1.0 } else { 0.2 };
            (0.9 / ratio.powf(0.2)).max(slowest).min(10.0)
        };
    }
    Ok(out)
}

/// Hairer's choice of the first step.
async fn initial_step<M: Model>(
    model: &mut M,
    t: f64,
    direction: f64,
    y: &State,
    f: &State,
    tolerance: Tolerance,
) -> Result<f64, Stop> {
    let scale = y.clone().abs() * tolerance.relative + tolerance.absolute;
    let d0 = rms(y.clone() / scale.clone()).await?;
    let d1 = rms(f.clone() / scale.clone()).await?;
    let h0 = if d0 < 1e-5 || d1 < 1e-5 { 1e-6 } else { 0.01 * d0 / d1 };
    let at = t + h0 * direction;
    let ahead = model.predict(y.clone() + f.clone() * (h0 * direction), at, at).await?;
    let d2 = rms((ahead - f.clone()) / scale).await? / h0;
    let h1 = if d1 <= 1e-15 && d2 <= 1e-15 {
        (h0 * 1e-3).max(1e-6)
    } else {
        (0.01 / d1.max(d2)).powf(0.2)
    };
    Ok(h1.min(100.0 * h0))
}

/// Weights of the stages at `x` in 0…1 of a step: the quartic through both ends, their slopes and the middle. Ends and
/// middle are sums over stages; as tensors they would be weighted by up to 32, and cancel.
fn between(x: f64) -> [f64; 7] {
    let (ends, _) = STAGES[5];
    std::array::from_fn(|stage| {
        let (first, last) = (f64::from(stage == 0), f64::from(stage == 6));
        let (end, middle) = (ends.get(stage).copied().unwrap_or(0.0), MIDDLE[stage]);
        let fourth = 2.0 * (last - first) - 8.0 * end + 16.0 * middle;
        let third = 5.0 * first - 3.0 * last + 14.0 * end - 32.0 * middle;
        let second = last - 4.0 * first - 5.0 * end + 16.0 * middle;
        x * (first + x * (second + x * (third + x * fourth)))
    })
}

/// The sum of tensors by their weights; those of weight 0 are left out.
pub(super) fn weighted(k: &[State], weights: &[f64]) -> State {
    let terms = k.iter().zip(weights).filter(|(_, w)| **w != 0.0);
    let sum = terms.map(|(k, w)| k.clone() * *w).reduce(|a, b| a + b);
    sum.unwrap_or_else(|| k[0].zeros_like())
}

pub(super) async fn rms(x: State) -> Result<f64, Stop> {
    let mean = read(x.square().mean()).await?;
    Ok(mean.iter::<f64>().next().expect("a mean is one number").sqrt())
}

/// Coefficients and times of the stages after the first; the last is also the solution.
const STAGES: [(&[f64], f64); 6] = [
    (&[1.0 / 5.0], 1.0 / 5.0),
    (&[3.0 / 40.0, 9.0 / 40.0], 3.0 / 10.0),
    (&[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0], 4.0 / 5.0),
    (&[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0], 8.0 / 9.0),
    (&[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0], 1.0),
    (&[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0], 1.0),
];

/// Fifth-order minus fourth-order solution.
const ERROR: [f64; 7] = [
    35.0 / 384.0 - 1951.0 / 21600.0,
    0.0,
    500.0 / 1113.0 - 22642.0 / 50085.0,
    125.0 / 192.0 - 451.0 / 720.0,
    -2187.0 / 6784.0 + 12231.0 / 42400.0,
    11.0 / 84.0 - 649.0 / 6300.0,
    -1.0 / 60.0,
];

/// The solution in the middle of a step.
const MIDDLE: [f64; 7] = [
    6025192743.0 / 30085553152.0 / 2.0,
    0.0,
    51252292925.0 / 65400821598.0 / 2.0,
    -2691868925.0 / 45128329728.0 / 2.0,
    187940372067.0 / 1594534317056.0 / 2.0,
    -1776094331.0 / 19743644256.0 / 2.0,
    11237099.0 / 235043384.0 / 2.0,
];
