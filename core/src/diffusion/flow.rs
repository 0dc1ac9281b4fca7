//! Flow paths between data (t = 0) and noise (t = 1): `x_t = α x + σ ε` (SiT, arXiv 2401.08740).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

/// How data turns into noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolant {
    /// `α = 1 − t`, `σ = t`
    #[default]
    Linear,
    /// `α = cos(πt/2)`, `σ = sin(πt/2)`
    Cosine,
}

/// α, σ and their derivatives at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Share of the data.
    pub alpha: f64,
    /// Share of the noise.
    pub sigma: f64,
    /// dα/dt
    pub d_alpha: f64,
    /// dσ/dt
    pub d_sigma: f64,
}

impl Interpolant {
    /// The path at time `t` in 0…1.
    pub fn at(self, t: f64) -> Coefficients {
        match self {
            Interpolant::Linear => {
                Coefficients { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
            }
            Interpolant::Cosine => {
                let (sin, cos) = (t * FRAC_PI_2).sin_cos();
                Coefficients {
                    alpha: cos,
                    sigma: sin,
                    d_alpha: -FRAC_PI_2 * sin,
                    d_sigma: FRAC_PI_2 * cos,
                }
            }
        }
    }

    /// `x_t` and the velocity target `dα·x + dσ·ε`, one time a sample.
    ///
    /// # Shapes
    ///
    /// * `x`, `eps`: `[B, C, H, W]`
    /// * `t`: `[B]` in 0…1 (1 is noise)
    /// * returns `[B, C, H, W]` twice
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn interpolate(self, x: Tensor<4>, eps: Tensor<4>, t: Tensor<1>) -> (Tensor<4>, Tensor<4>) {
        let t: Tensor<4> = t.reshape([-1, 1, 1, 1]);
        match self {
            Interpolant::Linear => {
                let x_t = x.clone() * (-t.clone() + 1.0) + eps.clone() * t;
                (x_t, eps - x)
            }
            Interpolant::Cosine => {
                let angle = t * FRAC_PI_2;
                let (cos, sin) = (angle.clone().cos(), angle.sin());
                let x_t = x.clone() * cos.clone() + eps.clone() * sin.clone();
                (x_t, eps * cos * FRAC_PI_2 - x * sin * FRAC_PI_2)
            }
        }
    }

    /// The score `∇ log p_t(x)` from a velocity: `(r·v − x)/(σ² − r·dσ·σ)` with `r = α/dα`.
    ///
    /// It is not finite at t = 0, where there is no noise.
    ///
    /// # Shapes
    ///
    /// * `x`, `v`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn score(self, x: Tensor<4>, v: Tensor<4>, t: f64) -> Tensor<4> {
        let Coefficients { alpha, sigma, d_alpha, d_sigma } = self.at(t);
        let r = alpha / d_alpha;
        let variance = sigma * sigma - r * d_sigma * sigma;
        (v * r - x) / variance
    }

    /// The clean image that a velocity points to: `(dσ·x − σ·v)/(α·dσ − dα·σ)`.
    ///
    /// # Shapes
    ///
    /// * `x`, `v`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn clean(self, x: Tensor<4>, v: Tensor<4>, t: f64) -> Tensor<4> {
        let Coefficients { alpha, sigma, d_alpha, d_sigma } = self.at(t);
        (x * d_sigma - v * sigma) / (alpha * d_sigma - d_alpha * sigma)
    }
}

/// `n` evenly spaced values from `start` to `end`, both included, symmetric in rounding: the
/// second half counts back from the end, as torch does.
pub fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    if n < 2 {
        return vec![start; n];
    }
    let step = (end - start) / (n - 1) as f64;
    let value = |i: usize| {
        if i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 }
    };
    (0..n).map(value).collect()
}

/// Times of the ODE samplers: `steps` even steps from noise (1) to data (0), `steps + 1` values.
pub fn ode_times(steps: usize) -> Vec<f64> {
    linspace(1.0, 0.0, steps + 1)
}

/// Times of Euler–Maruyama: even from 1 (noise) to 0.04 in `steps` values, then a jump to 0.
pub fn sde_times(steps: usize) -> Vec<f64> {
    let mut times = linspace(1.0, 0.04, steps);
    times.push(0.0);
    times
}

/// LightningDiT's grid of `points` times **on its own clock** (0 is noise, 1 is data) in float32,
/// shifted towards the noise by `t' = s·t/(1 + (s − 1)·t)`; no shift where `shift` is 0.
pub fn shifted_grid(points: usize, shift: f64) -> Vec<f32> {
    // linspace in float32, as the reference computes it
    let step = 1.0f32 / (points.max(2) - 1) as f32;
    let linear = (0..points).map(|i| {
        if i < points / 2 { step * i as f32 } else { 1.0 - step * (points - 1 - i) as f32 }
    });
    // Shifts at the ends of float32 would give infinity or NaN.
    let s = (shift as f32).min(f32::MAX);
    let shifted = |u: f32| (s * u / (1.0 + (s - 1.0) * u)).min(1.0);
    if s > 0.0 { linear.map(shifted).collect() } else { linear.collect() }
}

