//! Training objectives of diffusion networks.

use anyhow::Result;
use serde_json::Value;
use tintype::burn::module::{AutodiffModule, Module};
use tintype::burn::tensor::{Device, FloatDType, Tensor};

use super::adamw::Groups;
use super::epoch_sampler::SampleIndex;
use super::recompute::{AnyTape, add};
use super::record::DataRecord;
use tintype::weights::Flat;

/// A loss and its terms, `[1]` each: sums over the local samples of terms already divided by the
/// **global** batch size. Summed over micro-batches and devices they give the loss of the whole
/// batch, and so do their gradients.
pub struct Loss {
    /// The total loss.
    pub total: Tensor<1>,
    /// Terms for the log.
    pub terms: Vec<(&'static str, Tensor<1>)>,
    /// Tape of the recomputed activations.
    pub tape: AnyTape,
}

impl Loss {
    /// The gradients of a network's parameters by name.
    pub fn gradients<M: Module>(self, network: &M) -> Flat {
        let mut all = Flat::new();
        self.gradients_in_pieces(network, &mut |piece| add(&mut all, piece));
        all
    }

    /// The same as they come, with recomputation block by block; a name may come several times, and its gradient is the
    /// sum.
    pub fn gradients_in_pieces<M: Module>(self, network: &M, each: &mut dyn FnMut(Flat)) {
        let gradients = self.total.backward();
        match self.tape {
            AnyTape::Dit(tape) => tape.backward_in_pieces(network, gradients, each),
            AnyTape::HDiT(tape) => tape.backward_in_pieces(network, gradients, each),
        }
    }
}

/// Dtype and activation recomputation of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    /// Dtype of the activations; parameters, norm statistics and losses stay float32.
    pub precision: FloatDType,
    /// Recompute each block's activations in the backward pass (activation checkpointing).
    pub recompute: bool,
}

/// A training objective: data, noise and loss.
pub trait Objective: Send + Sync + 'static {
    /// The network.
    type Network: AutodiffModule + Sync;
    /// A collated batch in host memory.
    type Batch: Send + 'static;

    /// Collates `samples` of a global batch of size `batch` at `step`: data, noise, times, weights.
    ///
    /// # Errors
    ///
    /// If the samples cannot be read.
    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<Self::Batch>;

    /// The loss of a batch.
    ///
    /// # Errors
    ///
    /// If a part of the system that the loss needs is missing.
    fn loss(
        &self,
        network: &Self::Network,
        batch: Self::Batch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss>;

    /// Whether a matrix is the weight of a linear layer, which Muon steps; of any other parameter the answer is not
    /// asked for.
    fn is_linear(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Parameter groups by name.
    fn groups(&self) -> Groups;

    /// The network's configuration as stored in checkpoints.
    fn config(&self) -> Value;

    /// The data, which a run records.
    fn data(&self) -> DataRecord;

    /// MACs of one sample's forward pass.
    fn macs(&self) -> f64;
}

/// The seed of the dropout of a part of a step, far enough from those of other parts for every layer to have masks of its
/// own.
pub fn dropout_seed(seed: u64, samples: &[SampleIndex], step: u64, batch: usize) -> u64 {
    let part = step * batch as u64 + samples.first().map_or(0, |first| first.index as u64);
    seed.wrapping_add(part.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
