//! The settings of an optimizer, and its learning rate.

use serde::{Deserialize, Serialize};

use super::super::schedule::{Schedule, WarmUp};

/// The settings of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay: `p ← p·(1 − lr·weight_decay)`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradients are scaled down to this global L2 norm; absent for no clipping.
    #[serde(default)]
    pub max_grad_norm: Option<f64>,
    /// k-diffusion's warm-up: the rate of step n (from 0) is `lr·(1 − warmup^(n+1))`; 0 for none.
    #[serde(default)]
    pub warmup: f64,
    /// Linear warm-up over so many steps.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Where it begins.
    #[serde(default)]
    pub warmup_from: WarmUp,
    /// How the rate falls after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// The step from which the rate is `final_lr`; default: `run.steps` of the configuration.
    #[serde(default)]
    pub decay_steps: Option<u64>,
    /// The last learning rate (not a fraction of `lr`); default: 0.
    #[serde(default)]
    pub final_lr: Option<f64>,
    /// Muon for the matrices of linear layers, and Adam with the same look-ahead for the rest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub muon: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn default_eps() -> f64 {
    1e-8
}

impl AdamWConfig {
    /// A constant learning rate, PyTorch's `eps`, neither weight decay nor clipping.
    pub fn new(lr: f64, betas: [f64; 2]) -> Self {
        Self {
            lr,
            betas,
            eps: default_eps(),
            weight_decay: 0.0,
            max_grad_norm: None,
            warmup: 0.0,
            warmup_steps: 0,
            warmup_from: WarmUp::Step,
            schedule: Schedule::Constant,
            decay_steps: None,
            final_lr: None,
            muon: false,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr_at(&self, step: u64) -> f64 {
        let lr = match step < self.warmup_steps {
            true => self.lr * self.warmup_from.share(step, self.warmup_steps),
            false => {
                let total = self.decay_steps.unwrap_or(0).saturating_sub(self.warmup_steps);
                let last = self.final_lr.unwrap_or(0.0);
                self.schedule.rate(self.lr, last, step - self.warmup_steps, total)
            }
        };
        lr * (1.0 - self.warmup.powf(step as f64 + 1.0))
    }
}
