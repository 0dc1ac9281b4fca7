//! Hi-DiT's training (`hidit` §3): stage 1 on latents alone, stage 2 with the pixel stream.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::{Interpolant, TimeDensity};
use tintype::diffusion::loss::{mean_squared_error, pixel_velocity_loss, projection_loss};
use tintype::model::hidit::{HiDiT, HiDiTConfig};
use tintype::model::sit::SiTConfig;
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use super::adamw::{Group, Groups};
use super::classes::check_classes;
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::latents::Latents;
use super::objective::{Compute, Loss, Objective};
use super::recompute::Tape;
use super::record::DataRecord;
use super::teacher::Teacher;
use crate::data::store::ImageStore;

/// Target space of the pixel stream's loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelLoss {
    /// Velocity: `‖x̂ − x‖² / max(t, t_min)²`
    #[default]
    V,
    /// The image: `‖x̂ − x‖²`
    X,
}

/// The settings of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HiDiTLoss {
    /// 1: latent stream only, the pixel stream is frozen. 2: both streams.
    pub stage: u8,
    /// Probability that a label is replaced by the null class.
    pub label_dropout: f64,
    /// Distribution of the times.
    pub time: TimeDensity,
    /// Weight λ of the pixel stream.
    pub pixel_weight: f64,
    /// Target space of the pixel stream's loss.
    pub pixel_loss: PixelLoss,
    /// Weight of the alignment with the teacher's features.
    pub repa_weight: f64,
    /// Standard deviation of noise on normalised latents if the gate is open; 0 for none.
    pub latent_noise: f64,
}

impl Default for HiDiTLoss {
    fn default() -> Self {
        Self {
            stage: 1,
            label_dropout: 0.1,
            time: TimeDensity::Uniform,
            pixel_weight: 1.0,
            pixel_loss: PixelLoss::V,
            repa_weight: 0.5,
            latent_noise: 0.0,
        }
    }
}

/// The objective.
pub struct HiDiTObjective {
    /// The network's shape.
    pub model: HiDiTConfig,
    /// The losses.
    pub loss: HiDiTLoss,
    /// Cached latents.
    pub latents: Arc<Latents>,
    /// Images, where pixels or a teacher need them.
    pub images: Option<Arc<ImageStore>>,
    /// REPA's teacher, on the device that trains.
    pub teacher: Option<Teacher>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct Batch {
    /// Latents, not normalised, `[B, C, S, S]`.
    pub latents: Values<4>,
    /// Their noise.
    pub noise: Values<4>,
    /// Noise on the normalised latents, where it is used.
    pub robustness: Option<Values<4>>,
    /// Times.
    pub t: Vec<f32>,
    /// Classes, dropped ones replaced.
    pub labels: Vec<usize>,
    /// One over the global batch.
    pub weight: f64,
    /// Stage 2.
    pub pixels: Option<PixelBatch>,
    /// The teacher's input.
    pub teacher_input: Option<Values<4>>,
}

/// Host values of the pixel stream.
pub struct PixelBatch {
    /// Clean images in −1…1, `[B, 3, H, W]`; zeros where the gate is closed.
    pub images: Values<4>,
    /// Their noise.
    pub noise: Values<4>,
    /// Each sample's share: λ over the open gates of the global batch, 0 where it is closed.
    pub weights: Vec<f32>,
}

impl HiDiTObjective {
    fn key(&self, global_index: u64) -> ImageKey {
        ImageKey::new(self.seed, global_index)
    }

    /// The time of a sample.
    fn time(&self, global_index: u64) -> f32 {
        let key = self.key(global_index);
        let uniform = uniforms(key, Stream::Time, 0, 1)[0];
        let normal = match self.loss.time {
            TimeDensity::Uniform => 0.0,
            TimeDensity::Lognormal => normals(key, Stream::Time, 1, 1)[0] as f64,
        };
        self.loss.time.sample(Interpolant::Linear, uniform, normal) as f32
    }

    fn open(&self, t: f32) -> bool {
        t < self.model.tau as f32
    }

