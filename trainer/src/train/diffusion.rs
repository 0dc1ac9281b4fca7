//! The trainer of diffusion networks: gradients, clipping, AdamW, EMA.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::device::seeded;
use tintype::image::Rgb;
use tintype::weights::{
    Flat, Weights, Which, computing_in, flat, layout, load, open, snapshot, views, with_flat,
};

use super::adamw::{AdamW, AdamWConfig, clip, global_norm};
use super::checkpoint::TensorFile;
use super::comm::Comm;
use super::ema::{Ema, EmaConfig};
use super::epoch_sampler::EpochSampler;
use super::objective::{Compute, Objective};
use super::prefetch::Prefetch;
use super::preview::Previewer;
use super::recompute::add;
use super::trainer::{Report, Trainer};

/// Batch size, gradient accumulation and dtype of a step.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Global batch size, over all devices and micro-batches.
    pub batch: usize,
    /// Gradient accumulation: micro-batches per step on each device.
    pub accumulate: usize,
    /// Dtype and activation recomputation.
    pub compute: Compute,
}

/// The trainer of a diffusion network on one device.
pub struct DiffusionTrainer<O: Objective> {
    objective: Arc<O>,
    /// Parameters in float32, on the graph.
    network: O::Network,
    optimizer: AdamW,
    ema: Ema,
    steps: Steps,
    sampler: Arc<EpochSampler>,
    comm: Comm,
    device: Device,
    batches: Option<Prefetch<O::Batch>>,
    previewer: Option<Previewer>,
    metadata: BTreeMap<String, String>,
}

impl<O: Objective> DiffusionTrainer<O> {
    /// Creates the trainer from an initialized network.
    ///
    /// # Errors
    ///
    /// If the class names cannot be written as JSON.
    pub fn new(
        objective: O,
        network: O::Network,
        (optimizer, ema): (AdamWConfig, EmaConfig),
        steps: Steps,
        sampler: EpochSampler,
        comm: Comm,
        previewer: Option<Previewer>,
        classes: &[String],
        device: &Device,
    ) -> Result<Self> {
        let mut metadata = BTreeMap::from([
            ("format".to_string(), "pt".to_string()),
            ("config".to_string(), objective.config().to_string()),
        ]);
        if !classes.is_empty() {
            metadata.insert("classes".into(), serde_json::to_string(classes)?);
        }
        Ok(Self {
            optimizer: AdamW::new(optimizer, objective.groups()),
            ema: Ema::new(ema, flat(&network, Which::All)),
            objective: Arc::new(objective),
            network,
            steps,
            sampler: Arc::new(sampler),
            comm,
            device: device.clone(),
            batches: None,
            previewer,
            metadata,
        })
    }

    /// The network.
    pub fn network(&self) -> &O::Network {
        &self.network
    }

    /// Initializes network, EMA and optimizer from a checkpoint of the same or an earlier stage.
    /// Parameters selected by `may_miss` may be missing there and keep their initialization.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, a tensor has another shape or is missing though `may_miss` does
    /// not name it, or a weight is not finite.
    pub fn continue_from(&mut self, path: &Path, may_miss: fn(&str) -> bool) -> Result<()> {
        let mut weights = open(&raw_weights(path))?;
        let expected = snapshot(&self.network);
        for (name, fresh) in &expected {
            match weights.tensors.get(name) {
                Some(found) if found.shape == fresh.shape => {}
                Some(found) => bail!(
                    "{}: {name} has shape {:?}, but the network expects {:?}",
                    weights.file,
                    found.shape,
                    fresh.shape
                ),
                None if may_miss(name) => {
                    weights.tensors.insert(name.clone(), fresh.clone());
                }
                None => bail!("{} lacks {name}", weights.file),
            }
        }
        let ema = path.join("ema.safetensors");
        let ema_weights = if ema.exists() { open(&ema)? } else { weights.clone() };
        self.take(&weights, &ema_weights)?;
        let optimizer = path.join("optimizer.safetensors");
        if optimizer.exists() {
            let parameters = flat(&self.network, Which::Trainable);
            self.optimizer.restore(&open(&optimizer)?, &parameters, &self.plain_device());
        }
        Ok(())
    }

    /// Sets parameters and EMA.
    fn take(&mut self, weights: &Weights, ema_weights: &Weights) -> Result<()> {
        let network = self.network.clone();
        self.network = load(network, weights, FloatDType::F32, &self.device)?.network;
        let mut values = flat(&self.network, Which::All);
        for (name, value) in &mut values {
            if let Some(view) = ema_weights.tensors.get(name).filter(|v| v.len() == value.dims()[0])
            {
                let n = view.len();
                let data = tintype::burn::tensor::TensorData::new(view.to_f32(), [n]);
                *value = Tensor::from_data(data, &self.plain_device());
            }
        }
        self.ema.values = values;
        Ok(())
    }

    fn plain_device(&self) -> Device {
        self.device.clone().inner()
    }

