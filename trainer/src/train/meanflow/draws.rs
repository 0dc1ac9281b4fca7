//! What is drawn for a sample: times, guidance and its interval.

use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Device, Tensor};
use tintype::diffusion::flow::logit_normal;
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use crate::train::host::vector;

/// The settings of the draws.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeanFlowLoss {
    /// Mean of the normal numbers whose sigmoids are the times t and r.
    pub p_mean: f64,
    /// Their standard deviation.
    pub p_std: f64,
    /// Share of the samples whose times are uniform instead (0.1 for pMF-H).
    pub uniform_times: f64,
    /// Share of a batch that learns the velocity itself, r = t.
    pub flow_matching: f64,
    /// Guidance scales are drawn from 1 to this.
    pub omega_max: f64,
    /// Their density falls with this power.
    pub omega_power: f64,
    /// Probability that a label is replaced by the null class.
    pub label_dropout: f64,
}

impl Default for MeanFlowLoss {
    fn default() -> Self {
        Self {
            p_mean: -0.4,
            p_std: 1.0,
            uniform_times: 0.0,
            flow_matching: 0.5,
            omega_max: 8.0,
            omega_power: 1.0,
            label_dropout: 0.1,
        }
    }
}

impl MeanFlowLoss {
    /// How many samples of the whole batch learn the velocity itself; they are its first ones.
    pub fn matching(&self, batch: usize) -> usize {
        (batch as f64 * self.flow_matching) as usize
    }

    /// How many labels of the whole batch of a step are dropped; they are its first ones. Every device knows every draw,
    /// so counting needs no communication.
    pub fn dropped(&self, seed: u64, step: u64, batch: usize) -> usize {
        let first = step * batch as u64;
        let is_dropped = |&image: &u64| {
            uniforms(ImageKey::new(seed, image), Stream::Choice, 0, 1)[0] < self.label_dropout
        };
        (first..first + batch as u64).filter(is_dropped).count()
    }
}

/// Which of its two times a sample that learns the velocity itself has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// The later one: iMF sorts t and r, then r becomes t.
    Later,
    /// The first one: pMF's r becomes t, then both are sorted.
    First,
}

/// What is drawn for a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The time.
    pub t: f32,
    /// The beginning of the span that the velocity is averaged over, at most `t`.
    pub r: f32,
    /// Guidance scale.
    pub omega: f32,
    /// Lower end of the times that guidance acts in.
    pub t_min: f32,
    /// Upper end.
    pub t_max: f32,
}

impl Draw {
    /// The numbers of a sample; `matching` says whether it learns the velocity itself.
    pub fn new(settings: &MeanFlowLoss, matched: Matched, key: ImageKey, matching: bool) -> Self {
        let [a, b] = times(settings, key);
        // The first number of this stream is that of the dropout.
        let u = uniforms(key, Stream::Choice, 0, 4);
        let omega = power_law(u[1], settings.omega_max, settings.omega_power) as f32;
        let t = match matched {
            Matched::First if matching => a,
            _ => a.max(b),
        };
        let (r, t_min, t_max) = match matching {
            true => (t, 0.0, 1.0),
            false => (a.min(b), 0.5 * u[2], 0.5 + 0.5 * u[3]),
        };
        Self { t: t as f32, r: r as f32, omega, t_min: t_min as f32, t_max: t_max as f32 }
    }

    /// t, r, ω, t_min and t_max of some samples, `[B]` each.
    pub fn columns(draws: &[Self], device: &Device) -> [Tensor<1>; 5] {
        let numbers: [fn(&Self) -> f32; 5] =
            [|d| d.t, |d| d.r, |d| d.omega, |d| d.t_min, |d| d.t_max];
        numbers.map(|number| {
            let values: Vec<f32> = draws.iter().map(number).collect();
            vector(&values, device)
        })
    }
}

/// The two times of a sample as they are drawn.
fn times(settings: &MeanFlowLoss, key: ImageKey) -> [f64; 2] {
    if settings.uniform_times > 0.0 {
        let u = uniforms(key, Stream::Time, 2, 3);
        if u[0] < settings.uniform_times {
            return [u[1], u[2]];
        }
    }
    let normals = normals(key, Stream::Time, 1, 2);
    [0, 1].map(|i| logit_normal(normals[i] as f64, settings.p_mean, settings.p_std))
}

