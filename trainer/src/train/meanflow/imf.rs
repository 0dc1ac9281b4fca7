//! iMF (arXiv 2512.02012) on latents.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tintype::burn::tensor::Device;
use tintype::generate::LatentStats;
use tintype::model::imf::{Imf, ImfConfig};
use tintype::model::meanflow::Shape;

use super::batch::{Batch, Making};
use super::draws::{Matched, MeanFlowLoss};
use super::loss::pass;
use super::{is_linear, with_head};
use crate::train::adamw::{Group, Groups};
use crate::train::classes::check_classes;
use crate::train::epoch_sampler::SampleIndex;
use crate::train::latents::Latents;
use crate::train::objective::{Compute, Loss, Objective};
use crate::train::record::DataRecord;

/// The objective.
pub struct ImfObjective {
    /// The network's shape, with the head of v.
    pub model: ImfConfig,
    /// The draws.
    pub loss: MeanFlowLoss,
    /// Cached latents.
    pub latents: Arc<Latents>,
    /// What they are normalised with.
    pub stats: LatentStats,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl Objective for ImfObjective {
    type Network = Imf;
    type Batch = Batch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Batch> {
        let shape = self.latents.shape;
        let making = Making {
            settings: &self.loss,
            matched: Matched::Later,
            seed: self.seed,
            shape,
            noise_scale: 1.0,
            null_class: self.model.shape.num_classes,
        };
        Batch::new(making, samples, (step, batch), |sample| {
            let mut latent = self.latents.draw(sample, self.seed, false)?;
            self.stats.normalize_values(&mut latent);
            Ok((latent, self.latents.labels[sample.item]))
        })
    }

    fn loss(&self, network: &Imf, batch: Batch, compute: Compute, device: &Device) -> Result<Loss> {
        Ok(pass(network, batch, 0.0, compute, device)?.loss)
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn is_linear(&self, name: &str) -> bool {
        is_linear(name)
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

/// The network that is trained, with the head of v.
pub fn trained(model: &ImfConfig) -> ImfConfig {
    ImfConfig { shape: with_head(&model.shape) }
}

/// What latents are normalised with: the network's own statistics, or those of the data, which `generate` needs then.
pub fn statistics(model: &ImfConfig, latents: &Latents) -> LatentStats {
    match model.statistics() {
        Some([mean, std]) => LatentStats::of_channels(mean.to_vec(), std.to_vec()),
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
