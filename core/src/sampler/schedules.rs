//! Noise levels σ for Karras samplers: `n` of them, descending, and a final 0. `sigma_min` and
//! `sigma_max` are positive.

use crate::diffusion::flow::linspace;

/// `(σmax^{1/ρ} + r·(σmin^{1/ρ} − σmax^{1/ρ}))^ρ` (Karras et al. 2022, eq. 5).
pub fn karras(n: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Vec<f64> {
    let (low, high) = (sigma_min.powf(1.0 / rho), sigma_max.powf(1.0 / rho));
    finish(linspace(0.0, 1.0, n).into_iter().map(|r| (high + r * (low - high)).powf(rho)))
}

/// Even in ln σ.
pub fn exponential(n: usize, sigma_min: f64, sigma_max: f64) -> Vec<f64> {
    finish(linspace(sigma_max.ln(), sigma_min.ln(), n).into_iter().map(f64::exp))
}

/// `exp(r^ρ·ln(σmax/σmin) + ln σmin)`, r from 1 to 0.
pub fn polyexponential(n: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Vec<f64> {
    let range = sigma_max.ln() - sigma_min.ln();
    finish(linspace(1.0, 0.0, n).into_iter().map(|r| (r.powf(rho) * range + sigma_min.ln()).exp()))
}

/// The variance-preserving SDE's: `√(exp(β_d t²/2 + β_min t) − 1)`, t from 1 to `eps_s`.
pub fn vp(n: usize, beta_d: f64, beta_min: f64, eps_s: f64) -> Vec<f64> {
    finish(
        linspace(1.0, eps_s, n)
            .into_iter()
            .map(|t| ((beta_d * t * t / 2.0 + beta_min * t).exp() - 1.0).sqrt()),
    )
}

fn finish(levels: impl Iterator<Item = f64>) -> Vec<f64> {
    levels.chain([0.0]).collect()
}
