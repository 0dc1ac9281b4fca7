//! Training of iMF (arXiv 2512.02012): average velocities whose derivative along the flow is part of the target. Its
//! clock: t = 1 is noise, t = 0 is data.
//!
//! Half of a batch, its first samples, learns the velocity itself (r = t); the rest learns averages over r…t. Guidance
//! is drawn, too, and the network guides its own target.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::{Interpolant, logit_normal};
use tintype::diffusion::mean_flow::{
    adaptive, compound_velocity, guided_velocity, omega_at, squared_error,
};
use tintype::generate::LatentStats;
use tintype::model::imf::{Imf, ImfConfig};
use tintype::model::meanflow::{Condition, MeanFlow, Shape};
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::computing_in;

use super::adamw::{Group, Groups};
use super::classes::check_classes;
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::latents::Latents;
use super::objective::{Compute, Loss, Objective};
use super::recompute::Tape;
use super::record::DataRecord;

/// Step of the central difference that du/dt is. Above it the error grows with its square, below it with the rounding of
/// float32.
const STEP: f64 = 1e-3;

/// The settings of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeanFlowLoss {
    /// Mean of the normal numbers whose sigmoids are the times t and r.
    pub p_mean: f64,
    /// Their standard deviation.
    pub p_std: f64,
    /// Share of a batch that learns the velocity itself, r = t.
    pub flow_matching: f64,
    /// Guidance scales are drawn from 1 to this.
    pub omega_max: f64,
    /// Their density falls with this power.
    pub omega_power: f64,
    /// Probability that a label is replaced by the null class.
    pub label_dropout: f64,
}

impl Default for MeanFlowLoss {
    fn default() -> Self {
        Self {
            p_mean: -0.4,
            p_std: 1.0,
            flow_matching: 0.5,
            omega_max: 8.0,
            omega_power: 1.0,
            label_dropout: 0.1,
        }
    }
}

/// What is drawn for a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The time.
    pub t: f32,
    /// The beginning of the span that the velocity is averaged over, at most `t`.
    pub r: f32,
    /// Guidance scale.
    pub omega: f32,
    /// Lower end of the times that guidance acts in.
    pub t_min: f32,
    /// Upper end.
    pub t_max: f32,
}

impl Draw {
    /// The numbers of a sample; `matching` says whether it learns the velocity itself.
    pub fn new(settings: &MeanFlowLoss, key: ImageKey, matching: bool) -> Self {
        let normals = normals(key, Stream::Time, 1, 2);
        let time = |i: usize| logit_normal(normals[i] as f64, settings.p_mean, settings.p_std);
        let (a, b) = (time(0), time(1));
        let t = a.max(b) as f32;
        // The first number of this stream is that of the dropout.
        let u = uniforms(key, Stream::Choice, 0, 4);
        let omega = power_law(u[1], settings.omega_max, settings.omega_power) as f32;
        let (r, t_min, t_max) = match matching {
            true => (t, 0.0, 1.0),
            false => (a.min(b) as f32, 0.5 * u[2], 0.5 + 0.5 * u[3]),
        };
        Self { t, r, omega, t_min: t_min as f32, t_max: t_max as f32 }
    }
}

/// A number in 1…`max` with a density ∝ ω^(−power), from a uniform number in 0…1.
pub fn power_law(u: f64, max: f64, power: f64) -> f64 {
    let rest = 1.0 - power;
    match rest.abs() < 1e-9 {
        true => max.powf(u),
        false => ((u * (rest * max.ln()).exp_m1()).ln_1p() / rest).exp(),
    }
}

/// The objective.
pub struct MeanFlowObjective {
    /// The network's shape, with the head of v.
    pub model: ImfConfig,
    /// The losses.
    pub loss: MeanFlowLoss,
    /// Cached latents.
    pub latents: Arc<Latents>,
    /// What they are normalised with.
    pub stats: LatentStats,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples. Those with r = t come first.
pub struct Batch {
    /// Normalised latents x, `[B, C, S, S]`.
    pub data: Values<4>,
    /// Noise e.
    pub noise: Values<4>,
    /// What is drawn.
    pub draws: Vec<Draw>,
    /// Classes; the null class for a sample without one.
    pub labels: Vec<usize>,
    /// Samples that are told the null class, and whose target is not guided.
    pub dropped: Vec<bool>,
    /// The null class.
    pub null_class: usize,
    /// One over the global batch.
    pub weight: f64,
}

impl MeanFlowObjective {
    fn key(&self, global_index: u64) -> ImageKey {
        ImageKey::new(self.seed, global_index)
    }

    /// How many samples of the whole batch learn the velocity itself; they are its first ones.
    fn matching(&self, batch: usize) -> usize {
        (batch as f64 * self.loss.flow_matching) as usize
    }

