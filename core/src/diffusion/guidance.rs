//! Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) within an interval of times
//! (Kynkäänniemi et al., arXiv 2404.07724).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// When and how strongly to guide. Times run from 1 (noise) to 0 (data).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// `uncond + scale·(cond − uncond)`; 1 is no guidance.
    pub scale: f64,
    /// Guides from this time…
    pub low: f64,
    /// …to this one, both included.
    pub high: f64,
    /// Guides only the first channels and leaves the rest conditional, as LightningDiT's
    /// published numbers do (3); all where absent.
    pub channels: Option<usize>,
}

impl Guidance {
    /// No guidance.
    pub const NONE: Self = Self { scale: 1.0, low: 0.0, high: 1.0, channels: None };

    /// Guides all channels at all times.
    pub fn new(scale: f64) -> Self {
        Self { scale, ..Self::NONE }
    }

    /// Whether a step at this time needs the unconditional prediction.
    pub fn active(&self, t: f64) -> bool {
        self.scale > 1.0 && self.low <= t && t <= self.high
    }

    /// The guided prediction from both halves, `[B, C, H, W]` each.
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