    /// Gradients of the whole step over all devices, and the losses by name.
    fn gradients(&mut self, step: u64) -> Result<(Flat, Vec<(&'static str, f64)>)> {
        let Steps { accumulate, compute, .. } = self.steps;
        let mut gradients = Flat::new();
        let mut names = vec!["loss"];
        let mut parts: Vec<Tensor<1>> = Vec::new();
        for _ in 0..accumulate {
            let batch = self.next_batch(step)?;
            let network = match compute.precision {
                FloatDType::F32 => self.network.clone(),
                precision => computing_in(&self.network, precision),
            };
            let loss = self.objective.loss(&network, batch, compute, &self.device)?;
            let mut values = vec![loss.total.clone().inner()];
            names.truncate(1);
            for (name, term) in &loss.terms {
                names.push(name);
                values.push(term.clone().inner());
            }
            let values = Tensor::cat(values, 0);
            parts.push(values);
            add(&mut gradients, loss.gradients(&self.network));
        }
        let gradients = self.comm.sum(gradients);
        let sums = parts.into_iter().reduce(|a, b| a + b).context("a step has micro-batches")?;
        let sums: Vec<f64> = sums.into_data().convert::<f32>().iter::<f64>().collect();
        let sums = self.comm.sum_numbers(&sums);
        Ok((gradients, names.into_iter().zip(sums).collect()))
    }

    fn next_batch(&mut self, step: u64) -> Result<O::Batch> {
        if self.batches.is_none() {
            let (objective, sampler) = (self.objective.clone(), self.sampler.clone());
            let (share, Steps { batch, accumulate, .. }) =
                (self.comm.share(self.steps.batch), self.steps);
            let make = move |number: u64| {
                // Numbers count micro-batches from the first of this step on.
                let (step, micro) =
                    (step + number / accumulate as u64, number as usize % accumulate);
                let part = |i: usize| share.start + share.len() * i / accumulate;
                let samples = sampler.batch(step, batch, part(micro)..part(micro + 1));
                objective.collate(&samples, step, batch)
            };
            self.batches = Some(Prefetch::new(make));
        }
        self.batches.as_ref().context("it was just made")?.next()
    }
}

/// The file of a checkpoint folder with the raw weights, not the EMA.
fn raw_weights(path: &Path) -> std::path::PathBuf {
    let raw = path.join("model.safetensors");
    if raw.exists() { raw } else { path.into() }
}

impl<O: Objective> Trainer for DiffusionTrainer<O> {
    fn step(&mut self, step: u64) -> Result<Report> {
        let (gradients, losses) = self.gradients(step)?;
        let norm = match global_norm(&gradients) {
            Some(norm) => norm.into_data().convert::<f32>().iter::<f64>().next().unwrap_or(0.0),
            None => 0.0,
        };
        let finite = norm.is_finite() && losses.iter().all(|(_, v)| v.is_finite());
        let lr = self.optimizer.config.lr_at(step);
        if finite {
            let gradients = match self.optimizer.config.max_grad_norm {
                Some(max) => clip(gradients, norm, max),
                None => gradients,
            };
            let parameters = flat(&self.network, Which::Trainable);
            let parameters = self.optimizer.update(parameters, &gradients, lr);
            self.network = with_flat(self.network.clone(), &parameters);
        }
        if self.comm.rank == 0 {
            self.ema.update(&flat(&self.network, Which::All));
        }
        let mut values: Vec<(String, f64)> =
            losses.into_iter().map(|(name, v)| (name.to_string(), v)).collect();
        values.push(("grad_norm".into(), norm));
        values.push(("lr".into(), lr));
        Ok(Report { values, skipped: !finite })
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let mut metadata = self.metadata.clone();
        metadata.insert("section".into(), "model".into());
        let mut ema_metadata = self.metadata.clone();
        ema_metadata.insert("section".into(), "ema".into());
        ema_metadata.insert("ema_updates".into(), self.ema.updates.to_string());
        Ok(vec![
            TensorFile { name: "model.safetensors", tensors: snapshot(&self.network), metadata },
            TensorFile {
                name: "ema.safetensors",
                tensors: views(&self.ema.values, &layout(&self.network)),
                metadata: ema_metadata,
            },
            TensorFile {
                name: "optimizer.safetensors",
                tensors: self.optimizer.to_tensors(),
                metadata: BTreeMap::from([("format".to_string(), "pt".to_string())]),
            },
        ])
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let weights = open(&checkpoint.join("model.safetensors"))?;
        let ema_weights = open(&checkpoint.join("ema.safetensors"))?;
        self.take(&weights, &ema_weights)?;
        let updates = ema_weights.metadata.get("ema_updates").and_then(|n| n.parse().ok());
        self.ema.updates =
            updates.with_context(|| format!("{} has no ema_updates", ema_weights.file))?;
        let optimizer = open(&checkpoint.join("optimizer.safetensors"))?;
        let parameters = flat(&self.network, Which::Trainable);
        self.optimizer.restore(&optimizer, &parameters, &self.plain_device());
        Ok(())
    }

    fn preview(&mut self) -> Result<Option<Rgb>> {
        let Some(previewer) = &self.previewer else { return Ok(None) };
        let weights = Weights {
            file: "the network in training".into(),
            tensors: views(&self.ema.values, &layout(&self.network)),
            metadata: self.metadata.clone(),
            ..Weights::default()
        };
        previewer.draw(&weights, &self.plain_device()).map(Some)
    }

    fn architecture(&self) -> Value {
        self.objective.config()
    }

    fn macs(&self) -> f64 {
        self.objective.macs()
    }
}

/// Initializes a network from a seed, on the CPU so that it is the same on every device.
///
/// # Errors
///
/// If `init` fails.
pub fn fresh<M: Module, E: std::error::Error + Send + Sync + 'static>(
    init: impl Fn(&Device) -> Result<M, E>,
    seed: u64,
    device: &Device,
) -> Result<M> {
    let cpu = Device::flex();
    let tensors = seeded(&cpu, seed, || init(&cpu).map(|network| snapshot(&network)))?;
    let weights = Weights { file: "fresh weights".into(), tensors, ..Weights::default() };
    Ok(load(init(device)?, &weights, FloatDType::F32, device)?.network)
}
