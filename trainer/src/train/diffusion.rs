//! The trainer of diffusion networks: gradients, clipping, AdamW, EMA.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::device::{is_processor, seeded};
use tintype::image::Rgb;
use tintype::shaders::StepGuard;
use tintype::weights::{
    Flat, Weights, Which, computing_in, flat, layout, load, open, snapshot, take_flat, views,
    with_flat,
};

use super::adamw::{AdamW, AdamWConfig, guard, norm};
use super::checkpoint::TensorFile;
use super::comm::{Comm, Gathered, Numbers, Pieces, Reduction};
use super::ema::{self, Ema, EmaConfig};
use super::epoch_sampler::EpochSampler;
use super::evaluate::SampleEvaluator;
use super::objective::{Compute, Loss, Objective};
use super::prefetch::Prefetch;
use super::preview::Previewer;
use super::readback::Readback;
use super::recompute::add;
use super::record::DataRecord;
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

/// Who looks at a network in training.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Draws previews.
    pub previewer: Option<Previewer>,
    /// Measures samples.
    pub evaluator: Option<SampleEvaluator>,
}

/// The trainer of a diffusion network on one device.
pub struct DiffusionTrainer<O: Objective> {
    objective: Arc<O>,
    /// Parameters in float32, on the graph.
    pub(super) network: O::Network,
    pub(super) optimizer: AdamW,
    /// At least one.
    pub(super) emas: Vec<Ema>,
    steps: Steps,
    sampler: Arc<EpochSampler>,
    comm: Comm,
    pub(super) device: Device,
    batches: Option<Prefetch<O::Batch>>,
    watchers: Watchers,
    /// What was taken from `init.from`.
    pub(super) initialized: Option<String>,
    metadata: BTreeMap<String, String>,
    /// In how many pieces gradients come.
    pieces: Pieces,
    in_flight: Option<InFlight>,
    /// How steps ended that were resolved and not told yet.
    reports: VecDeque<Report>,
}

/// A step whose numbers are on their way.
#[derive(Debug)]
struct InFlight {
    names: Vec<&'static str>,
    /// Of each rank and micro-batch.
    losses: Gathered,
    /// Those of the guard: the sum of the gradients' squares, then `losses`.
    numbers: Readback,
    lr: f64,
}

impl<O: Objective> DiffusionTrainer<O> {
    /// Creates the trainer from an initialized network.
    ///
    /// # Errors
    ///
    /// If there is no EMA, or the class names cannot be written as JSON.
    pub fn new(
        objective: O,
        network: O::Network,
        (optimizer, emas): (AdamWConfig, &[EmaConfig]),
        steps: Steps,
        sampler: EpochSampler,
        comm: Comm,
        watchers: Watchers,
        classes: &[String],
        device: &Device,
    ) -> Result<Self> {
        ensure!(!emas.is_empty(), "the table [ema] is missing");
        // Rank 0 alone saves and shows them.
        let averaged = if comm.rank == 0 { emas } else { &[] };
        let mut metadata = BTreeMap::from([
            ("format".to_string(), "pt".to_string()),
            ("config".to_string(), objective.config().to_string()),
        ]);
        if !classes.is_empty() {
            metadata.insert("classes".into(), serde_json::to_string(classes)?);
        }
        let linear = layout(&network).into_iter().filter_map(|(name, shape)| {
            let shape: [usize; 2] = shape.try_into().ok()?;
            objective.is_linear(&name).then_some((name, shape))
        });
        let matrices: BTreeMap<String, [usize; 2]> = linear.collect();
        Ok(Self {
            optimizer: AdamW::new(optimizer, objective.groups()).with_matrices(matrices),
            emas: averaged
                .iter()
                .map(|&ema| Ema::new(ema, steps.batch, flat(&network, Which::All)))
                .collect(),
            objective: Arc::new(objective),
            network,
            steps,
            sampler: Arc::new(sampler),
            comm,
            device: device.clone(),
            batches: None,
            watchers,
            initialized: None,
            metadata,
            pieces: Pieces::new(),
            in_flight: None,
            reports: VecDeque::new(),
        })
    }

    /// The network.
    pub fn network(&self) -> &O::Network {
        &self.network
    }

    /// The network's device without the graph.
    pub(super) fn plain_device(&self) -> Device {
        self.device.clone().inner()
    }

    /// The first EMA, which samples are made of.
    fn averaged(&self) -> Result<Weights> {
        let ema = self.emas.first().context("the table [ema] is missing")?;
        Ok(Weights {
            file: "the network in training".into(),
            tensors: views(&ema.values, &layout(&self.network)),
            metadata: self.metadata.clone(),
            ..Weights::default()
        })
    }

    /// Gradients of the whole step over all ranks, and the losses of each rank's micro-batches with their names.
    fn gradients(&mut self, step: u64) -> Result<(Flat, Vec<&'static str>, Gathered)> {
        let (mut names, mut losses) = (Vec::new(), Vec::new());
        let mut before = Flat::new();
        for _ in 1..self.steps.accumulate {
            let loss = self.micro_batch(step, &mut names, &mut losses)?;
            add(&mut before, loss.gradients(&self.network));
        }
        // With recomputation, the sum over ranks begins while earlier blocks of the last micro-batch are still being
        // differentiated.
        let loss = self.micro_batch(step, &mut names, &mut losses)?;
        let mut sum = Reduction::new(&self.comm, &mut self.pieces, before);
        loss.gradients_in_pieces(&self.network, &mut |piece| sum.add(piece));
        let gradients = sum.finish()?;
        let losses = Tensor::cat(losses, 0).cast(FloatDType::F32); // [accumulate·names]
        Ok((gradients, names, self.comm.gather(losses)?))
    }

