//! Grids of times for flows: `steps + 1` of them, from 1 (noise) down to 0 (data). Even ones are
//! [`ode_times`](crate::diffusion::flow::ode_times), and LightningDiT's
//! [`shifted_times`](crate::diffusion::flow::shifted_times).

use super::schedules;
use crate::diffusion::flow::{linspace, logit_normal as logistic};
use crate::diffusion::karras::inverse_normal_cdf;

/// Quantiles of the logit-normal distribution that flows are trained with (Esser et al., arXiv 2403.03206): the
/// times lie as densely as training drew them.
pub fn logit_normal(steps: usize, mu: f64, sigma: f64) -> Vec<f64> {
    let quantile = |share: f64| match share {
        share if share >= 1.0 => 1.0,
        share if share <= 0.0 => 0.0,
        share => logistic(inverse_normal_cdf(share), mu, sigma),
    };
    linspace(1.0, 0.0, steps + 1).into_iter().map(quantile).collect()
}

/// Karras et al.'s noise levels as ratios `σ/α = t/(1 − t)`. The first is pure noise, which has no ratio, so
/// that `sigma_max` says where the second and the next ones lie.
pub fn karras(steps: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Vec<f64> {
    let levels = schedules::karras(steps, sigma_min, sigma_max, rho);
    let mut times: Vec<f64> = levels.into_iter().map(|ratio| ratio / (1.0 + ratio)).collect();
    if let Some(first) = times.first_mut() {
        *first = 1.0;
    }
    times
}

/// LightningDiT's shift of any times, `s·u/(1 + (s − 1)·u)` on its clock `u = 1 − t`, for `s` > 0: below 1 moves them
/// towards the noise.
pub fn shifted(times: &[f64], s: f64) -> Vec<f64> {
    times.iter().map(|t| t / (t + s * (1.0 - t))).collect()
}

/// The grid with its time nearest to a gate moved to the first number below it, where the gate is open
/// ([`HiDiT::gate`](crate::model::hidit::HiDiT::gate) compares in float32). The ends stay: where one of them is the
/// nearest, so does the grid.
pub fn through_gate(mut times: Vec<f64>, tau: f64) -> Vec<f64> {
    let distance = |t: &f64| (t - tau).abs();
    let nearest =
        (0..times.len()).min_by(|&a, &b| distance(&times[a]).total_cmp(&distance(&times[b])));
    if let Some(nearest) = nearest.filter(|&i| 0 < i && i + 1 < times.len()) {
        times[nearest] = f64::from((tau as f32).next_down());
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::flow::{ode_times, shifted_times};

    #[test]
    fn grids_descend_from_noise_to_data() {
        for steps in [1, 2, 8, 50, 10_000] {
            for times in [logit_normal(steps, 0.0, 1.0), karras(steps, 0.002, 80.0, 7.0)] {
                assert_eq!(times.len(), steps + 1);
                assert_eq!((times[0], times[steps]), (1.0, 0.0));
                assert!(times.is_sorted_by(|before, after| before > after), "{steps}");
            }
        }
    }

    #[test]
    fn times_lie_where_the_grid_wants_them() {
        let times = logit_normal(4, 0.0, 1.0);
        // Φ⁻¹(3/4) = 0.67449
        let expected = 1.0 / (1.0 + (-0.674_489_750_196_081_7_f64).exp());
        assert!((times[1] - expected).abs() < 1e-12 && (times[2] - 0.5).abs() < 1e-12);
        assert!((times[1] + times[3] - 1.0).abs() < 1e-12);
        let ratio = |t: f64| t / (1.0 - t);
        let times = karras(3, 0.01, 10.0, 1.0); // levels 10, 5.005, 0.01, even for ρ = 1
        assert!((ratio(times[1]) - 5.005).abs() < 1e-12 && (ratio(times[2]) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn a_shift_is_that_of_lightningdit() {
        let here = shifted(&ode_times(20), 0.3);
        for (a, b) in here.iter().zip(shifted_times(21, 0.3)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        assert_eq!((here[0], here[20]), (1.0, 0.0));
    }

    #[test]
    fn one_time_is_moved_to_the_gate() {
        let open = |t: f64, tau: f64| (t as f32) < tau as f32;
        for (tau, at) in [(0.3, 6), (0.26, 6), (0.5, 4), (0.9, 1)] {
            let times = through_gate(ode_times(8), tau);
            assert!((times[at] - tau).abs() < 1e-7 && open(times[at], tau), "{tau}: {times:?}");
            assert!(!open(times[at - 1], tau), "{tau}");
            assert!(times.is_sorted_by(|before, after| before > after), "{tau}: {times:?}");
            let moved = times.iter().zip(ode_times(8)).filter(|(a, b)| **a != *b).count();
            assert_eq!(moved, 1, "{tau}");
        }
        for tau in [0.0, 0.05, 0.97, 1.0] {
            assert_eq!(through_gate(ode_times(8), tau), ode_times(8), "{tau}");
        }
    }
}
