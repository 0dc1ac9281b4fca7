//! The interface between the training loop and the trainers.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use serde_json::Value;
use tintype::image::Rgb;

use super::checkpoint::TensorFile;
use super::record::DataRecord;

/// The result of a step.
#[derive(Debug, Default)]
pub struct Report {
    /// Losses, gradient norm, learning rate by name, over the global batch.
    pub values: Vec<(String, f64)>,
    /// Whether the update was skipped because gradients were not finite.
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

    /// The files of a checkpoint: a copy, which is written while later steps are done.
    ///
    /// # Errors
    ///
    /// If the state cannot be serialised.
    fn save(&self) -> Result<Vec<TensorFile>>;

    /// Restores a checkpoint of the same recipe.
    ///
    /// # Errors
    ///
    /// If a file of the checkpoint cannot be read or does not fit the system.
    fn restore(&mut self, checkpoint: &Path) -> Result<()>;

    /// Preview images; `None` if previews are disabled.
    ///
    /// # Errors
    ///
    /// If the pictures cannot be computed.
    fn preview(&mut self) -> Result<Option<Rgb>>;

    /// Metrics of samples by name; `None` if evaluation is disabled, or `stop` was set.
    ///
    /// # Errors
    ///
    /// If the samples or their metrics cannot be computed.
    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Option<Vec<(String, f64)>>> {
        let _ = stop;
        Ok(None)
    }

    /// What was taken from `init.from` and what was not, in a sentence; `None` without it.
    fn initialized(&self) -> Option<&str> {
        None
    }

    /// The data, which a run records.
    fn data(&self) -> DataRecord;

    /// The architecture, which cannot change when a run is resumed.
    fn architecture(&self) -> Value;

    /// MACs of one sample's forward pass; 0 if unknown.
    fn macs(&self) -> f64;
}
