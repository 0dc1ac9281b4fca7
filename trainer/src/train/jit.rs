//! JiT's training (arXiv 2511.13720, §4) on pixels: the network estimates the clean image, and the loss compares the
//! velocities that the estimate and the image give. Its clock: t = 0 is noise, t = 1 is data.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::logit_normal;
use tintype::diffusion::loss::mean_squared_error;
use tintype::model::jit::{Jit, JitConfig};
use tintype::nn::dropout::Dropout;
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use super::adamw::{Group, Groups};
use super::classes::{check_classes, drop_class};
use super::epoch_sampler::SampleIndex;
use super::host::{Values, classes, vector};
use super::objective::{Compute, Loss, Objective, dropout_seed};
use super::recompute::Tape;
use super::record::DataRecord;
use crate::data::store::ImageStore;

/// The settings of the losses; names are those of the authors' options.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JitLoss {
    /// Mean of the normal numbers whose sigmoids are the times.
    pub p_mean: f64,
    /// Their standard deviation.
    pub p_std: f64,
    /// Probability that a label is replaced by the null class.
    pub label_drop_prob: f64,
    /// Dropout of what attention adds and of the hidden vector of the feed-forward networks, in the middle half of the
    /// blocks, in 0…1, 1 excluded (0.2 for JiT-H).
    pub proj_dropout: f64,
    /// Random horizontal flips with probability ½.
    pub flips: bool,
}

impl Default for JitLoss {
    fn default() -> Self {
        Self { p_mean: -0.8, p_std: 0.8, label_drop_prob: 0.1, proj_dropout: 0.0, flips: true }
    }
}

impl JitLoss {
    /// The time of a sample from a normal number: 0 is noise, 1 is data.
    pub fn time(&self, normal: f64) -> f64 {
        logit_normal(normal, self.p_mean, self.p_std)
    }

    /// The dropout of the blocks of a network of this depth, by their numbers; two seeds a block.
    fn dropout(&self, depth: usize, seed: Option<u64>) -> impl Fn(usize) -> Dropout {
        let (rate, quarter) = (self.proj_dropout, depth / 4);
        move |block| {
            let seed = seed.filter(|_| (quarter..3 * quarter).contains(&block));
            Dropout { rate, seed: seed.map(|seed| seed.wrapping_add(2 * block as u64)) }
        }
    }
}

