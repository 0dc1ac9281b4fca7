//! The exponential moving average of a network's tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Tensor, TensorData};
use tintype::diffusion::karras::ema_decay;
use tintype::shaders::{StepGuard, lerp};
use tintype::weights::{Flat, Weights, open, views};

use super::checkpoint::TensorFile;

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
const UPDATES: &str = "ema_updates";
/// That with the number of EMAs.
const EMAS: &str = "emas";

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
    /// Parameters whose averages the present step has moved.
    moved: BTreeSet<String>,
}

impl Ema {
    /// Initializes the EMA with the network's values; a step has `batch` images.
    pub fn new(config: EmaConfig, batch: usize, values: Flat) -> Self {
        Self { config, batch, values, updates: 0, moved: BTreeSet::new() }
    }

    /// The same EMA of other values after so many updates.
    pub fn begun_with(&self, values: Flat, updates: u64) -> Self {
        Self { values, updates, moved: BTreeSet::new(), ..*self }
    }

    /// The same EMA with the values of a file, but the network's `own` for the tensors of `kept`, after as many updates
    /// as the file says.
    ///
    /// # Errors
    ///
    /// If another tensor is missing, has another size or is not finite.
    pub fn of_file(
        &self,
        weights: &Weights,
        mut own: Flat,
        kept: &BTreeSet<String>,
    ) -> Result<Self> {
        for (name, value) in &mut own {
            if kept.contains(name) {
                continue;
            }
            let (n, device) = (value.dims()[0], value.device());
            match weights.tensors.get(name) {
                Some(view) if view.len() == n => {
                    let values = view.to_f32();
                    let finite = values.iter().all(|v| v.is_finite());
                    ensure!(finite, "{}: {name} is not finite", weights.file);
                    *value = Tensor::from_data(TensorData::new(values, [n]), &device);
                }
                Some(view) => bail!(
                    "{}: {name} has {} values, but the network expects {n}",
                    weights.file,
                    view.len()
                ),
                None => bail!("{} lacks {name}", weights.file),
            }
        }
        let updates = weights.metadata.get(UPDATES).and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(self.begun_with(own, updates))
    }

    /// `1 − d` of the next update, `ema ← ema + (1 − d)·(p − ema)`.
    fn share(&self) -> f64 {
        1.0 - self.config.decay(self.updates, self.batch)
    }

    /// The average of a parameter and the share by which it moves, for a step that moves both at once. Taken out, so that
    /// what is written is not shared.
    pub fn take(&mut self, name: &str) -> Option<(Tensor<1>, f64)> {
        let share = self.share();
        let average = self.values.remove(name)?;
        self.moved.insert(name.into());
        Some((average, share))
    }

    /// Puts the average of a parameter back.
    pub fn put(&mut self, name: &str, average: Tensor<1>) {
        self.values.insert(name.into(), average);
    }

    /// Moves the averages that no step has moved together with its parameter: those of buffers, and of parameters without
    /// a gradient. The caller then counts the update, if the guard lets it happen.
    ///
    /// # Shapes
    ///
    /// * `values`: `[n]` a name; one without an average is left out
    pub fn move_rest(&mut self, values: &Flat, guard: &StepGuard) {
        let share = self.share();
        let moved = std::mem::take(&mut self.moved);
        let taken =
            values.iter().filter(|(name, _)| !moved.contains(*name)).filter_map(|(name, new)| {
                let old = self.values.remove(name)?;
                Some((name.clone(), (old, new.clone())))
            });
        let (names, (old, new)): (Vec<_>, (Vec<_>, Vec<_>)) = taken.unzip();
        if !names.is_empty() {
            self.values.extend(names.into_iter().zip(lerp(old, new, share, guard)));
        }
    }
}

/// The files of a checkpoint with the EMAs of a network of this layout. Their metadata is that of the network, and which
/// they are.
pub fn files(
    emas: &[Ema],
    layout: &BTreeMap<String, Vec<usize>>,
    metadata: &BTreeMap<String, String>,
) -> Vec<TensorFile> {
    let file = |(ema, name): (&Ema, &'static str)| {
        let mut metadata = metadata.clone();
        metadata.insert("section".into(), "ema".into());
        metadata.insert(UPDATES.into(), ema.updates.to_string());
        metadata.insert(EMAS.into(), emas.len().to_string());
        TensorFile { name, tensors: views(&ema.values, layout), metadata }
    };
    emas.iter().zip(FILES).map(file).collect()
}

/// The EMAs with what a checkpoint has of them; one that it does not have begins with the network's `own` values.
///
/// # Errors
///
/// If a file cannot be read, does not say after how many updates it was written, or does not fit the network.
pub fn restored(emas: &[Ema], checkpoint: &Path, own: &Flat) -> Result<Vec<Ema>> {
    let first = open(&checkpoint.join(FILES[0]))?;
    let saved: usize = first.metadata.get(EMAS).and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut restored = Vec::with_capacity(emas.len());
    for (i, (ema, file)) in emas.iter().zip(FILES).enumerate() {
        if i >= saved {
            restored.push(ema.begun_with(own.clone(), 0));
            continue;
        }
        let weights = open(&checkpoint.join(file))?;
        ensure!(weights.metadata.contains_key(UPDATES), "{} has no {UPDATES}", weights.file);
        restored.push(ema.of_file(&weights, own.clone(), &BTreeSet::new())?);
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use tintype::burn::tensor::Device;

    use super::*;

    #[test]
    fn averages_move_and_what_is_not_named_rests() {
        let row = |v: [f32; 2]| Tensor::<1>::from_floats(v, &Device::flex());
        let of = |v: [f32; 2], name: &str| (name.to_string(), row(v));
        let start = Flat::from([of([1.0, 2.0], "a"), of([5.0, 6.0], "b")]);
        let mut ema = Ema::new(EmaConfig::Constant { decay: 0.75 }, 1, start.clone());
        let numbers = |v: f32| Tensor::from_floats([v], &Device::flex());
        let guard = |v: f32| StepGuard { numbers: numbers(v), max_norm: None };
        let values = Flat::from([of([3.0, -2.0], "a"), of([9.0, 9.0], "c")]);
        ema.move_rest(&values, &guard(f32::NAN));
        ema.move_rest(&values, &guard(1.0));
        ema.updates += 1;
        let found = |values: &Flat, name: &str| -> Vec<f32> {
            values[name].to_data().iter::<f32>().collect()
        };
        let [a, b] = ["a", "b"].map(|name| found(&ema.values, name));
        assert_eq!((a, b, ema.updates), (vec![1.5, 1.0], vec![5.0, 6.0], 1));
        assert_eq!(ema.values.len(), 2);
        // One that a step has moved rests here.
        let (average, share) = ema.take("a").expect("it has one");
        assert_eq!((ema.values.len(), share), (1, 0.25));
        ema.put("a", average);
        ema.move_rest(&values, &guard(1.0));
        assert_eq!(found(&ema.values, "a"), [1.5, 1.0]);
        ema.move_rest(&values, &guard(1.0));
        assert_eq!(found(&ema.values, "a"), [1.875, 0.25]);
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
