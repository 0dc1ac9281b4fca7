//! The trainer of RAE's decoder.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::rae::{RaeDecoder, RaeDecoderConfig, decoder_part, noised};
use tintype::noise::ImageKey;
use tintype::weights::{Flat, Which, flat, layout, load, open, snapshot, take_flat, with_flat};

use super::batch::{Batch, Noise, pictures};
use super::passes::signed;
use super::{FrozenEncoder, Inputs, RaeDecoderLoss, generator_pass};
use crate::data::store::ImageStore;
use crate::network::lpips::{Lpips, Perceptual};
use crate::network::patchgan::PatchGan;
use crate::train::adamw::{AdamW, AdamWConfig, Group, guard, norm};
use crate::train::adversary::{Adversary, Lesson};
use crate::train::checkpoint::TensorFile;
use crate::train::comm::{Comm, CommError};
use crate::train::diff_augment::{Change, Look, augmented};
use crate::train::ema::{self, Ema, EmaConfig};
use crate::train::epoch_sampler::{EpochSampler, SampleIndex};
use crate::train::host::vector;
use crate::train::init::{DISCRIMINATOR, Opened};
use crate::train::prefetch::Prefetch;
use crate::train::record::DataRecord;
use crate::train::trainer::{Report, Trainer};

/// The networks of the training.
pub struct Networks {
    /// Frozen.
    pub encoder: FrozenEncoder,
    /// What is trained.
    pub decoder: RaeDecoder,
    /// What it is trained against.
    pub discriminator: PatchGan,
    /// Frozen; without it the reconstruction loss is L1 alone.
    pub lpips: Option<Lpips>,
}

/// The trainer of the decoder on one device.
pub struct RaeDecoderTraining {
    model: RaeDecoderConfig,
    loss: RaeDecoderLoss,
    encoder: FrozenEncoder,
    /// On the graph.
    decoder: RaeDecoder,
    optimizer: AdamW,
    /// On rank 0.
    emas: Vec<Ema>,
    adversary: Adversary,
    lpips: Option<Lpips>,
    images: Arc<ImageStore>,
    sampler: Arc<EpochSampler>,
    batch: usize,
    seed: u64,
    comm: Comm,
    device: Device,
    batches: Option<Prefetch<Batch>>,
    /// What was taken from `init.from`.
    initialized: Option<String>,
    reports: VecDeque<Report>,
}

