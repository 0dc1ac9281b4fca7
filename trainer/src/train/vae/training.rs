//! The trainer of the autoencoder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::vavae::VaeConfig;
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::{Flat, Weights, Which, flat, load, open, snapshot, take_flat, with_flat};

use super::{Inputs, Networks, Perceptual, VaeLoss, discriminator_pass, generator_pass, macs};
use crate::data::store::ImageStore;
use crate::network::lpips::Lpips;
use crate::train::adamw::{AdamW, AdamWConfig, Group, clip_scale, global_norm};
use crate::train::checkpoint::TensorFile;
use crate::train::comm::Comm;
use crate::train::epoch_sampler::{EpochSampler, SampleIndex};
use crate::train::host::Values;
use crate::train::init::{DISCRIMINATOR, Opened};
use crate::train::prefetch::Prefetch;
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
    optimizers: [AdamW; 2],
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
        networks: Networks,
        loss_networks: LossNetworks,
        optimizer: AdamWConfig,
        (images, sampler): (Arc<ImageStore>, EpochSampler),
        (batch, seed): (usize, u64),
        comm: Comm,
        device: &Device,
    ) -> Result<Self> {
        let side = if loss.crop > 0 { loss.crop } else { images.side() };
        ensure!(side <= images.side(), "loss.crop is larger than the images");
        ensure!(
            side.is_multiple_of(model.downsampling()),
            "the image resolution {side} is not a multiple of the autoencoder's downsampling factor {}",
            model.downsampling()
        );
        // Three halvings and two more 4×4 convolutions must leave a logit.
        ensure!(
            side >= 24 || loss.disc_weight == 0.0,
            "images of {side} pixels are too small for the discriminator, which needs 24; set loss.disc_weight = 0"
        );
        ensure!(
            side >= Lpips::SMALLEST || loss_networks.lpips.is_none(),
            "images of {side} pixels are too small for LPIPS, which needs {}; leave out data.vgg and data.lpips",
            Lpips::SMALLEST
        );
        if loss_networks.teacher.is_some() {
            ensure!(
                side / model.downsampling() == 16,
                "the teacher has 16×16 features and the latents of images of {side} pixels are {0}×{0}",
                side / model.downsampling()
            );
        }
        let adam = AdamW::new(optimizer, |_| Group::PLAIN);
        Ok(Self {
            model,
            loss,
            networks,
            optimizers: [adam.clone(), adam],
            loss_networks,
            images,
            sampler: Arc::new(sampler),
            batch,
            seed,
            comm,
            device: device.clone(),
            batches: None,
            initialized: None,
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
                self.take_discriminator(&weights)?;
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

    fn take_discriminator(&mut self, weights: &Weights) -> Result<()> {
        let network = self.networks.discriminator.clone();
        self.networks.discriminator =
            load(network, weights, FloatDType::F32, &self.device)?.network;
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

    /// The mean of gradients over devices, as in PyTorch's DDP.
    fn mean(&self, gradients: Flat) -> Flat {
        let share = 1.0 / self.comm.world as f64;
        match self.comm.world {
            1 => gradients,
            _ => self.comm.sum(gradients).into_iter().map(|(n, g)| (n, g * share)).collect(),
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
    let (mut bytes, mut eps) = (Vec::new(), Vec::new());
    for sample in samples {
        let key = ImageKey::new(seed, sample.global_index);
        let room = (images.side() - side + 1) as f64;
        let corner = uniforms(key, Stream::Choice, 0, 2);
        let [top, left] = [0, 1].map(|axis| (corner[axis] * room) as usize);
        let pixels = images.pixels(sample.item);
        for c in 0..3 {
            for y in top..top + side {
                let row = (y * images.side() + left) * 3;
                bytes.extend(pixels[row..row + 3 * side].iter().skip(c).step_by(3));
            }
        }
        eps.extend(normals(key, Stream::Posterior, 0, latent.iter().product()));
    }
    let values = bytes.iter().map(|&v: &u8| v as f32 / 127.5 - 1.0).collect();
    let [c, h, w] = latent;
    HostBatch {
        images: Values::new(values, [samples.len(), 3, side, side]),
        eps: Values::new(eps, [samples.len(), c, h, w]),
        bytes,
    }
}

/// The global L2 norm of the gradients of one network, read back.
fn norm_of(gradients: &Flat) -> f64 {
    let norm = global_norm(gradients).map(|norm| norm.into_data().convert::<f32>());
    norm.and_then(|norm| norm.iter::<f64>().next()).unwrap_or(0.0)
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
    fn step(&mut self, step: u64) -> Result<Report> {
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
        let pass = generator_pass(&self.networks, inputs, &self.loss, count);
        let gradients = self.mean(pass.gradients);
        let (names, tensors): (Vec<_>, Vec<_>) = pass.values.into_iter().unzip();
        let numbers = Tensor::cat(tensors, 0).into_data().convert::<f32>();
        let numbers: Vec<f64> = numbers.iter::<f64>().collect();
        let numbers = self.comm.sum_numbers(&numbers);
        let world = self.comm.world as f64;
        let mut values: Vec<(String, f64)> =
            names.iter().zip(numbers).map(|(n, v)| (n.to_string(), v / world)).collect();
        let AdamWConfig { max_grad_norm, .. } = self.optimizers[0].config;
        let lr = self.optimizers[0].config.lr_at(step);
        let norm = norm_of(&gradients);
        let scale = clip_scale(norm, max_grad_norm);
        let mut finite = norm.is_finite() && values.iter().all(|(_, v)| v.is_finite());
        values.push(("grad_norm".into(), norm));
        // Both networks change, or neither. The discriminator's pass needs nothing of the autoencoder's update.
        let mut discriminator = pass.discriminator;
        let mut adversary = None;
        if finite && self.loss.disc_weight > 0.0 && count + 1 >= self.loss.disc_start {
            let pass = discriminator_pass(&discriminator, images, pass.reconstruction);
            let gradients = self.mean(pass.gradients);
            let norm = norm_of(&gradients);
            let [real, fake] = pass.logits;
            let own = [("disc_loss", pass.loss), ("logits_real", real), ("logits_fake", fake)];
            for (name, value) in own {
                let value = value.into_data().convert::<f32>().iter::<f64>().next();
                let value = value.unwrap_or(f64::NAN);
                finite &= value.is_finite();
                values.push((name.into(), value));
            }
            values.push(("disc_grad_norm".into(), norm));
            // The losses are each rank's own, and all do the same.
            let bad = f64::from(u8::from(!(finite && norm.is_finite())));
            finite = self.comm.sum_numbers(&[bad])[0] == 0.0;
            discriminator = pass.discriminator;
            adversary = Some((gradients, clip_scale(norm, max_grad_norm)));
        }
        if finite {
            let parameters = self.networks.autoencoder_values(Which::Trainable);
            let parameters = self.optimizers[0].update(parameters, &gradients, scale, lr);
            self.networks = self.networks.clone().with_autoencoder(&parameters);
            if let Some((gradients, scale)) = adversary {
                let parameters = take_flat(&mut discriminator);
                let parameters = self.optimizers[1].update(parameters, &gradients, scale, lr);
                discriminator = with_flat(discriminator, &parameters);
            }
            self.networks.discriminator = discriminator;
        }
        values.push(("lr".into(), lr));
        Ok(Report { values, skipped: !finite })
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let format = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let file = |name, tensors, metadata| TensorFile { name, tensors, metadata };
        let [autoencoder, discriminator] = &self.optimizers;
        let config = serde_json::to_string(&self.model)?;
        Ok(vec![
            TensorFile {
                name: "model.safetensors",
                tensors: self.networks.autoencoder_tensors(),
                metadata: BTreeMap::from([
                    ("format".to_string(), "pt".to_string()),
                    ("config".to_string(), config),
                ]),
            },
            file("discriminator.safetensors", snapshot(&self.networks.discriminator), format),
            file("optimizer.safetensors", autoencoder.to_tensors(), autoencoder.metadata()),
            file(
                "optimizer-discriminator.safetensors",
                discriminator.to_tensors(),
                discriminator.metadata(),
            ),
        ])
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        self.take_autoencoder(&open(&checkpoint.join("model.safetensors"))?, false)?;
        self.take_discriminator(&open(&checkpoint.join("discriminator.safetensors"))?)?;
        let device = self.device.clone().inner();
        let parameters = self.networks.autoencoder_values(Which::Trainable);
        let history = open(&checkpoint.join("optimizer.safetensors"))?;
        self.optimizers[0].restore(&history, &parameters, &device)?;
        let parameters = flat(&self.networks.discriminator, Which::Trainable);
        let history = open(&checkpoint.join("optimizer-discriminator.safetensors"))?;
        Ok(self.optimizers[1].restore(&history, &parameters, &device)?)
    }

    /// A grid of eight images over their reconstructions.
    fn preview(&mut self) -> Result<Option<Rgb>> {
        let n = self.images.len().min(8);
        let samples: Vec<SampleIndex> = (0..n)
            .map(|i| SampleIndex {
                item: i * self.images.len() / n,
                index: i,
                global_index: i as u64,
            })
            .collect();
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
