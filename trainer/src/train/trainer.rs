//! What the loop needs of a trainer.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tintype::image::Rgb;

use super::checkpoint::TensorFile;

/// What one step said.
#[derive(Debug, Default)]
pub struct Report {
    /// Losses, gradient norm, learning rate by name, over the global batch.
    pub values: Vec<(String, f64)>,
    /// The gradients were not finite and nothing was changed.
    pub skipped: bool,
}

/// A trainer: its networks, optimizers and data on one device.
pub trait Trainer {
    /// One optimizer step, `step` counted from 0.
    ///
    /// # Errors
    ///
    /// If the data of the step cannot be read.
    fn step(&mut self, step: u64) -> Result<Report>;

    /// Everything that a checkpoint holds.
    ///
    /// # Errors
    ///
    /// If the state cannot be serialised.
    fn save(&self) -> Result<Vec<TensorFile>>;

    /// Takes up a checkpoint of the same system.
    ///
    /// # Errors
    ///
    /// If a file of the checkpoint cannot be read or does not fit the system.
    fn restore(&mut self, checkpoint: &Path) -> Result<()>;

    /// Pictures of how far it is, where it can make any.
    ///
    /// # Errors
    ///
    /// If the pictures cannot be computed.
    fn preview(&mut self) -> Result<Option<Rgb>>;

    /// What cannot change when a run is resumed.
    fn architecture(&self) -> Value;

    /// Multiply-adds of one sample's forward pass; 0 where they are not counted.
    fn macs(&self) -> f64;
}
