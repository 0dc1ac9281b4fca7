//! Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) within an interval of times
//! (Kynkäänniemi et al., arXiv 2404.07724). In autoguidance (Karras et al., arXiv 2406.02507) another network's
//! prediction takes the place of the unconditional one.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// When and how strongly to guide.
///
/// `low` and `high` are times on this library's clock, which sampling follows from 1 (noise) down to 0
/// (data), also where the network's own clock runs the other way (LightningDiT). For denoisers (HDiT) they
/// are noise levels σ, from 0 to whatever the sampler begins with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// `uncond + scale·(cond − uncond)`, 0 or more: 1 is off, 0 leaves the class out, and what lies between
    /// weakens it.
    pub scale: f64,
    /// Lower end of the interval, the one near the data: times in 0…1, or σ ≥ 0. Not above `high`.
    pub low: f64,
    /// Upper end, the one near the noise: times in 0…1, or σ ≥ 0. Whether the ends are included is the network's
    /// [`Interval`].
    pub high: f64,
    /// Guides only so many of the first channels, 1 or more, and leaves the rest conditional, as
    /// LightningDiT's published numbers do (3); all where absent.
    pub channels: Option<usize>,
}

/// Whether the ends of a guidance interval belong to it, and which evaluations ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Both ends belong to it. A step asks once, where it begins.
    Closed,
    /// Neither end belongs to it, but an upper end of 1 bounds nothing. Times are compared in float32 on a clock whose
    /// noise is at 0, and every evaluation asks at its own time (JiT).
    Open,
}

impl Interval {
    /// Whether an evaluation at `time`, of a step that begins at `step_time`, is guided. Times are on this library's
    /// clock (1 is noise), or noise levels.
    pub fn is_guided(self, guidance: &Guidance, time: f64, step_time: f64) -> bool {
        match self {
            Self::Closed => guidance.active(step_time),
            Self::Open => {
                let [t, low, high] = [time, guidance.high, guidance.low].map(|t| (1.0 - t) as f32);
                guidance.scale != 1.0 && t < high && (low == 0.0 || t > low)
            }
        }
    }
}

impl Guidance {
    /// No guidance.
    pub const NONE: Self = Self { scale: 1.0, low: 0.0, high: 1.0, channels: None };

    /// Guides all channels at all times, for which `high` is 1. A denoiser begins at larger noise
    /// levels, which this leaves unguided: set `high` for it.
    pub fn new(scale: f64) -> Self {
        Self { scale, ..Self::NONE }
    }

    /// Whether a step that begins at this time (or noise level) needs the unconditional prediction, of an interval with
    /// both ends.
    pub fn active(&self, t: f64) -> bool {
        self.scale != 1.0 && self.low <= t && t <= self.high
    }

    /// The guided prediction from both halves.
    ///
    /// # Shapes
    ///
    /// * `cond`, `uncond`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn combine(&self, cond: Tensor<4>, uncond: Tensor<4>) -> Tensor<4> {
        let guide =
            |cond: Tensor<4>, uncond: Tensor<4>| uncond.clone() + (cond - uncond) * self.scale;
        let c = cond.dims()[1];
        match self.channels {
            Some(k) if k < c => {
                let guided = guide(cond.clone().narrow(1, 0, k), uncond.narrow(1, 0, k));
                Tensor::cat(vec![guided, cond.narrow(1, k, c - k)], 1)
            }
            _ => guide(cond, uncond),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// JiT's guidance from 0.1 on, where 0 is noise: the fifth of 50 steps, which begins there, is not guided, and the
    /// noise itself only where nothing is left out.
    #[test]
    fn ends_belong_to_closed_intervals_alone() {
        let guided = |interval: Interval, high: f64, time: f64| {
            interval.is_guided(&Guidance { high, ..Guidance::new(2.0) }, time, 0.9)
        };
        for (high, time, expected) in
            [(0.9, 0.9, false), (0.9, 0.88, true), (0.9, 0.92, false), (1.0, 1.0, true)]
        {
            assert_eq!(guided(Interval::Open, high, time), expected, "{high} {time}");
        }
        let at = |low, time| {
            let guidance = Guidance { low, ..Guidance::new(2.0) };
            Interval::Open.is_guided(&guidance, time, time)
        };
        assert!(!at(0.5, 0.5) && at(0.5, 0.52) && !at(0.5, 0.48));
        // What counts is where the step begins.
        assert!(guided(Interval::Closed, 0.9, 0.95) && !guided(Interval::Closed, 0.8, 0.5));
        assert!(!Interval::Open.is_guided(&Guidance::NONE, 0.5, 0.5));
    }

    #[test]
    fn the_scale_says_how_much_the_class_counts() {
        let full = |value: f32| Tensor::<4>::full([1, 2, 1, 1], value, &Device::flex());
        for (scale, expected) in [(0.0, 1.0), (0.5, 2.0), (2.0, 5.0)] {
            let guidance = Guidance::new(scale);
            assert!(guidance.active(0.5), "{scale}");
            let guided = guidance.combine(full(3.0), full(1.0)).into_data();
            assert_eq!(guided.iter::<f32>().collect::<Vec<_>>(), [expected; 2], "{scale}");
        }
        assert!(!Guidance::NONE.active(0.5));
        let partly = Guidance { channels: Some(1), ..Guidance::new(0.0) };
        let guided = partly.combine(full(3.0), full(1.0)).into_data();
        assert_eq!(guided.iter::<f32>().collect::<Vec<_>>(), [1.0, 3.0]);
    }
}
