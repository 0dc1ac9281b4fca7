//! The trainer of the autoencoder.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::vavae::VaeConfig;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{Flat, Weights, Which, load, open};

use super::{Inputs, Networks, VaeLoss, generator_pass, macs};
use crate::data::store::ImageStore;
use crate::network::lpips::{Lpips, Perceptual};
use crate::network::patchgan::PatchGan;
use crate::train::adamw::{AdamW, AdamWConfig, Group, guard, norm};
use crate::train::adversary::{Adversary, Lesson};
use crate::train::checkpoint::TensorFile;
use crate::train::comm::Comm;
use crate::train::epoch_sampler::{EpochSampler, SampleIndex};
use crate::train::host::Values;
use crate::train::init::{DISCRIMINATOR, Opened};
use crate::train::prefetch::Prefetch;
use crate::train::random_crop::{crops, side_of_crops};
use crate::train::record::DataRecord;
use crate::train::teacher::Teacher;
use crate::train::trainer::{Report, Trainer};

/// Frozen networks of the losses; each is optional.
#[derive(Default)]
pub struct LossNetworks {
    /// LPIPS; without it the loss is L1 alone.
    pub lpips: Option<Lpips>,
    /// The vision foundation model; without it latents are not aligned.
    pub teacher: Option<Teacher>,
}

/// The trainer of the autoencoder on one device.
pub struct VaeTraining {
    model: VaeConfig,
    loss: VaeLoss,
    networks: Networks,
    optimizer: AdamW,
    adversary: Adversary,
    loss_networks: LossNetworks,
    images: Arc<ImageStore>,
    sampler: Arc<EpochSampler>,
    batch: usize,
    seed: u64,
    comm: Comm,
    device: Device,
    batches: Option<Prefetch<HostBatch>>,
    /// What was taken from `init.from`.
    initialized: Option<String>,
    reports: VecDeque<Report>,
}

struct HostBatch {
    images: Values<4>,
    eps: Values<4>,
    /// 8-bit planes for the teacher.
    bytes: Vec<u8>,
}

impl VaeTraining {
    /// Creates the trainer from initialized networks.
    ///
    /// # Errors
    ///
    /// If the images, or the crops of them, do not fit the autoencoder, the discriminator or the
    /// teacher.
    pub fn new(
        (model, loss): (VaeConfig, VaeLoss),
        (networks, discriminator): (Networks, PatchGan),
        loss_networks: LossNetworks,
        optimizer: AdamWConfig,
        (images, sampler): (Arc<ImageStore>, EpochSampler),
        (batch, seed): (usize, u64),
        comm: Comm,
        device: &Device,
    ) -> Result<Self> {
        let has_lpips = loss_networks.lpips.is_some();
        let side = side_of_crops(&images, loss.crop, loss.disc_weight > 0.0, has_lpips)?;
        ensure!(
            side.is_multiple_of(model.downsampling()),
            "the image resolution {side} is not a multiple of the autoencoder's downsampling factor {}",
            model.downsampling()
        );
        if loss_networks.teacher.is_some() {
            ensure!(
                side / model.downsampling() == 16,
                "the teacher has 16×16 features and the latents of images of {side} pixels are {0}×{0}",
                side / model.downsampling()
            );
        }
        Ok(Self {
            model,
            loss,
            networks,
            optimizer: AdamW::new(optimizer, |_| Group::PLAIN),
            adversary: Adversary::new(discriminator, optimizer),
            loss_networks,
            images,
            sampler: Arc::new(sampler),
            batch,
            seed,
            comm,
            device: device.clone(),
            batches: None,
            initialized: None,
            reports: VecDeque::new(),
        })
    }

    /// Initializes the networks from another stage; the optimizers are reset, as in the reference.
    ///
    /// # Errors
    ///
    /// If a tensor cannot be read or is not finite, or the tensors do not fit the networks.
    pub fn init_from(&mut self, origin: &Opened) -> Result<()> {
        let Opened { path, weights, beside, note } = origin;
        self.take_autoencoder(weights, true)?;
        let discriminator = match beside.get(DISCRIMINATOR) {
            Some(weights) => Some(weights.clone()),
            None => with_prefix(weights, "loss.discriminator."),
        };
        let said = match discriminator {
            Some(weights) => {
                self.adversary.take(&weights, &self.device)?;
                "autoencoder and discriminator taken"
            }
            None => "autoencoder taken; discriminator not there, initialized",
        };
        let note = note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        self.initialized = Some(format!("init.from {}: {said}{note}", path.display()));
        Ok(())
    }