    /// The loss of the next micro-batch. Its terms are added to `losses`, `[1]` each, in the order of `names`.
    fn micro_batch(
        &mut self,
        step: u64,
        names: &mut Vec<&'static str>,
        losses: &mut Vec<Tensor<1>>,
    ) -> Result<Loss> {
        let compute = self.steps.compute;
        let batch = self.next_batch(step)?;
        let network = match compute.precision {
            FloatDType::F32 => self.network.clone(),
            precision => computing_in(&self.network, precision),
        };
        let loss = self.objective.loss(&network, batch, compute, &self.device)?;
        *names = vec!["loss"];
        losses.push(loss.total.clone().inner());
        for (name, term) in &loss.terms {
            names.push(name);
            losses.push(term.clone().inner());
        }
        Ok(loss)
    }

    /// Reads how the step in flight ended, if there is one.
    fn resolve(&mut self) -> Result<()> {
        let Some(InFlight { names, losses, numbers, lr }) = self.in_flight.take() else {
            return Ok(());
        };
        let numbers = numbers.wait()?;
        let made = StepGuard::scale(&numbers, None).is_some();
        match made {
            // A step that changes nothing does not move the averages, either.
            true => self.emas.iter_mut().for_each(|ema| ema.updates += 1),
            false => self.optimizer.take_back(),
        }
        let Numbers { sums, stop } = losses.decode(&numbers[1..]);
        let mut values: Vec<(String, f64)> =
            names.iter().map(|name| (name.to_string(), 0.0)).collect();
        for micro_batch in sums.chunks(names.len()) {
            values.iter_mut().zip(micro_batch).for_each(|((_, sum), loss)| *sum += loss);
        }
        values.push(("grad_norm".into(), norm(&numbers)));
        values.push(("lr".into(), lr));
        self.reports.push_back(Report { values, skipped: !made, stop });
        Ok(())
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

impl<O: Objective> Trainer for DiffusionTrainer<O> {
    fn step(&mut self, step: u64) -> Result<()> {
        let (gradients, names, losses) = self.gradients(step)?;
        let AdamWConfig { max_grad_norm, .. } = self.optimizer.config;
        let lr = self.optimizer.config.lr_at(step);
        let guard = guard(&gradients, Some(losses.values.clone()), max_grad_norm);
        let numbers = Readback::begin(guard.numbers.clone());
        // How the step before ended decides the bias corrections and decays of this one. The device has both of this one's
        // passes to do meanwhile.
        self.resolve()?;
        let parameters = take_flat(&mut self.network);
        let parameters = self.optimizer.update(parameters, gradients, &guard, &mut self.emas, lr);
        self.network = with_flat(self.network.clone(), &parameters);
        drop(parameters);
        if !self.emas.is_empty() {
            let values = flat(&self.network, Which::All);
            self.emas.iter_mut().for_each(|ema| ema.move_rest(&values, &guard));
        }
        self.in_flight = Some(InFlight { names, losses, numbers, lr });
        Ok(())
    }

    fn runs_ahead(&self) -> bool {
        self.comm.stays_on_device() && !is_processor(&self.plain_device())
    }

    fn settle(&mut self) -> Result<Report> {
        if self.reports.is_empty() {
            self.resolve()?;
        }
        self.reports.pop_front().context("all steps were settled")
    }

    fn weights(&self, which: Which) -> Flat {
        flat(&self.network, which)
    }

    fn set_weights(&mut self, weights: Flat) {
        self.network = with_flat(self.network.clone(), &weights);
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let mut metadata = self.metadata.clone();
        metadata.insert("section".into(), "model".into());
        let mut files = vec![TensorFile {
            name: "model.safetensors",
            tensors: snapshot(&self.network),
            metadata,
        }];
        files.extend(ema::files(&self.emas, &layout(&self.network), &self.metadata));
        files.push(TensorFile {
            name: "optimizer.safetensors",
            tensors: self.optimizer.to_tensors(),
            metadata: self.optimizer.metadata(),
        });
        Ok(files)
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let weights = open(&checkpoint.join("model.safetensors"))?;
        let network = self.network.clone();
        self.network = load(network, &weights, FloatDType::F32, &self.device)?.network;
        let own = flat(&self.network, Which::All);
        self.emas = ema::restored(&self.emas, checkpoint, &own)?;
        let optimizer = open(&checkpoint.join("optimizer.safetensors"))?;
        let parameters = flat(&self.network, Which::Trainable);
        let device = self.plain_device();
        Ok(self.optimizer.restore(&optimizer, &parameters, &device)?)
    }

    fn preview(&mut self) -> Result<Option<Rgb>> {
        let Some(previewer) = &self.watchers.previewer else { return Ok(None) };
        previewer.draw(&self.averaged()?, &self.plain_device()).map(Some)
    }

    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Option<Vec<(String, f64)>>> {
        if self.watchers.evaluator.is_none() {
            return Ok(None);
        }
        let weights = self.averaged().context("the evaluation failed")?;
        let device = self.plain_device();
        let Some(evaluator) = &mut self.watchers.evaluator else { return Ok(None) };
        evaluator.evaluate(&weights, &device, stop).context("the evaluation failed")
    }

    fn initialized(&self) -> Option<&str> {
        self.initialized.as_deref()
    }

    fn data(&self) -> DataRecord {
        self.objective.data()
    }

    fn architecture(&self) -> Value {
        self.objective.config()
    }

    fn macs(&self) -> f64 {
        self.objective.macs()
    }
}

/// Initializes a network from a seed, on the CPU so that it is the same on every device of a machine.
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
