//! The exponential moving average of a network's tensors.

use serde::{Deserialize, Serialize};
use tintype::diffusion::karras::ema_decay;
use tintype::shaders::lerp;
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
    /// pMF's and EDM's: what was averaged has half its weight after so many images, and early in training after a
    /// twentieth of those seen.
    HalfLife {
        /// Images.
        half_life: f64,
    },
}

/// Share of the images seen so far that a half-life is at most.
const RAMP_UP: f64 = 0.05;

impl EmaConfig {
    /// The decay of an update after `updates` earlier ones, in steps of `batch` images.
    pub fn decay(self, updates: u64, batch: usize) -> f64 {
        match self {
            Self::Constant { decay } => decay,
            Self::Inverse { power, max_value } => ema_decay(updates, power, max_value),
            Self::HalfLife { half_life } => {
                let batch = batch as f64;
                let seen = batch * (updates + 1) as f64;
                0.5f64.powf(batch / half_life.min(RAMP_UP * seen))
            }
        }
    }
}

/// The files of a checkpoint with the EMAs of a network in their order; the first is what samples are made of.
pub const FILES: [&str; 8] = [
    "ema.safetensors",
    "ema_2.safetensors",
    "ema_3.safetensors",
    "ema_4.safetensors",
    "ema_5.safetensors",
    "ema_6.safetensors",
    "ema_7.safetensors",
    "ema_8.safetensors",
];

/// The metadata of such a file with the number of updates so far.
pub const UPDATES: &str = "ema_updates";

/// The table `[ema]`, or several of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmaConfigs {
    /// One EMA.
    One(EmaConfig),
    /// Several of the same network.
    Several(Vec<EmaConfig>),
}

impl EmaConfigs {
    /// All of them.
    pub fn all(&self) -> &[EmaConfig] {
        match self {
            Self::One(config) => std::slice::from_ref(config),
            Self::Several(configs) => configs,
        }
    }
}

/// The EMA; initialized with the network.
#[derive(Clone, Debug)]
pub struct Ema {
    config: EmaConfig,
    /// Images of a step.
    batch: usize,
    /// The EMA of the tensors, buffers included.
    pub values: Flat,
    /// Updates so far.
    pub updates: u64,
}

impl Ema {
    /// Initializes the EMA with the network's values; a step has `batch` images.
    pub fn new(config: EmaConfig, batch: usize, values: Flat) -> Self {
        Self { config, batch, values, updates: 0 }
    }

    /// The same EMA of other values after so many updates.
    pub fn begun_with(&self, values: Flat, updates: u64) -> Self {
        Self { values, updates, ..*self }
    }

    /// `ema ← ema + (1 − d)·(p − ema)` for parameters and float buffers.
    pub fn update(&mut self, values: &Flat) {
        let share = 1.0 - self.config.decay(self.updates, self.batch);
        // Taken out, so that nobody else holds what is written.
        let taken = values.iter().filter_map(|(name, new)| {
            let old = self.values.remove(name)?;
            Some((name.clone(), (old, new.clone())))
        });
        let (names, (old, new)): (Vec<_>, (Vec<_>, Vec<_>)) = taken.unzip();
        self.values.extend(names.into_iter().zip(lerp(old, new, share)));
        self.updates += 1;
    }
}

#[cfg(test)]
mod tests {
    use tintype::burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn averages_move_and_what_is_not_named_rests() {
        let row = |v: [f32; 2]| Tensor::<1>::from_floats(v, &Device::flex());
        let of = |v: [f32; 2], name: &str| (name.to_string(), row(v));
        let start = Flat::from([of([1.0, 2.0], "a"), of([5.0, 6.0], "b")]);
        let mut ema = Ema::new(EmaConfig::Constant { decay: 0.75 }, 1, start.clone());
        ema.update(&Flat::from([of([3.0, -2.0], "a"), of([9.0, 9.0], "c")]));
        let found = |values: &Flat, name: &str| -> Vec<f32> {
            values[name].to_data().iter::<f32>().collect()
        };
        let [a, b] = ["a", "b"].map(|name| found(&ema.values, name));
        assert_eq!((a, b, ema.updates), (vec![1.5, 1.0], vec![5.0, 6.0], 1));
        assert_eq!(ema.values.len(), 2);
        // The network's own values stay.
        assert_eq!(found(&start, "a"), [1.0, 2.0]);
    }

    #[test]
    fn half_lives_are_in_images() {
        let decay = |half_life: f64, updates: u64, batch: usize| {
            EmaConfig::HalfLife { half_life }.decay(updates, batch)
        };
        // The authors' formula after step n = 1, 2, …: 0.5^(1024 / min(T, 0.05·1024·n)).
        for (updates, exponent) in [(0, 20.0), (1, 10.0), (1_000_000, 1024.0 / 5e5)] {
            let expected = 0.5f64.powf(exponent);
            assert!((decay(5e5, updates, 1024) / expected - 1.0).abs() < 1e-12);
        }
        // Ten steps of 50 images: half of it.
        assert!((decay(500.0, 1_000_000, 50).powi(10) - 0.5).abs() < 1e-12);
    }
}
