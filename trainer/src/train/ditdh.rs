//! DiT-DH's training on latents of a representation autoencoder (RAE, arXiv 2510.11690), cached or encoded as it trains:
//! velocities at times that are shifted towards the noise by the number of a latent's values. Its clock: t = 0 is data,
//! t = 1 is noise.

use std::path::Path;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::loss::mean_squared_error;
use tintype::diffusion::time_shift::{shift_time, truncated_logit_normal};
use tintype::generate::LatentStats;
use tintype::model::ditdh::{DitDh, DitDhConfig};
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::{open, with_trained};

use super::adamw::{Group, Groups};
use super::classes::{check_classes, check_null_class, drop_class};
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::latents::Latents;
use super::objective::{Compute, Loss, Objective};
use super::rae_latents::{Collated, RaeLatents};
use super::recompute::Tape;
use super::record::DataRecord;
use crate::data::encoder::RAE_PATCH;
use crate::data::store::ImageStore;

/// The last time before the shift.
const LAST: f64 = 0.999;

/// The embeddings that the authors' first code froze and their present one trains: positions and the frequencies of
/// the time.
const EMBEDDINGS: [&str; 2] = ["pos_embed", "t_embedder.W"];

/// The settings of the losses; names are those of the authors' YAML.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DitDhLoss {
    /// Distribution of the times before their shift.
    pub time_dist_type: TimeDistribution,
    /// Keep positions and the frequencies of the time as they are initialized, as the published weights were trained.
    pub freeze_embeddings: bool,
    /// Random horizontal flips with probability ½.
    pub flips: bool,
}

impl Default for DitDhLoss {
    fn default() -> Self {
        Self {
            time_dist_type: TimeDistribution::LogitNormal { mu: 0.0, sigma: 1.0 },
            freeze_embeddings: false,
            flips: true,
        }
    }
}

impl DitDhLoss {
    /// The network with its embeddings trained or frozen.
    pub fn trained(&self, network: DitDh) -> DitDh {
        with_trained(network, &EMBEDDINGS, !self.freeze_embeddings)
    }
}

/// Distribution of times in 0…0.999: `uniform`, or `logit-normal_μ_σ`, truncated there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimeDistribution {
    /// Even.
    Uniform,
    /// Sigmoids of normal numbers.
    LogitNormal {
        /// Their mean.
        mu: f64,
        /// Their standard deviation, positive.
        sigma: f64,
    },
}

impl TimeDistribution {
    /// The time of a sample from a uniform number.
    pub fn time(self, uniform: f64) -> f64 {
        match self {
            Self::Uniform => uniform * LAST,
            Self::LogitNormal { mu, sigma } => truncated_logit_normal(uniform, mu, sigma, LAST),
        }
    }
}

impl TryFrom<String> for TimeDistribution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let numbers = || -> Option<(f64, f64)> {
            let (mu, sigma) = text.strip_prefix("logit-normal_")?.split_once('_')?;
            Some((mu.parse().ok()?, sigma.parse().ok()?))
        };
        match numbers() {
            Some((mu, sigma)) if mu.is_finite() && sigma.is_finite() && sigma > 0.0 => {
                Ok(Self::LogitNormal { mu, sigma })
            }
            _ => Err(format!(
                "loss.time_dist_type = {text:?} is unknown; it is \"uniform\", or \"logit-normal_0_1\" with mean and standard deviation"
            )),
        }
    }
}

impl From<TimeDistribution> for String {
    fn from(times: TimeDistribution) -> Self {
        match times {
            TimeDistribution::Uniform => "uniform".into(),
            TimeDistribution::LogitNormal { mu, sigma } => format!("logit-normal_{mu}_{sigma}"),
        }
    }
}