impl RaeDecoderTraining {
    /// Creates the trainer from initialized networks; the images have been checked against them
    /// ([`check_data`](super::check_data)).
    ///
    /// # Errors
    ///
    /// If the encoder's latents are not those that the decoder takes.
    pub fn new(
        (model, loss): (RaeDecoderConfig, RaeDecoderLoss),
        networks: Networks,
        (optimizer, emas): (AdamWConfig, &[EmaConfig]),
        (images, sampler): (Arc<ImageStore>, EpochSampler),
        (batch, seed): (usize, u64),
        comm: Comm,
        device: &Device,
    ) -> Result<Self> {
        let Networks { encoder, decoder, discriminator, lpips } = networks;
        ensure!(
            encoder.shape == latent(&model),
            "the encoder's latents have shape {:?} and the decoder takes {:?}; set data.encoder_input_size or model.latent_channels",
            encoder.shape,
            latent(&model)
        );
        let own = flat(&decoder, Which::All);
        let average = |&config: &EmaConfig| Ema::new(config, batch, own.clone());
        Ok(Self {
            emas: emas.iter().filter(|_| comm.rank == 0).map(average).collect(),
            optimizer: AdamW::new(optimizer, |_| Group::PLAIN),
            adversary: Adversary::new(discriminator, optimizer),
            model,
            loss,
            encoder,
            decoder,
            lpips,
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

    /// Initializes decoder and discriminator from another run, or the decoder from the authors' files. Optimizers and
    /// averages begin anew.
    ///
    /// # Errors
    ///
    /// If a tensor cannot be read or is not finite, or the tensors do not fit the networks.
    pub fn init_from(&mut self, origin: &Opened) -> Result<()> {
        let weights = decoder_part(origin.weights.clone());
        let decoder = self.decoder.clone();
        self.decoder = load(decoder, &weights, FloatDType::F32, &self.device)?.network;
        let own = flat(&self.decoder, Which::All);
        self.emas = self.emas.iter().map(|ema| ema.begun_with(own.clone(), 0)).collect();
        let said = match origin.beside.get(DISCRIMINATOR) {
            Some(weights) => {
                self.adversary.take(weights, &self.device)?;
                "decoder and discriminator taken"
            }
            None => "decoder taken; discriminator not there, initialized",
        };
        let note = origin.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        self.initialized = Some(format!("init.from {}: {said}{note}", origin.path.display()));
        Ok(())
    }

    fn plain_device(&self) -> Device {
        self.device.clone().inner()
    }

    fn side(&self) -> usize {
        self.model.image_size()
    }

    fn next_batch(&mut self, step: u64) -> Result<Batch> {
        if self.batches.is_none() {
            let (images, sampler, loss) = (self.images.clone(), self.sampler.clone(), self.loss);
            let (batch, seed, share) = (self.batch, self.seed, self.comm.share(self.batch));
            let shapes = (self.side(), latent(&self.model));
            self.batches = Some(Prefetch::new(move |number| {
                let samples = sampler.batch(step + number, batch, share.clone());
                Ok(Batch::new(&images, &samples, &loss, shapes, seed))
            }));
        }
        self.batches.as_ref().context("it was just made")?.next()
    }

    /// What happens to the pictures that the discriminator sees; absent without augmentation.
    fn changes(&self, keys: &[ImageKey], look: Look) -> Vec<Change> {
        let drawn = |&key: &ImageKey| Change::drawn(key, look, self.side());
        match self.loss.diff_augment {
            true => keys.iter().map(drawn).collect(),
            false => Vec::new(),
        }
    }

    /// What the discriminator learns from a batch: of a fresh reconstruction, by the new weights, without noise and in
    /// 8-bit levels.
    fn lesson(
        &self,
        images: Tensor<4>,
        z: Tensor<4>,
        keys: &[ImageKey],
    ) -> Result<Lesson, CommError> {
        let fake = signed(levels(self.decoder.valid().forward(z)));
        let fake = augmented(fake, &self.changes(keys, Look::Fake));
        let real = Tensor::from_inner(augmented(signed(images), &self.changes(keys, Look::Real)));
        let max_norm = self.adversary.max_norm();
        Lesson::new(&self.adversary.network, real, fake, &self.comm, max_norm)
    }

    /// The decoder as images are made with it.
    fn averaged(&self) -> RaeDecoder {
        let decoder = self.decoder.valid();
        match self.emas.first() {
            Some(ema) => with_flat(decoder, &ema.values),
            None => decoder,
        }
    }
}

/// The shape of an image's latents.
fn latent(model: &RaeDecoderConfig) -> [usize; 3] {
    [model.latent_channels, model.grid, model.grid]
}

/// Images in 0…1 as 8 bits hold them.
///
/// # Shapes
///
/// * `x`: `[B, 3, H, W]`
/// * returns the same
pub(super) fn levels(x: Tensor<4>) -> Tensor<4> {
    (x.clamp(0.0, 1.0) * 255.0).round() / 255.0
}

impl Trainer for RaeDecoderTraining {
    fn step(&mut self, step: u64) -> Result<()> {
        let Batch { images, noise, keys } = self.next_batch(step)?;
        let plain = self.plain_device();
        let images = images.tensor(&plain); // [B, 3, S, S]
        let z = self.encoder.encode(images.clone()); // [B, C, h, w]
        let noisy = match noise {
            Some(Noise { u, eps }) => {
                noised(z.clone(), self.loss.noise_tau, vector(&u, &plain), eps.tensor(&plain))
            }
            None => z.clone(),
        };
        let perceptual =
            self.lpips.as_ref().map(|lpips| move |a: Tensor<4>, b: Tensor<4>| lpips.forward(a, b));
        let inputs = Inputs {
            images: Tensor::from_inner(images.clone()),
            z: Tensor::from_inner(noisy),
            changes: self.changes(&keys, Look::Generator),
            perceptual: perceptual.as_ref().map(|p| p as Perceptual<'_>),
        };
        let opponent = &self.adversary.network;
        let pass = generator_pass(&self.decoder, opponent, inputs, &self.loss, step);
        let gradients = self.comm.mean(pass.gradients)?;
        let (mut values, mut stop) = self.comm.mean_losses(pass.values)?;
        let AdamWConfig { max_grad_norm, .. } = self.optimizer.config;
        let lr = self.optimizer.config.lr_at(step);
        let generator = guard(&gradients, None, max_grad_norm);
        let norm = norm(&generator.read());
        let mut finite = norm.is_finite() && values.iter().all(|(_, v)| v.is_finite());
        values.push(("grad_norm".into(), norm));
        if finite {
            let own_step = self.loss.discriminator_step(step);
            // The discriminator sees the new weights; should its gradients not be finite, neither network changes.
            let before = own_step.map(|_| (self.decoder.clone(), self.optimizer.clone()));
            let parameters = take_flat(&mut self.decoder);
            let parameters = self.optimizer.update(parameters, gradients, &generator, &mut [], lr);
            self.decoder = with_flat(self.decoder.clone(), &parameters);
            if let (Some(own_step), Some(before)) = (own_step, before) {
                let lesson = match self.lesson(images, z, &keys) {
                    Ok(lesson) => lesson,
                    Err(error) => {
                        (self.decoder, self.optimizer) = before;
                        return Err(error.into());
                    }
                };
                finite = lesson.is_finite();
                stop |= lesson.stop;
                values.extend(lesson.values.iter().cloned());
                match finite {
                    true => {
                        // Its schedule begins with it.
                        let lr = self.optimizer.config.lr_at(own_step);
                        self.adversary.learn(lesson, lr);
                    }
                    false => (self.decoder, self.optimizer) = before,
                }
            }
        }
        // A step that changes nothing does not move the averages, either.
        if finite && !self.emas.is_empty() {
            let now = flat(&self.decoder, Which::All);
            for ema in &mut self.emas {
                ema.move_rest(&now, &generator);
                ema.updates += 1;
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
        let mut weights = flat(&self.decoder, which);
        weights.extend(self.adversary.weights(which));
        weights
    }

    fn set_weights(&mut self, weights: Flat) {
        self.adversary.set_weights(&weights);
        self.decoder = with_flat(self.decoder.clone(), &weights);
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let metadata = BTreeMap::from([
            ("format".to_string(), "pt".to_string()),
            ("config".to_string(), serde_json::to_string(&self.model)?),
        ]);
        let mut of_model = metadata.clone();
        of_model.insert("section".into(), "model".into());
        let mut files = vec![
            TensorFile {
                name: "model.safetensors",
                tensors: snapshot(&self.decoder),
                metadata: of_model,
            },
            TensorFile {
                name: "optimizer.safetensors",
                tensors: self.optimizer.to_tensors(),
                metadata: self.optimizer.metadata(),
            },
        ];
        files.extend(ema::files(&self.emas, &layout(&self.decoder), &metadata));
        files.extend(self.adversary.files());
        Ok(files)
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let weights = open(&checkpoint.join("model.safetensors"))?;
        let decoder = self.decoder.clone();
        self.decoder = load(decoder, &weights, FloatDType::F32, &self.device)?.network;
        let own = flat(&self.decoder, Which::All);
        self.emas = ema::restored(&self.emas, checkpoint, &own)?;
        self.adversary.restore(checkpoint, &self.device)?;
        let parameters = flat(&self.decoder, Which::Trainable);
        let history = open(&checkpoint.join("optimizer.safetensors"))?;
        Ok(self.optimizer.restore(&history, &parameters, &self.plain_device())?)
    }

    /// A grid of eight images over their reconstructions.
    fn preview(&mut self) -> Result<Option<Rgb>> {
        let n = self.images.len().min(8);
        let samples = SampleIndex::spread(n, self.images.len());
        let images = pictures(&self.images, &samples, 0, self.side()).tensor(&self.plain_device());
        let decoded = self.averaged().forward(self.encoder.encode(images.clone()));
        let rows = [images, decoded]
            .into_iter()
            .flat_map(|images| to_rgb(&signed(images).into_data().convert::<f32>(), Rounding::Up));
        Ok(Some(Rgb::grid(&rows.collect::<Vec<_>>(), n, 2)))
    }

    fn initialized(&self) -> Option<&str> {
        self.initialized.as_deref()
    }

    fn data(&self) -> DataRecord {
        let store = DataRecord::of_store(&self.images);
        let fingerprint = format!("{}-{}", store.fingerprint, self.encoder.fingerprint);
        DataRecord { fingerprint, ..store }
    }

    fn architecture(&self) -> Value {
        json!({ "rae_decoder": self.model, "disc_channels": self.loss.disc_channels })
    }

    fn macs(&self) -> f64 {
        self.model.macs()
    }
}