    fn pixel_batch(
        &self,
        samples: &[SampleIndex],
        t: &[f32],
        step: u64,
        batch: usize,
    ) -> Result<PixelBatch> {
        let images = self.images.as_ref().context("stage 2 needs images")?;
        let size = 3 * self.model.image * self.model.image;
        let first = step * batch as u64;
        // Every rank knows every time, so the mean over open gates needs no communication.
        let open = (first..first + batch as u64).filter(|&p| self.open(self.time(p))).count();
        let share = self.loss.pixel_weight / open.max(1) as f64;
        let parts: Vec<(Vec<f32>, Vec<f32>)> = samples
            .par_iter()
            .zip(t)
            .map(|(sample, &t)| match self.open(t) {
                true => {
                    let noise = normals(self.key(sample.global_index), Stream::PixelNoise, 0, size);
                    (images.planes(sample.item), noise)
                }
                false => (vec![0.0; size], vec![0.0; size]),
            })
            .collect();
        let shape = [samples.len(), 3, self.model.image, self.model.image];
        let (clean, noise): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok(PixelBatch {
            images: Values::new(clean.concat(), shape),
            noise: Values::new(noise.concat(), shape),
            weights: t.iter().map(|&t| if self.open(t) { share as f32 } else { 0.0 }).collect(),
        })
    }
}

impl Objective for HiDiTObjective {
    type Network = HiDiT;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Batch> {
        let [c, h, w] = self.latents.shape;
        let shape = [samples.len(), c, h, w];
        let t: Vec<f32> = samples.iter().map(|p| self.time(p.global_index)).collect();
        let latents: Vec<Vec<f32>> = samples
            .par_iter()
            .map(|&sample| self.latents.draw(sample, self.seed, false))
            .collect::<Result<_>>()?;
        let noise = |stream: Stream, scale: f32| -> Vec<f32> {
            let one = |p: &SampleIndex| normals(self.key(p.global_index), stream, 0, c * h * w);
            let parts: Vec<Vec<f32>> = samples.par_iter().map(one).collect();
            parts.concat().into_iter().map(|v| v * scale).collect()
        };
        let label = |p: &SampleIndex| {
            let dropped = uniforms(self.key(p.global_index), Stream::Choice, 0, 1)[0];
            match self.latents.labels[p.item] {
                Some(label) if dropped >= self.loss.label_dropout => label,
                _ => self.model.sit.num_classes,
            }
        };
        let pixels = match self.loss.stage {
            1 => None,
            _ => Some(self.pixel_batch(samples, &t, step, batch)?),
        };
        let robustness = (self.loss.latent_noise > 0.0 && pixels.is_some()).then(|| {
            let mut values = noise(Stream::Step, self.loss.latent_noise as f32);
            for (part, &t) in values.chunks_exact_mut(c * h * w).zip(&t) {
                if !self.open(t) {
                    part.fill(0.0);
                }
            }
            Values::new(values, shape)
        });
        let teacher_input = match (&self.teacher, &self.images) {
            (Some(teacher), Some(images)) => Some(teacher.repa_input(images, samples)),
            _ => None,
        };
        Ok(Batch {
            latents: Values::new(latents.concat(), shape),
            noise: Values::new(noise(Stream::Noise, 1.0), shape),
            robustness,
            labels: samples.iter().map(label).collect(),
            t,
            weight: 1.0 / batch as f64,
            pixels,
            teacher_input,
        })
    }