/// The objective.
pub struct DitDhObjective {
    /// The network's shape.
    pub model: DitDhConfig,
    /// The losses.
    pub loss: DitDhLoss,
    /// Latents, cached or made of images.
    pub latents: RaeLatents,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct Batch {
    /// Their latents, or what these are made of.
    pub latents: Collated,
    /// What is drawn for them.
    pub draws: Draws,
}

/// What is drawn for some samples.
pub struct Draws {
    /// Noise, `[B, C, h, w]`.
    pub noise: Values<4>,
    /// Shifted times.
    pub t: Vec<f32>,
    /// Classes, dropped ones replaced.
    pub labels: Vec<usize>,
    /// One over the global batch.
    pub weight: f64,
}

impl Objective for DitDhObjective {
    type Network = DitDh;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], _step: u64, batch: usize) -> Result<Batch> {
        let (shape, labelled) = (self.latents.shape(), self.latents.labels());
        let can_flip = self.loss.flips && self.latents.has_flips();
        let shift = self.model.shift();
        let one = |sample: &SampleIndex| {
            let key = ImageKey::new(self.seed, sample.global_index);
            let choice = uniforms(key, Stream::Choice, 0, 2);
            let noise = normals(key, Stream::Noise, 0, shape.iter().product());
            let uniform = uniforms(key, Stream::Time, 0, 1)[0];
            let t = shift_time(self.loss.time_dist_type.time(uniform), shift);
            let (rate, null) = (self.model.class_dropout_prob, self.model.num_classes);
            let label = match labelled[sample.item] {
                Some(label) => drop_class(label, choice[0], rate, null),
                None => null,
            };
            (can_flip && choice[1] < 0.5, noise, t as f32, label)
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect();
        let (mut flips, mut noise) = (Vec::new(), Vec::new());
        let (mut t, mut labels) = (Vec::new(), Vec::new());
        for (flipped, eps, time, label) in parts {
            flips.push(flipped);
            noise.extend(eps);
            t.push(time);
            labels.push(label);
        }
        let [c, h, w] = shape;
        Ok(Batch {
            latents: self.latents.collate(samples, &flips, self.seed)?,
            draws: Draws {
                noise: Values::new(noise, [samples.len(), c, h, w]),
                t,
                labels,
                weight: 1.0 / batch as f64,
            },
        })
    }

    fn loss(
        &self,
        network: &DitDh,
        batch: Batch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss> {
        let latents = batch.latents.tensor(device);
        Ok(loss(network, latents, batch.draws, compute, device))
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
        self.model.macs()
    }
}

/// Mean squared error of the velocity of some samples.
///
/// # Shapes
///
/// * `latents`: `[B, C, h, w]`, normalised, on `device` or from off the graph
/// * returns `[1]` in total
///
/// # Panics
///
/// If the samples do not fit the network.
pub fn loss(
    network: &DitDh,
    latents: Tensor<4>,
    draws: Draws,
    compute: Compute,
    device: &Device,
) -> Loss {
    let (t, noise) = (vector(&draws.t, device), draws.noise.tensor(device));
    let (x_t, target) = Interpolant::Linear.interpolate(latents, noise, t.clone());
    let y = classes(&draws.labels, device);
    let mut tape = Tape::new(compute.recompute);
    let x_t = x_t.cast(compute.precision);
    let v = network.forward_through(x_t, t, y, &mut tape.dit()).cast(FloatDType::F32);
    let total = mean_squared_error(v, target).sum() * draws.weight;
    Loss { total, terms: Vec::new(), tape: tape.into() }
}

/// Checks cached latents against the network before anything is computed.
///
/// # Errors
///
/// If the latents or the classes do not fit the network.
pub fn check_data(model: &DitDhConfig, latents: &Latents) -> Result<()> {
    let wanted = shape(model);
    ensure!(
        latents.shape == wanted,
        "the latents have shape {:?} and the network expects {wanted:?}",
        latents.shape
    );
    check_labels(model, &latents.labels)
}

/// Checks images against the network before their encoder is here.
///
/// # Errors
///
/// If the images, resized to `encoder_input_size` or by the default, or the classes do not fit the network.
pub fn check_images(
    model: &DitDhConfig,
    images: &ImageStore,
    encoder_input_size: Option<usize>,
) -> Result<()> {
    let (side, grid) = (images.side(), model.input_size);
    let wanted = RAE_PATCH * grid;
    ensure!(
        side == wanted || encoder_input_size.is_some(),
        "the images have {side} pixels a side, and {grid} by {grid} latents are those of {wanted}; prepare images of that size, or set data.encoder_input_size"
    );
    check_labels(model, images.labels())
}

/// Opens statistics of the network's latents.
///
/// # Errors
///
/// If the file cannot be read, or the statistics are those of other latents.
pub fn open_statistics(model: &DitDhConfig, path: &Path) -> Result<LatentStats> {
    let stats = LatentStats::from_weights(&open(path)?)?;
    let wanted = shape(model);
    ensure!(
        stats.fits(wanted),
        "data.stats {}: the statistics have shape {:?} and the network's latents {wanted:?}",
        path.display(),
        stats.shape
    );
    Ok(stats)
}

/// Shape `[C, h, w]` of the network's latents.
pub fn shape(model: &DitDhConfig) -> [usize; 3] {
    [model.in_channels, model.input_size, model.input_size]
}

fn check_labels(model: &DitDhConfig, labels: &[Option<usize>]) -> Result<()> {
    check_classes(labels, model.num_classes)?;
    check_null_class(labels, model.class_dropout_prob, model.class_dropout_prob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_the_authors_names() {
        let read = |text: &str| TimeDistribution::try_from(text.to_string());
        assert_eq!(read("uniform"), Ok(TimeDistribution::Uniform));
        for (text, mu, sigma) in
            [("logit-normal_0_1", 0.0, 1.0), ("logit-normal_-0.5_1.5", -0.5, 1.5)]
        {
            let times = TimeDistribution::LogitNormal { mu, sigma };
            assert_eq!(read(text), Ok(times));
            assert_eq!(String::from(times), text);
        }
        for text in [
            "",
            "lognorm",
            "logit-normal",
            "logit-normal_0",
            "logit-normal_0_0",
            "logit-normal_nan_1",
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains("loss.time_dist_type"), "{error}");
        }
    }
}
