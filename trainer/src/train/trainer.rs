//! The interface between the training loop and the trainers.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use serde_json::Value;
use tintype::image::Rgb;
use tintype::weights::{Flat, Which};

use super::checkpoint::TensorFile;
use super::record::DataRecord;

/// The result of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Losses, gradient norm, learning rate by name, over the global batch.
    pub values: Vec<(String, f64)>,
    /// Whether the update was skipped because losses or gradients were not finite.
    pub skipped: bool,
    /// Whether a rank was asked to stop; of a single rank never.
    pub stop: bool,
}

/// A trainer: its networks, optimizers and data on one device.
pub trait Trainer {
    /// Begins an optimizer step, `step` counted from 0. On a GPU it may return while the device still works; then
    /// [`settle`](Self::settle) tells how it ended.
    ///
    /// # Errors
    ///
    /// If the data of the step cannot be read, another rank cannot be reached, or the device fails.
    fn step(&mut self, step: u64) -> Result<()>;

    /// Whether the next step may begin before this one is settled, since the device works through them meanwhile.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// How the oldest step ended that was begun and not told yet; waits for the device if it must.
    ///
    /// # Errors
    ///
    /// If all were told, or the device fails.
    fn settle(&mut self) -> Result<Report>;

    /// The weights, `[n]` a name. Those that training changes by gradients are the same on all ranks after each step.
    fn weights(&self, which: Which) -> Flat;

    /// Takes weights in place of those of [`weights`](Self::weights).
    fn set_weights(&mut self, weights: Flat);

    /// The files of a checkpoint: a copy, which is written while later steps are done. The caller has settled all steps.
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