/// The objective.
pub struct JitObjective {
    /// The network's shape.
    pub model: JitConfig,
    /// The losses.
    pub loss: JitLoss,
    /// Images of the network's size.
    pub images: Arc<ImageStore>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct Batch {
    /// Images x in −1…1, `[B, 3, S, S]`.
    pub images: Values<4>,
    /// Noise e, of the standard deviation that the network was made for.
    pub noise: Values<4>,
    /// Times.
    pub t: Vec<f32>,
    /// Classes, dropped ones replaced.
    pub labels: Vec<usize>,
    /// One over the global batch.
    pub weight: f64,
    /// Seed of the dropout of this part of this step; absent for none.
    pub dropout: Option<u64>,
}

impl Objective for JitObjective {
    type Network = Jit;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Batch> {
        let side = self.images.side();
        let one = |sample: &SampleIndex| {
            let key = ImageKey::new(self.seed, sample.global_index);
            let choice = uniforms(key, Stream::Choice, 0, 2);
            let mut image = self.images.planes(sample.item);
            if self.loss.flips && choice[1] < 0.5 {
                flip(&mut image, side);
            }
            let mut noise = normals(key, Stream::Noise, 0, image.len());
            for e in &mut noise {
                *e *= self.model.noise_scale as f32;
            }
            let t = self.loss.time(normals(key, Stream::Time, 1, 1)[0] as f64);
            let null = self.model.num_classes;
            let label = match self.images.label(sample.item) {
                Some(label) => drop_class(label, choice[0], self.loss.label_drop_prob, null),
                None => null,
            };
            (image, noise, t as f32, label)
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect();
        let shape = [samples.len(), 3, side, side];
        let (mut images, mut noise) = (Vec::new(), Vec::new());
        let (mut t, mut labels) = (Vec::new(), Vec::new());
        for (image, e, time, label) in parts {
            images.extend(image);
            noise.extend(e);
            t.push(time);
            labels.push(label);
        }
        Ok(Batch {
            images: Values::new(images, shape),
            noise: Values::new(noise, shape),
            t,
            labels,
            weight: 1.0 / batch as f64,
            dropout: Some(dropout_seed(self.seed, samples, step, batch)),
        })
    }

    fn loss(&self, network: &Jit, batch: Batch, compute: Compute, device: &Device) -> Result<Loss> {
        Ok(loss(network, self.model.depth, batch, &self.loss, compute, device))
    }

    fn groups(&self) -> Groups {
        group
    }

    fn config(&self) -> Value {
        json!(self.model)
    }

    fn data(&self) -> DataRecord {
        DataRecord::of_store(&self.images)
    }

    fn macs(&self) -> f64 {
        self.model.macs()
    }
}

/// Mirrors planes `[3, side, side]` left to right.
fn flip(planes: &mut [f32], side: usize) {
    for row in planes.chunks_exact_mut(side) {
        row.reverse();
    }
}

/// The parameter group of a name: biases and the weights of norms have no weight decay.
///
/// The authors decay tensors of two axes or more: the rest are biases and norms.
pub fn group(name: &str) -> Group {
    let is_vector = name.ends_with(".bias") || name.contains("norm");
    Group { decay: !is_vector, ..Group::PLAIN }
}

/// Mean squared error of the velocities `(x̂ − z)/max(1 − t, t_eps)` and `(x − z)/max(1 − t, t_eps)` of some samples.
///
/// # Shapes
///
/// * returns `[1]` in total
///
/// # Panics
///
/// If the batch does not fit the network.
pub fn loss(
    network: &Jit,
    depth: usize,
    batch: Batch,
    settings: &JitLoss,
    compute: Compute,
    device: &Device,
) -> Loss {
    let t = vector(&batch.t, device);
    let t4: Tensor<4> = t.clone().reshape([-1, 1, 1, 1]);
    let (x, e) = (batch.images.tensor(device), batch.noise.tensor(device));
    let z = x.clone() * t4.clone() + e * (-t4 + 1.0);
    let y = classes(&batch.labels, device);
    let mut tape = Tape::new(compute.recompute);
    let dropout = settings.dropout(depth, batch.dropout);
    let input = z.clone().cast(compute.precision);
    let x_hat = network.forward_through(input, t.clone(), y, &mut tape.dit_dropping(dropout));
    let x_hat = x_hat.cast(FloatDType::F32);
    let v_hat = network.velocity(z.clone(), x_hat, t.clone());
    let v = network.velocity(z, x, t);
    let total = mean_squared_error(v_hat, v).sum() * batch.weight;
    Loss { total, terms: Vec::new(), tape: tape.into() }
}

/// Checks data against the network before anything is computed.
///
/// # Errors
///
/// If the images or the classes do not fit the network.
pub fn check_data(model: &JitConfig, images: &ImageStore) -> Result<()> {
    let (side, wanted) = (images.side(), model.input_size);
    ensure!(side == wanted, "the images have {side} pixels a side and the network {wanted}");
    let channels = model.in_channels;
    ensure!(channels == 3, "model.in_channels is {channels}; images have 3");
    check_classes(images.labels(), model.num_classes)
}

#[cfg(test)]
mod tests {
    use tintype::weights::{Flat, TensorView, Weights, computing_in, layout, load};

    use super::*;
    use crate::train::adamw::norm_of;

    const SMALL: JitConfig = JitConfig {
        input_size: 8,
        patch_size: 4,
        in_channels: 3,
        hidden_size: 16,
        depth: 3,
        num_heads: 2,
        mlp_ratio: 4.0,
        bottleneck_dim: 6,
        in_context_len: 2,
        in_context_start: 1,
        num_classes: 3,
        noise_scale: 1.0,
        t_eps: 0.05,
    };

