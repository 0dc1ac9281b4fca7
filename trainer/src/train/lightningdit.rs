//! LightningDiT's training (`lightningdit` §8–10). Its clock: t = 0 is noise, t = 1 is data.

use std::sync::Arc;

use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::logit_normal;
use tintype::diffusion::loss::{cosine_loss, mean_squared_error};
use tintype::model::lightningdit::{LightningDiT, LightningDiTConfig};
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use super::adamw::{Group, Groups};
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::latents::Latents;
use super::objective::{Compute, Loss, Objective};
use super::recompute::Tape;
use super::record::DataRecord;

/// The settings of the losses; names are those of the published YAML.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LightningDiTLoss {
    /// Logit-normal times instead of uniform ones.
    pub use_lognorm: bool,
    /// Add the direction loss.
    pub use_cosine_loss: bool,
    /// Factor of normalised latents.
    pub latent_multiplier: f64,
    /// Random horizontal flips with probability ½.
    pub flips: bool,
}

impl Default for LightningDiTLoss {
    fn default() -> Self {
        Self { use_lognorm: true, use_cosine_loss: true, latent_multiplier: 1.0, flips: true }
    }
}

/// The objective.
pub struct LightningDiTObjective {
    /// The network's shape.
    pub model: LightningDiTConfig,
    /// The losses.
    pub loss: LightningDiTLoss,
    /// Cached latents.
    pub latents: Arc<Latents>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct Batch {
    /// Normalised latents x₁, `[B, C, S, S]`.
    pub data: Values<4>,
    /// Noise x₀.
    pub noise: Values<4>,
    /// Times.
    pub t: Vec<f32>,
    /// Classes, dropped ones replaced.
    pub labels: Vec<usize>,
    /// One over the global batch.
    pub weight: f64,
}

impl Objective for LightningDiTObjective {
    type Network = LightningDiT;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], _step: u64, batch: usize) -> Result<Batch> {
        let [c, h, w] = self.latents.shape;
        let multiplier = self.loss.latent_multiplier as f32;
        let one = |&sample: &SampleIndex| -> Result<_> {
            let key = ImageKey::new(self.seed, sample.global_index);
            let choice = uniforms(key, Stream::Choice, 0, 2);
            let flipped = self.loss.flips && self.latents.has_flips() && choice[1] < 0.5;
            let mut latent = self.latents.draw(sample, self.seed, flipped)?;
            self.latents.stats.normalize_values(&mut latent);
            latent.iter_mut().for_each(|v| *v *= multiplier);
            let noise = normals(key, Stream::Noise, 0, c * h * w);
            let t = match self.loss.use_lognorm {
                true => logit_normal(normals(key, Stream::Time, 1, 1)[0] as f64, 0.0, 1.0),
                false => uniforms(key, Stream::Time, 0, 1)[0],
            };
            let label = match self.latents.labels[sample.item] {
                Some(label) if choice[0] >= self.model.class_dropout_prob => label,
                _ => self.model.num_classes,
            };
            Ok((latent, noise, t as f32, label))
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect::<Result<_>>()?;
        let shape = [samples.len(), c, h, w];
        let (mut data, mut noise) = (Vec::new(), Vec::new());
        let (mut t, mut labels) = (Vec::new(), Vec::new());
        for (latent, eps, time, label) in parts {
            data.extend(latent);
            noise.extend(eps);
            t.push(time);
            labels.push(label);
        }
        Ok(Batch {
            data: Values::new(data, shape),
            noise: Values::new(noise, shape),
            t,
            labels,
            weight: 1.0 / batch as f64,
        })
    }

    fn loss(
        &self,
        network: &LightningDiT,
        batch: Batch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss> {
        Ok(loss(network, batch, &self.loss, compute, device))
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn config(&self) -> Value {
        json!(self.model)
    }

    fn data(&self) -> DataRecord {
        self.latents.record()
    }

    fn macs(&self) -> f64 {
        macs(&self.model)
    }
}

/// Multiply-adds of one sample's forward pass.
pub fn macs(m: &LightningDiTConfig) -> f64 {
    let n = ((m.input_size / m.patch_size) as f64).powi(2);
    let (l, d) = (m.depth as f64, m.hidden_size as f64);
    let patch = (m.patch_size * m.patch_size * 2 * m.in_channels) as f64;
    l * (12.0 * n * d * d + 2.0 * n * n * d + 6.0 * d * d) + n * d * patch + 3.0 * d * d + 256.0 * d
}

/// Mean squared error of the velocity and, where wanted, the direction loss of some samples.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term
///
/// # Panics
///
/// If the batch does not fit the network.
pub fn loss(
    network: &LightningDiT,
    batch: Batch,
    settings: &LightningDiTLoss,
    compute: Compute,
    device: &Device,
) -> Loss {
    let t = vector(&batch.t, device);
    let t4: Tensor<4> = t.clone().reshape([-1, 1, 1, 1]);
    let (x1, x0) = (batch.data.tensor(device), batch.noise.tensor(device));
    let x_t = x1.clone() * t4.clone() + x0.clone() * (-t4 + 1.0);
    let target = x1 - x0;
    let y = classes(&batch.labels, device);
    let mut tape = Tape::new(compute.recompute);
    let x_t = x_t.cast(compute.precision);
    let v = network.forward_through(x_t, t, y, &mut tape.dit()).cast(FloatDType::F32);
    let mse = mean_squared_error(v.clone(), target.clone()).sum() * batch.weight;
    let mut terms = vec![("mse", mse.clone())];
    let mut total = mse;
    if settings.use_cosine_loss {
        let cosine = cosine_loss(v, target).sum() * batch.weight;
        total = total + cosine.clone();
        terms.push(("cosine", cosine));
    }
    Loss { total, terms, tape: tape.into() }
}
