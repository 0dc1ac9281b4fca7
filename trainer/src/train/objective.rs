//! What the training of a diffusion network consists of, apart from the loop around it.

use anyhow::Result;
use serde_json::Value;
use tintype::burn::module::{AutodiffModule, Module};
use tintype::burn::tensor::{Device, FloatDType, Tensor};

use super::adamw::Groups;
use super::order::Place;
use super::recompute::AnyTape;
use tintype::weights::Flat;

/// A loss and its parts, `[1]` each: sums over the samples at hand of terms that are already
/// divided by the **global** batch. Adding them over micro-batches and devices gives the loss of
/// the whole batch, and so do their gradients.
pub struct Loss {
    /// What is minimised.
    pub total: Tensor<1>,
    /// Parts for the log.
    pub terms: Vec<(&'static str, Tensor<1>)>,
    /// What the backward pass computes again.
    pub tape: AnyTape,
}

impl Loss {
    /// The gradients of a network's parameters by name.
    pub fn gradients<M: Module>(self, network: &M) -> Flat {
        let gradients = self.total.backward();
        match self.tape {
            AnyTape::Dit(tape) => tape.backward(network, gradients),
            AnyTape::HDiT(tape) => tape.backward(network, gradients),
        }
    }
}

/// How a network computes in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    /// Type of the activations; parameters, norms' statistics and losses stay float32.
    pub precision: FloatDType,
    /// Whether each block's activations are computed again in the backward pass instead of kept.
    pub recompute: bool,
}

/// One diffusion system: its data, its noise, its loss.
pub trait Objective: Send + Sync + 'static {
    /// The network.
    type Network: AutodiffModule + Sync;
    /// What the host prepares for some samples.
    type Batch: Send + 'static;

    /// Loads, noises and weighs the samples at `places` of a global batch of `batch` at `step`.
    ///
    /// # Errors
    ///
    /// If the samples cannot be read.
    fn collate(&self, places: &[Place], step: u64, batch: usize) -> Result<Self::Batch>;

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

    /// Parameter groups by name.
    fn groups(&self) -> Groups;

    /// The network's configuration as `generate` reads it from a checkpoint.
    fn config(&self) -> Value;

    /// Multiply-adds of one sample's forward pass.
    fn macs(&self) -> f64;
}
