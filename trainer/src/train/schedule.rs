//! Learning rates over the steps of a run: functions of the step alone, so that a run resumes exactly.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It does not.
    #[default]
    Constant,
    /// Half a cosine (Loshchilov & Hutter, arXiv 1608.03983).
    Cosine,
    /// A straight line.
    Linear,
}

impl Schedule {
    /// The learning rate after `done` of `total` steps, between `first` and `last`; `last` from then on.
    pub fn rate(self, first: f64, last: f64, done: u64, total: u64) -> f64 {
        let share = if done < total { done as f64 / total as f64 } else { 1.0 };
        let left = match self {
            Self::Constant => return first,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Self::Linear => 1.0 - share,
        };
        last + (first - last) * left
    }
}

/// Where a linear warm-up begins, which ends at the full learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarmUp {
    /// At `lr/warmup_steps`: step n (from 0) has `lr·(n+1)/warmup_steps`.
    #[default]
    Step,
    /// At 0, as in JiT: step n has `lr·n/warmup_steps`.
    Zero,
    /// At `lr`, as in RAE: the steps of the warm-up are those that the schedule waits for.
    Full,
}

impl WarmUp {
    /// The share of the learning rate in a step of a warm-up, counted from 0 and below `steps`.
    pub fn share(self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Step => (step + 1) as f64 / steps as f64,
            Self::Zero => step as f64 / steps as f64,
            Self::Full => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::adamw::AdamWConfig;

    #[test]
    fn rates_fall_from_the_first_to_the_last() {
        for schedule in [Schedule::Cosine, Schedule::Linear] {
            let rates: Vec<f64> = (0..=12).map(|n| schedule.rate(1.0, 0.1, n, 10)).collect();
            assert_eq!(rates[0], 1.0);
            assert!((rates[5] - 0.55).abs() < 1e-12, "{rates:?}");
            assert!(rates.windows(2).all(|pair| pair[1] <= pair[0]), "{rates:?}");
            assert!(rates[10..].iter().all(|&rate| (rate - 0.1).abs() < 1e-12), "{rates:?}");
        }
        assert_eq!(Schedule::Constant.rate(3.0, 0.1, 7, 10), 3.0);
    }

    #[test]
    fn warm_ups_multiply_what_follows() {
        let plain = AdamWConfig::new(0.3, [0.9, 0.999]);
        // The bits of a constant rate.
        assert_eq!([0, 1, 1_000_000].map(|step| plain.lr_at(step)), [0.3; 3]);
        let inverse = AdamWConfig { warmup: 0.99, ..plain };
        assert_eq!(inverse.lr_at(4), 0.3 * (1.0 - 0.99f64.powf(5.0)));
        let config = AdamWConfig {
            schedule: Schedule::Linear,
            warmup_steps: 4,
            decay_steps: Some(14),
            final_lr: Some(0.1),
            ..plain
        };
        let rates = [0, 1, 3, 4, 9, 14, 100].map(|step| config.lr_at(step));
        for (rate, expected) in rates.iter().zip([0.075, 0.15, 0.3, 0.3, 0.2, 0.1, 0.1]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        for (warmup_from, first) in [(WarmUp::Zero, [0.0, 0.075, 0.225]), (WarmUp::Full, [0.3; 3])]
        {
            let config = AdamWConfig { warmup_from, ..config };
            let rates = [0, 1, 3, 4, 9, 14].map(|step| config.lr_at(step));
            for (rate, expected) in rates.iter().zip(first.into_iter().chain([0.3, 0.2, 0.1])) {
                assert!((rate - expected).abs() < 1e-12, "{rates:?}");
            }
        }
    }
}