    #[test]
    fn rows_are_mirrored() {
        let mut planes: Vec<f32> = (0..12).map(|v| v as f32).collect();
        flip(&mut planes, 2);
        assert_eq!(planes, [1.0, 0.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0, 11.0, 10.0]);
    }

    #[test]
    fn the_middle_half_of_the_blocks_drops() {
        let settings = JitLoss { proj_dropout: 0.2, ..JitLoss::default() };
        let of = |depth: usize| {
            let dropout = settings.dropout(depth, Some(10));
            (0..depth).map(|block| dropout(block).seed).collect::<Vec<_>>()
        };
        let jit_h: Vec<usize> =
            of(32).iter().enumerate().filter_map(|(i, seed)| seed.map(|_| i)).collect();
        assert_eq!(jit_h, (8..24).collect::<Vec<_>>());
        assert_eq!(of(6), [None, Some(12), Some(14), None, None, None]);
        assert_eq!(settings.dropout(32, None)(9).seed, None);
    }

    #[test]
    fn decay_is_of_matrices() {
        let decays = |name: &str| group(name).decay;
        for name in ["pos_embed", "x_embedder.proj1.weight", "blocks.0.attn.qkv.weight"] {
            assert!(decays(name), "{name}");
        }
        for name in ["blocks.0.norm1.weight", "blocks.0.attn.q_norm.weight", "x.proj2.bias"] {
            assert!(!decays(name), "{name}");
        }
    }

    /// A small network with random weights, so that every part of it matters.
    fn network(device: &Device) -> Jit {
        let tensor = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
            let values =
                normals(ImageKey::new(1, seed as u64), Stream::Noise, 0, shape.iter().product());
            let values: Vec<f32> = values.iter().map(|v| v * 0.2).collect();
            (name, TensorView::from_f32(shape, &values).expect("as many as the shape"))
        };
        let network = SMALL.init(device).expect("valid");
        let tensors = layout(&network).into_iter().enumerate().map(tensor).collect();
        let weights = Weights { file: "test".into(), tensors, ..Weights::default() };
        load(network, &weights, FloatDType::F32, device).expect("it fits").network
    }

    /// The class is in the condition of all blocks and in the tokens that enter behind the first ones: between them
    /// recomputation cuts the graph.
    #[test]
    fn recomputation_gives_the_same_gradients() {
        let device = Device::flex().autodiff();
        let network = network(&device);
        let values = |seed| normals(ImageKey::new(2, seed), Stream::Noise, 0, 4 * 3 * 8 * 8);
        let gradients = |precision, recompute| {
            let batch = Batch {
                images: Values::new(values(0), [4, 3, 8, 8]),
                noise: Values::new(values(1), [4, 3, 8, 8]),
                t: vec![0.1, 0.3, 0.6, 0.97],
                labels: vec![0, 1, 2, 3],
                weight: 0.25,
                dropout: None,
            };
            let computing = match precision {
                FloatDType::F32 => network.clone(),
                _ => computing_in(&network, precision),
            };
            let (settings, compute) = (JitLoss::default(), Compute { precision, recompute });
            loss(&computing, SMALL.depth, batch, &settings, compute, &device).gradients(&network)
        };
        for (precision, tolerance) in [(FloatDType::F32, 1e-4), (FloatDType::BF16, 0.05)] {
            let (kept, again) = (gradients(precision, false), gradients(precision, true));
            assert_eq!(kept.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
            let norm = |name: &str, x: Tensor<1>| norm_of(&Flat::from([(name.to_string(), x)]));
            let all = norm_of(&kept);
            for (name, kept) in kept {
                let apart = norm(&name, again[&name].clone() - kept.clone());
                let size = norm(&name, kept);
                let most = tolerance * (size + 1e-3 * all);
                assert!(apart <= most, "{name} in {precision:?}: {apart} of {size}");
            }
        }
    }
}