/// A number in 1…`max` with a density ∝ ω^(−power), from a uniform number in 0…1.
pub fn power_law(u: f64, max: f64, power: f64) -> f64 {
    let rest = 1.0 - power;
    match rest.abs() < 1e-9 {
        true => max.powf(u),
        false => ((u * (rest * max.ln()).exp_m1()).ln_1p() / rest).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(image: u64) -> ImageKey {
        ImageKey::new(5, image)
    }

    #[test]
    fn times_and_intervals_are_those_of_their_half() {
        let settings = MeanFlowLoss::default();
        let mut times = Vec::new();
        for image in 0..2000 {
            let matching = Draw::new(&settings, Matched::Later, key(image), true);
            assert_eq!(matching.t, matching.r);
            assert_eq!((matching.t_min, matching.t_max), (0.0, 1.0));
            let draw = Draw::new(&settings, Matched::Later, key(image), false);
            let Draw { t, r, omega, t_min, t_max } = draw;
            assert_eq!((matching.t, matching.omega), (t, omega));
            assert!(0.0 < r && r < t && t < 1.0, "{r} {t}");
            assert!((0.0..=0.5).contains(&t_min) && (0.5..=1.0).contains(&t_max));
            assert!((1.0..=8.0).contains(&omega));
            times.extend([t, r].map(|t| ((t / (1.0 - t)) as f64).ln()));
            // The two networks differ in the half that learns the velocity itself, and only there.
            assert_eq!(Draw::new(&settings, Matched::First, key(image), false), draw);
        }
        // Both together are normal numbers of mean -0.4 and deviation 1.
        let n = times.len() as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        assert!((mean + 0.4).abs() < 0.06 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn the_first_time_is_as_often_the_earlier_one() {
        let settings = MeanFlowLoss::default();
        let draws = (0..2000).map(|image| {
            let first = Draw::new(&settings, Matched::First, key(image), true);
            let Draw { t, r, .. } = Draw::new(&settings, Matched::First, key(image), false);
            assert_eq!(first.t, first.r);
            assert!(first.t == t || first.t == r, "{first:?} of {t} and {r}");
            first.t == r
        });
        let earlier = draws.filter(|&is_earlier| is_earlier).count();
        assert!((900..1100).contains(&earlier), "{earlier}");
    }

    #[test]
    fn a_share_of_the_times_is_uniform() {
        let settings = MeanFlowLoss { p_std: 0.0, uniform_times: 0.1, ..MeanFlowLoss::default() };
        let usual = (1.0 / (1.0 + 0.4f64.exp())) as f32;
        let draws = (0..2000).map(|i| Draw::new(&settings, Matched::First, key(i), false));
        let others: Vec<Draw> = draws.filter(|draw| draw.t != usual).collect();
        assert!((150..250).contains(&others.len()), "{}", others.len());
        let times = || others.iter().flat_map(|draw| [draw.t, draw.r]);
        let mean = times().sum::<f32>() / times().count() as f32;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert!(times().all(|t| (0.0..1.0).contains(&t)));
    }

    #[test]
    fn guidance_scales_follow_the_power_law() {
        for power in [0.0, 1.0, 2.0, 2.5] {
            assert!((power_law(0.0, 8.0, power) - 1.0).abs() < 1e-12);
            assert!((power_law(1.0, 8.0, power) - 8.0).abs() < 1e-9);
            // The share below x is (x^(1-p) - 1)/(max^(1-p) - 1), or ln x / ln max.
            for u in [0.1, 0.5, 0.9] {
                let x = power_law(u, 8.0, power);
                let rest: f64 = 1.0 - power;
                let share = match rest == 0.0 {
                    true => x.ln() / 8f64.ln(),
                    false => (x.powf(rest) - 1.0) / (8f64.powf(rest) - 1.0),
                };
                assert!((share - u).abs() < 1e-9, "{power}: {share} for {u}");
            }
        }
        // Near 1 it is that of 1.
        assert!((power_law(0.5, 8.0, 1.0 + 1e-8) - power_law(0.5, 8.0, 1.0)).abs() < 1e-6);
    }
}