    fn take_autoencoder(&mut self, weights: &Weights, fresh_proj: bool) -> Result<()> {
        let part = |prefixes: &[&str]| {
            let mut part = weights.clone();
            part.tensors.retain(|name, _| prefixes.iter().any(|p| name.starts_with(p)));
            part
        };
        let (networks, device) = (self.networks.clone(), &self.device);
        let encoder = part(&["encoder.", "quant_conv."]);
        self.networks.encoder = load(networks.encoder, &encoder, FloatDType::F32, device)?.network;
        let decoder = part(&["decoder.", "post_quant_conv."]);
        self.networks.decoder = load(networks.decoder, &decoder, FloatDType::F32, device)?.network;
        if let Some(proj) = networks.proj {
            let linear = part(&["linear_proj."]);
            if !(fresh_proj && linear.tensors.is_empty()) {
                self.networks.proj = Some(load(proj, &linear, FloatDType::F32, device)?.network);
            }
        }
        Ok(())
    }

    fn side(&self) -> usize {
        if self.loss.crop > 0 { self.loss.crop } else { self.images.side() }
    }

    fn next_batch(&mut self, step: u64) -> Result<HostBatch> {
        if self.batches.is_none() {
            let (images, sampler) = (self.images.clone(), self.sampler.clone());
            let (batch, seed, side) = (self.batch, self.seed, self.side());
            let share = self.comm.share(batch);
            let (c, f) = (self.model.latent_channels(), self.model.downsampling());
            self.batches = Some(Prefetch::new(move |number| {
                let samples = sampler.batch(step + number, batch, share.clone());
                Ok(collate(&images, &samples, seed, side, [c, side / f, side / f]))
            }));
        }
        match &self.batches {
            Some(batches) => batches.next(),
            None => bail!("the loader did not start"),
        }
    }
}

fn collate(
    images: &ImageStore,
    samples: &[SampleIndex],
    seed: u64,
    side: usize,
    latent: [usize; 3],
) -> HostBatch {
    let bytes = crops(images, samples, seed, side);
    let noise = |sample: &SampleIndex| {
        let key = ImageKey::new(seed, sample.global_index);
        normals(key, Stream::Posterior, 0, latent.iter().product())
    };
    let eps = samples.iter().flat_map(noise).collect();
    let values = bytes.iter().map(|&v: &u8| v as f32 / 127.5 - 1.0).collect();
    let [c, h, w] = latent;
    HostBatch {
        images: Values::new(values, [samples.len(), 3, side, side]),
        eps: Values::new(eps, [samples.len(), c, h, w]),
        bytes,
    }
}

/// The tensors below a prefix, if there are any.
fn with_prefix(weights: &Weights, prefix: &str) -> Option<Weights> {
    let mut part = weights.clone();
    part.tensors = weights
        .tensors
        .iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_string(), view.clone())))
        .collect();
    (!part.tensors.is_empty()).then_some(part)
}

