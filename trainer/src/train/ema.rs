//! The exponential moving average of a network's tensors.

use serde::{Deserialize, Serialize};
use tintype::diffusion::karras::ema_decay;
use tintype::weights::Flat;

/// Decay of the EMA.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmaConfig {
    /// The same decay in every step.
    Constant {
        /// `ema ← decay·ema + (1 − decay)·p`
        decay: f64,
    },
    /// k-diffusion's warm-up: `clamp(1 − (1 + n)^(−power), 0, max_value)` after n updates.
    Inverse {
        /// Exponent.
        power: f64,
        /// Largest decay.
        max_value: f64,
    },
}

impl EmaConfig {
    /// The decay of an update after `updates` earlier ones.
    pub fn decay(self, updates: u64) -> f64 {
        match self {
            Self::Constant { decay } => decay,
            Self::Inverse { power, max_value } => ema_decay(updates, power, max_value),
        }
    }
}

/// The EMA; initialized with the network.
#[derive(Clone, Debug)]
pub struct Ema {
    config: EmaConfig,
    /// The EMA of the tensors, buffers included.
    pub values: Flat,
    /// Updates so far.
    pub updates: u64,
}

impl Ema {
    /// Initializes the EMA with the network's values.
    pub fn new(config: EmaConfig, values: Flat) -> Self {
        Self { config, values, updates: 0 }
    }

    /// `ema ← ema + (1 − d)·(p − ema)` for parameters and float buffers.
    pub fn update(&mut self, values: &Flat) {
        let share = 1.0 - self.config.decay(self.updates);
        for (name, new) in values {
            if let Some(old) = self.values.remove(name) {
                let next = old.clone() + (new.clone() - old) * share;
                self.values.insert(name.clone(), next);
            }
        }
        self.updates += 1;
    }
}