    fn loss(
        &self,
        network: &HiDiT,
        batch: Batch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss> {
        let teacher = match (&self.teacher, batch.teacher_input) {
            (Some(teacher), Some(input)) => {
                let features = teacher.features(input);
                Some(Tensor::from_inner(features))
            }
            _ => None,
        };
        let mut clean = network.sit.normalize(batch.latents.tensor(device));
        if let Some(robustness) = batch.robustness {
            clean = clean + robustness.tensor(device);
        }
        let inputs = Inputs {
            clean,
            noise: batch.noise.tensor(device),
            t: vector(&batch.t, device),
            labels: batch.labels,
            weight: batch.weight,
            pixels: batch.pixels.map(|p| Pixels {
                images: p.images.tensor(device),
                noise: p.noise.tensor(device),
                weights: vector(&p.weights, device),
            }),
            teacher: teacher.into_iter().collect(),
        };
        Ok(loss(network, inputs, &self.loss, compute))
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn config(&self) -> Value {
        json!(self.model)
    }

    fn data(&self) -> DataRecord {
        let seen = self.loss.stage != 1 || self.teacher.is_some();
        self.latents.record().with(self.images.as_deref().filter(|_| seen))
    }

    fn macs(&self) -> f64 {
        match self.loss.stage {
            1 => macs(&self.model.sit),
            _ => macs(&self.model.sit) * PIXEL_BRANCH,
        }
    }
}

/// MACs of the pixel branch relative to the latent stream (`hidit` §6).
const PIXEL_BRANCH: f64 = 1.034;

/// Multiply-adds of one sample's forward pass.
pub fn macs(sit: &SiTConfig) -> f64 {
    let (l, n, d) = (sit.depth as f64, sit.tokens() as f64, sit.hidden_size as f64);
    let patch = (sit.patch_size * sit.patch_size * 2 * sit.in_channels) as f64;
    l * (12.0 * n * d * d + 2.0 * n * n * d + 6.0 * d * d) + n * d * patch + 3.0 * d * d + 256.0 * d
}

/// Device values of some samples.
pub struct Inputs {
    /// Normalised latents, `[B, C, S, S]`.
    pub clean: Tensor<4>,
    /// Their noise.
    pub noise: Tensor<4>,
    /// Times, `[B]`.
    pub t: Tensor<1>,
    /// Classes.
    pub labels: Vec<usize>,
    /// One over the global batch.
    pub weight: f64,
    /// Stage 2.
    pub pixels: Option<Pixels>,
    /// Each teacher's features, `[B, N, z]`.
    pub teacher: Vec<Tensor<3>>,
}

/// Device values of the pixel stream.
pub struct Pixels {
    /// Clean images, `[B, 3, H, W]`.
    pub images: Tensor<4>,
    /// Their noise.
    pub noise: Tensor<4>,
    /// Each sample's share of the loss, `[B]`.
    pub weights: Tensor<1>,
}

/// `L_latent + repa_weight·L_REPA + λ·L_pixel` of some samples, each term over the global batch.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term
///
/// # Panics
///
/// If the inputs do not fit the network or each other.
pub fn loss(network: &HiDiT, inputs: Inputs, settings: &HiDiTLoss, compute: Compute) -> Loss {
    let Inputs { clean, noise, t, labels, weight, pixels, teacher } = inputs;
    let y = classes(&labels, &clean.device());
    let (z_t, target) = Interpolant::Linear.interpolate(clean, noise, t.clone());
    let z_t = z_t.cast(compute.precision);
    let x_t = pixels.as_ref().map(|p| {
        let (x_t, _) =
            Interpolant::Linear.interpolate(p.images.clone(), p.noise.clone(), t.clone());
        x_t.cast(compute.precision)
    });
    let mut tape = Tape::new(compute.recompute);
    let features = !teacher.is_empty();
    let out = network.forward_training(z_t, x_t, t.clone(), y, features, &mut tape.dit());
    let f32 = FloatDType::F32;
    let latent = mean_squared_error(out.velocity.cast(f32), target).sum() * weight;
    let mut terms = vec![("latent", latent.clone())];
    let mut total = latent;
    if !teacher.is_empty() {
        let projected: Vec<_> = out.features.into_iter().map(|f| f.cast(f32)).collect();
        let samples = labels.len() as f64;
        let repa = projection_loss(&projected, &teacher) * (samples * weight);
        total = total + repa.clone() * settings.repa_weight;
        terms.push(("repa", repa));
    }
    if let (Some(pixels), Some(image)) = (pixels, out.image) {
        let image = image.cast(f32);
        let error = match settings.pixel_loss {
            PixelLoss::V => pixel_velocity_loss(image, pixels.images, t, network.t_min()),
            PixelLoss::X => mean_squared_error(image, pixels.images),
        };
        let pixel = (error * pixels.weights).sum();
        total = total + pixel.clone();
        terms.push(("pixel", pixel));
    }
    Loss { total, terms, tape: tape.into() }
}

/// Checks data against the network before anything is computed.
///
/// # Errors
///
/// If the stage is neither 1 nor 2, or if the latents, the classes or the images do not fit the
/// network or each other.
pub fn check_data(
    model: &HiDiTConfig,
    loss: &HiDiTLoss,
    latents: &Latents,
    images: Option<&ImageStore>,
) -> Result<()> {
    let sit = &model.sit;
    ensure!([1, 2].contains(&loss.stage), "loss.stage is {}, not 1 or 2", loss.stage);
    ensure!(
        latents.shape == [sit.in_channels, sit.input_size, sit.input_size],
        "the latents have shape {:?}, but the network expects {:?}",
        latents.shape,
        [sit.in_channels, sit.input_size, sit.input_size]
    );
    ensure!(
        latents.stats.is_of_channels(),
        "the statistics are those of positions, but the network normalises its latents by channel"
    );
    check_classes(&latents.labels, sit.num_classes)?;
    latents.check_dropout(loss.label_dropout, sit.class_dropout_prob)?;
    ensure!(
        loss.stage == 1 || images.is_some(),
        "stage 2 trains on pixels; name the image store in data.images"
    );
    if let Some(images) = images {
        let (side, wanted) = (images.side(), model.image);
        ensure!(side == wanted, "the images have {side} pixels a side and the network {wanted}");
        ensure!(
            images.len() == latents.len() && images.labels() == &latents.labels[..],
            "images and latents are not of the same dataset; encode this store again"
        );
    }
    Ok(())
}
