//! HDiT's training (`hdit` §8): Karras preconditioning, stratified noise levels, non-leaking
//! augmentation, four parameter groups.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::karras::{
    DensityContext, Preconditioner, SigmaDensity, Weighting, stratified,
};
use tintype::model::hdit::{Conditions, HDiT, HDiTConfig, LevelAttention};
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use super::adamw::{Group, Groups};
use super::classes::{check_classes, drop_class};
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::objective::{Compute, Loss, Objective, dropout_seed};
use super::recompute::Tape;
use super::record::DataRecord;
use crate::data::augment::{Augmentation, Draws};
use crate::data::store::ImageStore;

/// Target space of the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// EDM's, in F space, weighted.
    #[default]
    Karras,
    /// The error of the noise, unweighted.
    Simple,
}

/// The settings of the losses; names are those of k-diffusion's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HDiTLoss {
    /// Target space of the loss.
    pub loss_config: LossKind,
    /// Weight by noise level.
    pub loss_weighting: Weighting,
    /// DCT multi-scale loss where above 1.
    pub loss_scales: usize,
    /// Distribution of the noise levels.
    pub sigma_sample_density: SigmaDensity,
    /// Probability of each augmentation; 0 for none, not even flips.
    pub augment_prob: f64,
    /// Probability that a class is replaced by the null class.
    pub cond_dropout_rate: f64,
}

impl Default for HDiTLoss {
    fn default() -> Self {
        Self {
            loss_config: LossKind::Karras,
            loss_weighting: Weighting::SoftMinSnr,
            loss_scales: 1,
            sigma_sample_density: SigmaDensity::CosineInterpolated {
                min_value: None,
                max_value: None,
                image_d: None,
                noise_d_low: None,
                noise_d_high: None,
            },
            augment_prob: 0.0,
            cond_dropout_rate: 0.1,
        }
    }
}