    /// How many labels of the whole batch of a step are dropped; they are its first ones. Every device knows every draw,
    /// so counting needs no communication.
    fn dropped(&self, step: u64, batch: usize) -> usize {
        let first = step * batch as u64;
        let is_dropped =
            |p: &u64| uniforms(self.key(*p), Stream::Choice, 0, 1)[0] < self.loss.label_dropout;
        (first..first + batch as u64).filter(is_dropped).count()
    }
}

impl Objective for MeanFlowObjective {
    type Network = Imf;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Batch> {
        let [c, h, w] = self.latents.shape;
        let LatentStats { mean, std } = &self.stats;
        let (matching, dropped) = (self.matching(batch), self.dropped(step, batch));
        let null_class = self.model.shape.num_classes;
        let one = |&sample: &SampleIndex| -> Result<_> {
            let key = self.key(sample.global_index);
            let mut latent = self.latents.draw(sample, self.seed, false)?;
            for (channel, values) in latent.chunks_exact_mut(h * w).enumerate() {
                for v in values {
                    *v = (*v - mean[channel]) / std[channel];
                }
            }
            let noise = normals(key, Stream::Noise, 0, c * h * w);
            let draw = Draw::new(&self.loss, key, sample.index < matching);
            let label = self.latents.labels[sample.item];
            let is_dropped = sample.index < dropped || label.is_none();
            Ok((latent, noise, draw, label.unwrap_or(null_class), is_dropped))
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect::<Result<_>>()?;
        let shape = [samples.len(), c, h, w];
        let (mut data, mut noise, mut draws) = (Vec::new(), Vec::new(), Vec::new());
        let (mut labels, mut dropped) = (Vec::new(), Vec::new());
        for (latent, eps, draw, label, is_dropped) in parts {
            data.extend(latent);
            noise.extend(eps);
            draws.push(draw);
            labels.push(label);
            dropped.push(is_dropped);
        }
        Ok(Batch {
            data: Values::new(data, shape),
            noise: Values::new(noise, shape),
            draws,
            labels,
            dropped,
            null_class,
            weight: 1.0 / batch as f64,
        })
    }

    fn loss(&self, network: &Imf, batch: Batch, compute: Compute, device: &Device) -> Result<Loss> {
        loss(network, batch, compute, device)
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn is_linear(&self, name: &str) -> bool {
        name.ends_with("_flax_linear.weight")
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

/// The sum of the losses of u and v of some samples over the global batch, each divided by its own value: about 2
/// whatever happens. The terms for the log are plain means of squared errors.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term
///
/// # Errors
///
/// If the network has no head of v.
///
/// # Panics
///
/// If the batch does not fit the network.
pub fn loss(network: &Imf, batch: Batch, compute: Compute, device: &Device) -> Result<Loss> {
    let Batch { data, noise, draws, labels, dropped, null_class, weight } = batch;
    let without_v = "the network has no head of v, which training needs";
    let plain = device.clone().inner();
    let [t, r, omega, t_min, t_max] = columns(&draws, &plain);
    let h = t.clone() - r;
    let data = data.tensor(&plain);
    let [b, c, height, width] = data.dims();
    let (z, v_t) = Interpolant::Linear.interpolate(data, noise.tensor(&plain), t.clone());

    // The target, guided by the network's own velocities, with a class and without in one batch.
    let still = network.valid();
    let omega_t = omega_at(omega.clone(), t.clone(), t_min.clone(), t_max.clone());
    let both = [labels.clone(), vec![null_class; b]].concat();
    let scales = Tensor::cat(vec![omega_t.clone(), omega_t.ones_like()], 0); // [2B]
    let condition = Condition {
        omega: scales.clone(),
        ..Condition::instantaneous(classes(&both, &plain), &scales)
    };
    let velocities = still.v(Tensor::cat(vec![z.clone(), z.clone()], 0), condition); // [2B, C, S, S]
    let velocities = velocities.context(without_v)?;
    let v_c = velocities.clone().narrow(0, 0, b);
    let v_u = velocities.narrow(0, b, b);
    let guided = guided_velocity(v_t.clone(), v_c.clone(), v_u, omega_t);
    let told: Vec<f32> = dropped.iter().map(|&d| if d { 0.0 } else { 1.0 }).collect();
    let told: Tensor<4> = vector(&told, &plain).reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    let target = guided * told.clone() + v_t * (-told + 1.0);
    let replaced = |(&label, &dropped): (&usize, &bool)| if dropped { null_class } else { label };
    let labels: Vec<usize> = labels.iter().zip(&dropped).map(replaced).collect();

    // du/dt of those samples that average over a span; of the others it has the factor 0.
    let first = draws.iter().take_while(|d| d.r == d.t).count();
    let spans = b - first;
    let du_dt = match spans {
        0 => z.zeros_like(),
        _ => {
            let precise = match compute.precision {
                FloatDType::F32 => still,
                _ => computing_in(&still, FloatDType::F32),
            };
            let image = |x: &Tensor<4>| x.clone().narrow(0, first, spans);
            let number = |x: &Tensor<1>| x.clone().narrow(0, first, spans);
            let y = classes(&labels[first..], &plain);
            let shifted = |step: f64| {
                let condition = Condition {
                    h: number(&h) + step,
                    omega: number(&omega),
                    t_min: number(&t_min),
                    t_max: number(&t_max),
                    y: y.clone(),
                };
                precise.u(image(&z) + image(&v_c) * step, number(&t) + step, condition)
            };
            let derivative = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
            match first {
                0 => derivative,
                _ => {
                    let none = z.clone().narrow(0, 0, first).zeros_like();
                    Tensor::cat(vec![none, derivative], 0) // [B, C, S, S]
                }
            }
        }
    };

    let h = Tensor::from_inner(h);
    let condition = Condition {
        h: h.clone(),
        omega: Tensor::from_inner(omega),
        t_min: Tensor::from_inner(t_min),
        t_max: Tensor::from_inner(t_max),
        y: classes(&labels, device),
    };
    let (u, v) = network.u_and_v(Tensor::from_inner(z), condition);
    let compound = compound_velocity(u, Tensor::from_inner(du_dt), h);
    let target = Tensor::from_inner(target);
    let values = (c * height * width) as f64;
    let of_u = squared_error(compound, target.clone());
    let of_v = squared_error(v.context(without_v)?, target);
    let terms = [("mse_u", &of_u), ("mse_v", &of_v)]
        .map(|(name, error)| (name, error.clone().sum() * (weight / values)));
    let total = (adaptive(of_u) + adaptive(of_v)).sum() * weight;
    Ok(Loss { total, terms: terms.into(), tape: Tape::<3>::new(false).into() })
}

/// t, r, ω, t_min and t_max of some samples, `[B]` each.
fn columns(draws: &[Draw], device: &Device) -> [Tensor<1>; 5] {
    let numbers: [fn(&Draw) -> f32; 5] = [|d| d.t, |d| d.r, |d| d.omega, |d| d.t_min, |d| d.t_max];
    numbers.map(|number| {
        let values: Vec<f32> = draws.iter().map(number).collect();
        vector(&values, device)
    })
}

/// The network that is trained, with the head of v.
pub fn with_head(model: &ImfConfig) -> ImfConfig {
    ImfConfig { shape: Shape { v_heads: true, ..model.shape.clone() } }
}

/// What latents are normalised with: the network's own statistics, or those of the data, which `generate` needs then.
pub fn statistics(model: &ImfConfig, latents: &Latents) -> LatentStats {
    match model.statistics() {
        Some([mean, std]) => LatentStats { mean: mean.to_vec(), std: std.to_vec() },
        None => latents.stats.clone(),
    }
}

/// Checks data against the network before anything is computed.
///
/// # Errors
///
/// If the latents or the classes do not fit the network.
pub fn check_data(model: &ImfConfig, latents: &Latents) -> Result<()> {
    let Shape { in_channels, input_size, num_classes, .. } = model.shape;
    let wanted = [in_channels, input_size, input_size];
    ensure!(
        latents.shape == wanted,
        "the latents have shape {:?} and the network expects {wanted:?}",
        latents.shape
    );
    check_classes(&latents.labels, num_classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(image: u64) -> ImageKey {
        ImageKey::new(5, image)
    }

    #[test]
    fn times_and_intervals_are_those_of_their_half() {
        let settings = MeanFlowLoss::default();
        let mut times = Vec::new();
        for image in 0..2000 {
            let matching = Draw::new(&settings, key(image), true);
            assert_eq!(matching.t, matching.r);
            assert_eq!((matching.t_min, matching.t_max), (0.0, 1.0));
            let Draw { t, r, omega, t_min, t_max } = Draw::new(&settings, key(image), false);
            assert_eq!((matching.t, matching.omega), (t, omega));
            assert!(0.0 < r && r < t && t < 1.0, "{r} {t}");
            assert!((0.0..=0.5).contains(&t_min) && (0.5..=1.0).contains(&t_max));
            assert!((1.0..=8.0).contains(&omega));
            times.extend([t, r].map(|t| ((t / (1.0 - t)) as f64).ln()));
        }
        // Both together are normal numbers of mean -0.4 and deviation 1.
        let n = times.len() as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        assert!((mean + 0.4).abs() < 0.06 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn guidance_scales_follow_the_power_law() {
        for power in [0.0, 1.0, 2.0, 2.5] {
            assert!((power_law(0.0, 8.0, power) - 1.0).abs() < 1e-12);
            assert!((power_law(1.0, 8.0, power) - 8.0).abs() < 1e-9);
            // The share below x is (x^(1-p) - 1)/(max^(1-p) - 1), or ln x / ln max.
            for u in [0.1, 0.5, 0.9] {
                let x = power_law(u, 8.0, power);
                let rest: f64 = 1.0 - power;
                let share = match rest == 0.0 {
                    true => x.ln() / 8f64.ln(),
                    false => (x.powf(rest) - 1.0) / (8f64.powf(rest) - 1.0),
                };
                assert!((share - u).abs() < 1e-9, "{power}: {share} for {u}");
            }
        }
        // Near 1 it is that of 1.
        assert!((power_law(0.5, 8.0, 1.0 + 1e-8) - power_law(0.5, 8.0, 1.0)).abs() < 1e-6);
    }
}