/// The same grid on this library's clock (1 is noise), in float64 without loss.
pub fn shifted_times(points: usize, shift: f64) -> Vec<f64> {
    shifted_grid(points, shift).into_iter().map(|t| 1.0 - t as f64).collect()
}

/// RAE's grid of `points` times on this library's clock (1 is noise), which ends at `last` above 0 before its shift: even
/// in float32, then `t' = s·t/(1 + (s − 1)·t)` with `s = 1/shift`; no shift where `shift` is 0.
pub fn early_times(points: usize, last: f64, shift: f64) -> Vec<f64> {
    let end = (1.0 - last) as f32;
    let step = end / (points.max(2) - 1) as f32;
    let s = if shift > 0.0 { (1.0 / shift).min(f64::from(f32::MAX)) as f32 } else { 1.0 };
    let time = |i: usize| {
        let u = if i < points / 2 { step * i as f32 } else { end - step * (points - 1 - i) as f32 };
        let t = 1.0 - u;
        f64::from((s * t / (1.0 + (s - 1.0) * t)).min(1.0))
    };
    (0..points).map(time).collect()
}

/// How training draws times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDensity {
    /// Uniform in 0…1.
    #[default]
    Uniform,
    /// `σ = exp(N(0, 1))`, the ratio of noise to data, moved onto the path.
    Lognormal,
}

impl TimeDensity {
    /// A time from a uniform number in 0…1 and a standard normal one.
    pub fn sample(self, path: Interpolant, uniform: f64, normal: f64) -> f64 {
        match (self, path) {
            (TimeDensity::Uniform, _) => uniform,
            (TimeDensity::Lognormal, Interpolant::Linear) => logit_normal(normal, 0.0, 1.0),
            (TimeDensity::Lognormal, Interpolant::Cosine) => normal.exp().atan() / FRAC_PI_2,
        }
    }
}

/// `sigmoid(μ + σ·n)` of a standard normal `n` (LightningDiT §8).
pub fn logit_normal(normal: f64, mu: f64, sigma: f64) -> f64 {
    1.0 / (1.0 + (-(mu + sigma * normal)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_have_the_published_numbers_of_evaluations() {
        assert_eq!(ode_times(50).len(), 51);
        let sde = sde_times(50);
        assert_eq!((sde.len(), sde[0], sde[49], sde[50]), (51, 1.0, 0.04, 0.0));
        assert_eq!(shifted_grid(250, 0.3).len(), 250);
        assert_eq!((shifted_grid(9, 0.3)[0], shifted_grid(9, 0.3)[8]), (0.0, 1.0));
    }

    /// The published grids of RAE at 256² and 512², by their first and last times.
    #[test]
    fn early_grids_end_where_published() {
        for (dimensions, last) in [(196_608.0f64, 0.006_887), (786_432.0, 0.013_680)] {
            let times = early_times(50, 0.001, (4096.0 / dimensions).sqrt());
            assert_eq!((times.len(), times[0]), (50, 1.0));
            assert!((times[49] - last).abs() < 1e-6, "{}", times[49]);
            assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
        }
        assert!((early_times(50, 0.001, 0.0)[49] - 0.001).abs() < 1e-7);
        let extreme = early_times(9, 0.001, 1e-60);
        assert!(extreme.iter().all(|t| (0.0..=1.0).contains(t)), "{extreme:?}");
    }

    #[test]
    fn no_shift_leads_out_of_the_times() {
        for shift in [1e-30, 1e-9, 0.3, 1.0, 1e9, 1e39] {
            let grid = shifted_grid(9, shift);
            assert_eq!((grid[0], grid[8]), (0.0, 1.0), "{shift}");
            assert!(grid.is_sorted(), "{shift}: {grid:?}");
        }
    }

    #[test]
    fn linear_path_score_is_the_short_formula() {
        let device = Default::default();
        let x = Tensor::<4>::from_floats([[[[0.3f32, -1.2]]]], &device);
        let v = Tensor::<4>::from_floats([[[[0.7f32, 0.1]]]], &device);
        let t = 0.35;
        let short = -(x.clone() + v.clone() * (1.0 - t)) / t;
        Interpolant::Linear
            .score(x, v, t)
            .into_data()
            .assert_approx_eq::<f32>(&short.into_data(), Default::default());
    }
}