/// The objective.
pub struct HDiTObjective {
    /// The network's shape.
    pub model: HDiTConfig,
    /// The losses.
    pub loss: HDiTLoss,
    /// Images of the network's size.
    pub images: Arc<ImageStore>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct Batch {
    /// Augmented images, `[B, C, H, W]` in about −1…1.
    pub images: Values<4>,
    /// Their noise.
    pub noise: Values<4>,
    /// Noise levels.
    pub sigma: Vec<f32>,
    /// Augmentation conditions, `[B, 9]`.
    pub augmentation: Values<2>,
    /// Classes, dropped ones replaced; absent where the network has none.
    pub labels: Option<Vec<usize>>,
    /// One over the global batch.
    pub weight: f64,
    /// Seed of the dropout of this part of this step; absent for none.
    pub dropout: Option<u64>,
}

impl HDiTObjective {
    fn context(&self) -> DensityContext {
        density_context(&self.model)
    }
}

/// Parameters of the default noise densities.
pub fn density_context(model: &HDiTConfig) -> DensityContext {
    DensityContext {
        sigma_data: model.sigma_data,
        sigma_min: model.sigma_min,
        sigma_max: model.sigma_max,
        image_side: model.input_size[0].max(model.input_size[1]),
    }
}

/// The noise levels of a whole batch from its uniform numbers, stratified as k-diffusion does.
pub fn noise_levels(density: SigmaDensity, uniform: &[f64], context: DensityContext) -> Vec<f64> {
    stratified(uniform, 0, 1).into_iter().map(|u| density.sample(u, 0.0, context)).collect()
}

/// The random numbers of an augmentation.
fn draws(key: ImageKey) -> Draws {
    let u = uniforms(key, Stream::Choice, 1, 9);
    let n = normals(key, Stream::Choice, 2, 4);
    Draws {
        x_flip: u[0] < 0.5,
        y_flip_u: u[1],
        y_flip: u[2] < 0.5,
        scale_u: u[3],
        scale_n: n[0] as f64,
        rotation_u: u[4],
        rotation_angle_u: u[5],
        aniso_u: u[6],
        aniso_angle_u: u[7],
        aniso_n: n[1] as f64,
        shift_u: u[8],
        shift_x_n: n[2] as f64,
        shift_y_n: n[3] as f64,
    }
}

impl Objective for HDiTObjective {
    type Network = HDiT;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Batch> {
        let side = self.images.side();
        let channels = self.model.input_channels;
        let classes = self.model.num_classes;
        let split = matches!(self.loss.sigma_sample_density, SigmaDensity::SplitLognormal { .. });
        let one = |sample: &SampleIndex| {
            let key = ImageKey::new(self.seed, sample.global_index);
            let pixels = self.images.pixels(sample.item);
            let plane = |c: usize| pixels.iter().skip(c).step_by(3).map(|&v| v as f32 / 255.0);
            let planes: Vec<f32> = match channels {
                1 => plane(0).zip(plane(1)).zip(plane(2)).map(luma).collect(),
                _ => (0..3).flat_map(plane).collect(),
            };
            let augmentation = Augmentation::new(draws(key), self.loss.augment_prob, side);
            let image = augmentation.apply(&planes, side);
            let noise = normals(key, Stream::Noise, 0, image.len());
            let u = uniforms(key, Stream::Time, 0, 1)[0];
            let sigma = if split {
                let normal = normals(key, Stream::Time, 1, 1)[0] as f64;
                self.loss.sigma_sample_density.sample(u, normal, self.context())
            } else {
                // This sample's stratum of the global batch.
                let u = (sample.index as f64 + u) / batch as f64;
                self.loss.sigma_sample_density.sample(u, 0.0, self.context())
            };
            let dropped = uniforms(key, Stream::Choice, 0, 1)[0];
            let label = match self.images.label(sample.item) {
                Some(label) => drop_class(label, dropped, self.loss.cond_dropout_rate, classes),
                None => classes,
            };
            let condition = augmentation.condition.map(|v| v as f32);
            (image, noise, sigma as f32, condition, label)
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect();
        let shape = [samples.len(), channels, side, side];
        let (mut images, mut noise, mut sigma) = (Vec::new(), Vec::new(), Vec::new());
        let (mut conditions, mut labels) = (Vec::new(), Vec::new());
        for (image, eps, level, condition, label) in parts {
            images.extend(image);
            noise.extend(eps);
            sigma.push(level);
            conditions.extend(condition);
            labels.push(label);
        }
        Ok(Batch {
            images: Values::new(images, shape),
            noise: Values::new(noise, shape),
            sigma,
            augmentation: Values::new(conditions, [samples.len(), 9]),
            labels: (classes > 0).then_some(labels),
            weight: 1.0 / batch as f64,
            dropout: Some(dropout_seed(self.seed, samples, step, batch)),
        })
    }

    fn loss(
        &self,
        network: &HDiT,
        batch: Batch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss> {
        Ok(loss(network, self.model.sigma_data, batch, &self.loss, compute, device))
    }

    fn groups(&self) -> Groups {
        group
    }

    fn config(&self) -> Value {
        // Without class dropout nobody trains the null class's row, and sampling has to know.
        let cond_dropout_rate = match self.loss.cond_dropout_rate > 0.0 {
            true => self.model.cond_dropout_rate,
            false => 0.0,
        };
        config(&HDiTConfig { cond_dropout_rate, ..self.model.clone() })
    }

    fn data(&self) -> DataRecord {
        DataRecord::of_store(&self.images)
    }

    fn macs(&self) -> f64 {
        macs(&self.model)
    }
}

/// The configuration in k-diffusion's shape.
pub fn config(model: &HDiTConfig) -> Value {
    let mut section = json!(model);
    section["type"] = json!("image_transformer_v2");
    json!({ "model": section, "dataset": { "num_classes": model.num_classes } })
}

/// Rec. 601, as Pillow's `convert("L")`.
fn luma(((r, g), b): ((f32, f32), f32)) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The loss of some samples over the global batch.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term
///
/// # Panics
///
/// If the batch does not fit the network.
pub fn loss(
    network: &HDiT,
    sigma_data: f64,
    batch: Batch,
    settings: &HDiTLoss,
    compute: Compute,
    device: &Device,
) -> Loss {
    let preconditioner = Preconditioner { sigma_data };
    let (x, eps) = (batch.images.tensor(device), batch.noise.tensor(device));
    let sigma = vector(&batch.sigma, device);
    let conditions = Conditions {
        augmentation: Some(batch.augmentation.tensor(device)),
        class: batch.labels.map(|labels| classes(&labels, device)),
        mapping: None,
        dropout: batch.dropout,
    };
    let mut tape = Tape::new(compute.recompute);
    let network = |x: Tensor<4>, sigma: Tensor<1>| {
        let x = x.cast(compute.precision);
        network.forward_through(x, sigma, conditions, &mut tape.hdit()).cast(FloatDType::F32)
    };
    let per_sample = match settings.loss_config {
        LossKind::Simple => preconditioner.simple_loss(x, eps, sigma, network),
        LossKind::Karras => {
            let (input, target) = preconditioner.training_pair(x, eps, sigma.clone());
            let output = network(input, sigma.clone());
            let (weighting, scales) = (settings.loss_weighting, settings.loss_scales);
            preconditioner.loss(output, target, sigma, weighting, scales)
        }
    };
    let total = per_sample.sum() * batch.weight;
    Loss { total: total.clone(), terms: vec![("loss", total)], tape: tape.into() }
}

/// The parameter groups of `hdit` §6: the mapping network and the norms' layers have a third of the
/// learning rate; only projection matrices and the norms' layers have weight decay.
pub fn group(name: &str) -> Group {
    let is_norm = name.ends_with(".norm.linear.weight");
    let in_mapping = name.starts_with("mapping.");
    let is_matrix = name.ends_with("_proj.weight") || name.ends_with(".proj.weight");
    let embeds = ["time_in_proj", "aug_in_proj", "mapping_cond_in_proj"];
    let is_embedding = embeds.iter().any(|e| name.starts_with(e));
    Group {
        lr_scale: if is_norm || in_mapping { 1.0 / 3.0 } else { 1.0 },
        decay: is_norm || (is_matrix && !is_embedding),
    }
}

/// k-diffusion's cost counter (`hdit` §6).
pub fn macs(model: &HDiTConfig) -> f64 {
    let f = |n: usize| n as f64;
    let levels = model.depths.len();
    let tokens = |l: usize| {
        let side = |axis: usize| (model.input_size[axis] / model.patch_size[axis]) >> l;
        f(side(0) * side(1))
    };
    let m = f(model.mapping_width);
    let mapping_ff = f(model.mapping_d_ff.unwrap_or(3 * model.mapping_width));
    let patch = f(model.input_channels * model.patch_size[0] * model.patch_size[1]);
    let mut total = 2.0 * tokens(0) * patch * f(model.widths[0])
        + 2.0 * m * m
        + f(model.mapping_depth) * 3.0 * m * mapping_ff;
    for l in 0..levels {
        let (t, w) = (tokens(l), f(model.widths[l]));
        let ff = model.d_ffs.as_ref().map_or(3.0 * w, |d| f(d[l]));
        let runs = f(model.depths[l]) * if l + 1 < levels { 2.0 } else { 1.0 };
        let keys = match model.attention(l) {
            LevelAttention::Global { .. } => Some(t),
            LevelAttention::Neighborhood { kernel_size, .. } => Some(f(kernel_size.pow(2))),
            LevelAttention::ShiftedWindow { window_size, .. } => Some(f(window_size.pow(2))),
            LevelAttention::None => None,
        };
        let attention = keys.map_or(0.0, |s| t * (4.0 * w * w + 2.0 * s * w) + m * w);
        total += runs * (attention + t * 3.0 * w * ff + m * w);
        if l + 1 < levels {
            total += 2.0 * tokens(l + 1) * 4.0 * w * f(model.widths[l + 1]);
        }
    }
    total
}

/// Checks data against the network before anything is computed.
///
/// # Errors
///
/// If the size or the channels of the images, the classes or a setting of the loss do not fit the
/// network.
pub fn check_data(model: &HDiTConfig, loss: &HDiTLoss, images: &ImageStore) -> Result<()> {
    ensure!(
        model.input_size == [images.side(); 2],
        "the images have {} pixels a side and the network input_size {:?}",
        images.side(),
        model.input_size
    );
    ensure!(
        [1, 3].contains(&model.input_channels),
        "input_channels is {}; images have 1 or 3",
        model.input_channels
    );
    ensure!(model.mapping_cond_dim == 0, "mapping_cond_dim is not supported by image stores");
    ensure!(loss.loss_scales >= 1, "loss.loss_scales must be at least 1");
    if model.num_classes > 0 {
        check_classes(images.labels(), model.num_classes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_the_published_ones() {
        let gmac = |name: &str| {
            let architecture = tintype::preset::find(name).expect("a preset").architecture;
            let config: &HDiTConfig = architecture.downcast().expect("an HDiT");
            (macs(config) / 1e7).round() / 100.0
        };
        assert_eq!(gmac("hdit-imagenet-128"), 31.37);
        assert_eq!(gmac("hdit-ffhq-1024"), 206.08);
        assert_eq!(gmac("hdit-imagenet-256"), 197.59);
    }
}