impl Trainer for VaeTraining {
    fn step(&mut self, step: u64) -> Result<()> {
        let batch = self.next_batch(step)?;
        let features = match &self.loss_networks.teacher {
            Some(teacher) => {
                Some(Tensor::from_inner(teacher.feature_map(&batch.bytes, self.side())))
            }
            None => None,
        };
        let images = batch.images.tensor(&self.device);
        let perceptual = self
            .loss_networks
            .lpips
            .as_ref()
            .map(|lpips| move |a: Tensor<4>, b: Tensor<4>| lpips.forward(a, b));
        let inputs = Inputs {
            images: images.clone(),
            eps: batch.eps.tensor(&self.device),
            features,
            perceptual: perceptual.as_ref().map(|p| p as Perceptual<'_>),
        };
        let count = 2 * step; // of both optimizers, as the reference counts
        let opponent = &self.adversary.network;
        let pass = generator_pass(&self.networks, opponent, inputs, &self.loss, count);
        let gradients = self.comm.mean(pass.gradients)?;
        let (mut values, mut stop) = self.comm.mean_losses(pass.values)?;
        let AdamWConfig { max_grad_norm, .. } = self.optimizer.config;
        let lr = self.optimizer.config.lr_at(step);
        let guard = guard(&gradients, None, max_grad_norm);
        let norm = norm(&guard.read());
        let mut finite = norm.is_finite() && values.iter().all(|(_, v)| v.is_finite());
        values.push(("grad_norm".into(), norm));
        // Both networks change, or neither. The discriminator's pass needs nothing of the autoencoder's update.
        let mut lesson = None;
        if finite && self.loss.disc_weight > 0.0 && count + 1 >= self.loss.disc_start {
            let (comm, max_norm) = (&self.comm, self.adversary.max_norm());
            let new =
                Lesson::new(&pass.discriminator, images, pass.reconstruction, comm, max_norm)?;
            finite = new.is_finite();
            stop |= new.stop;
            values.extend(new.values.iter().cloned());
            lesson = Some(new);
        }
        if finite {
            let parameters = self.networks.autoencoder_values(Which::Trainable);
            let parameters = self.optimizer.update(parameters, gradients, &guard, &mut [], lr);
            self.networks = self.networks.clone().with_autoencoder(&parameters);
            match lesson {
                Some(lesson) => self.adversary.learn(lesson, lr),
                // With the statistics of the generator's pass.
                None => self.adversary.network = pass.discriminator,
            }
        }
        values.push(("lr".into(), lr));
        self.reports.push_back(Report { values, skipped: !finite, stop });
        Ok(())
    }

    fn settle(&mut self) -> Result<Report> {
        self.reports.pop_front().context("all steps were settled")
    }

    fn weights(&self, which: Which) -> Flat {
        let mut weights = self.networks.autoencoder_values(which);
        weights.extend(self.adversary.weights(which));
        weights
    }

    fn set_weights(&mut self, weights: Flat) {
        self.adversary.set_weights(&weights);
        self.networks = self.networks.clone().with_autoencoder(&weights);
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let config = serde_json::to_string(&self.model)?;
        let mut files = vec![
            TensorFile {
                name: "model.safetensors",
                tensors: self.networks.autoencoder_tensors(),
                metadata: BTreeMap::from([
                    ("format".to_string(), "pt".to_string()),
                    ("config".to_string(), config),
                ]),
            },
            TensorFile {
                name: "optimizer.safetensors",
                tensors: self.optimizer.to_tensors(),
                metadata: self.optimizer.metadata(),
            },
        ];
        files.extend(self.adversary.files());
        Ok(files)
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        self.take_autoencoder(&open(&checkpoint.join("model.safetensors"))?, false)?;
        self.adversary.restore(checkpoint, &self.device)?;
        let device = self.device.clone().inner();
        let parameters = self.networks.autoencoder_values(Which::Trainable);
        let history = open(&checkpoint.join("optimizer.safetensors"))?;
        Ok(self.optimizer.restore(&history, &parameters, &device)?)
    }

    /// A grid of eight images over their reconstructions.
    fn preview(&mut self) -> Result<Option<Rgb>> {
        let n = self.images.len().min(8);
        let samples = SampleIndex::spread(n, self.images.len());
        let side = self.side();
        let batch = collate(&self.images, &samples, 0, side, [1, 1, 1]);
        let images = batch.images.tensor(&self.device.clone().inner());
        let mean = self.networks.encoder.valid().encode(images.clone()).mean;
        let decoded = self.networks.decoder.valid().decode(mean);
        let mut rows = to_rgb(&images.into_data().convert::<f32>(), Rounding::Up);
        rows.extend(to_rgb(&decoded.into_data().convert::<f32>(), Rounding::Up));
        Ok(Some(Rgb::grid(&rows, n, 2)))
    }

    fn initialized(&self) -> Option<&str> {
        self.initialized.as_deref()
    }

    fn data(&self) -> DataRecord {
        DataRecord::of_store(&self.images)
    }

    fn architecture(&self) -> Value {
        json!({ "vae": self.model, "disc_channels": self.loss.disc_channels,
                "aligned": self.networks.proj.is_some() })
    }

    fn macs(&self) -> f64 {
        macs(&self.model, self.side())
    }
}
