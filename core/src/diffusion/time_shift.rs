//! Times of RAE's diffusion (arXiv 2510.11690): shifted by the dimension of the latents, and drawn in training from a
//! truncated logit-normal distribution. Times are on this library's clock, 1 is noise.

use std::f64::consts::SQRT_2;

use super::flow::logit_normal;
use super::karras::inverse_normal_cdf;

/// The dimension without a shift.
pub const BASE_DIMENSION: f64 = 4096.0;

/// The shift `s = √(dim/base)` of states of so many values (Esser et al., arXiv 2403.03206); both are positive.
pub fn dimension_shift(dim: f64, base: f64) -> f64 {
    (dim / base).sqrt()
}

/// `s·t/(1 + (s − 1)·t)` of a time in 0…1, with s > 0: above 1 it moves times towards the noise.
pub fn shift_time(t: f64, s: f64) -> f64 {
    s * t / (1.0 + (s - 1.0) * t)
}

/// The time in 0…`high` of a uniform number in 0…1, as `sigmoid(μ + σ·n)` of a normal n has it where it is at most
/// `high`; σ is positive and `high` between 0 and 1.
pub fn truncated_logit_normal(uniform: f64, mu: f64, sigma: f64, high: f64) -> f64 {
    let logit = (high / (1.0 - high)).ln();
    let share = uniform * normal_cdf((logit - mu) / sigma);
    if share <= 0.0 {
        return 0.0;
    }
    logit_normal(inverse_normal_cdf(share), mu, sigma).min(high)
}

/// Φ, the share of a normal distribution below a number.
fn normal_cdf(x: f64) -> f64 {
    libm::erfc(-x / SQRT_2) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::flow::early_times;

    #[test]
    fn published_sizes_have_the_published_shifts() {
        for (dimension, s) in
            [(196_608.0, 6.928_203_230_275_509), (786_432.0, 13.856_406_460_551_018)]
        {
            let found = dimension_shift(dimension, BASE_DIMENSION);
            assert!((found - s).abs() < 1e-14, "{found}");
            // The grid of sampling is that of training.
            let grid = early_times(50, 0.001, 1.0 / found);
            for (i, t) in grid.into_iter().enumerate() {
                let even = 1.0 - 0.999 * i as f64 / 49.0;
                assert!((t - shift_time(even, found)).abs() < 2e-6, "{i}: {t}");
            }
        }
    }

    #[test]
    fn truncated_times_are_quantiles_of_what_is_left() {
        let time = |uniform, high| truncated_logit_normal(uniform, 0.0, 1.0, high);
        // Half of all draws are below 0.5, so half of these have a quarter of all below them.
        let quarter = logit_normal(-0.674_489_750_196_081_7, 0.0, 1.0);
        assert!((time(0.5, 0.5) - quarter).abs() < 1e-12);
        assert!((time(1.0, 0.999) - 0.999).abs() < 1e-7 && time(1.0, 0.999) <= 0.999);
        assert_eq!(time(0.0, 0.999), 0.0);
        let times: Vec<f64> = (1..100).map(|i| time(f64::from(i) / 100.0, 0.999)).collect();
        assert!(times.is_sorted() && times.iter().all(|t| *t > 0.0 && *t < 0.999), "{times:?}");
        // μ moves them, σ spreads them.
        let of = |mu, sigma| truncated_logit_normal(0.5, mu, sigma, 0.999);
        assert!(of(-0.5, 1.0) < of(0.0, 1.0) && of(0.5, 1.0) > of(0.0, 1.0));
    }
}
