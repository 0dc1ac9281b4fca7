//! Autoguidance (Karras et al., arXiv 2406.02507): the second half of guidance is the prediction of a smaller or earlier
//! network of the same kind, for the same class.

use std::sync::{Arc, Mutex};

use burn::tensor::{Device, FloatDType};

use super::load::{LoadError, Parts};
use super::replay::Replay;
use crate::model::{Architecture, Clock, Network, Process, detect};
use crate::weights::{Report, Weights, WeightsError};

/// The network that another one is guided by.
#[derive(Debug)]
pub(super) struct Guide {
    pub architecture: Architecture,
    pub network: Arc<dyn Network>,
    /// Recordings of its own: they are of one network.
    pub replay: Mutex<Replay>,
}

impl Guide {
    /// Loads a guide that [`guide_of`] has recognised.
    pub(super) fn load(
        architecture: Architecture,
        weights: &Weights,
        precision: FloatDType,
        device: &Device,
    ) -> Result<(Self, Report), WeightsError> {
        let untrained = architecture.untrained(device).map_err(WeightsError::Config)?;
        let (network, report) = untrained.load(weights, precision, device)?;
        Ok((Self { architecture, network, replay: Mutex::default() }, report))
    }
}

/// What the guide among the parts is, where there is one. It has to be a network of the kind that it guides.
pub(super) fn guide_of(
    architecture: &Architecture,
    parts: Parts<'_>,
) -> Result<Option<Architecture>, LoadError> {
    let Some(weights) = parts.guide else { return Ok(None) };
    let (own, other) = (&parts.model.file, &weights.file);
    let name = architecture.name();
    if let Process::MeanFlow = architecture.process() {
        return Err(LoadError::IncompatibleParts(format!(
            "guidance is an input of {own}, of {name}, which takes no guide such as {other}"
        )));
    }
    let guide = detect(weights)?;
    let (ours, theirs) = (kind(architecture), kind(&guide));
    match ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs) {
        Some((ours, theirs)) => Err(LoadError::IncompatibleParts(format!(
            "{own} is a network of {ours} and its guide {other} one of {theirs}"
        ))),
        None => Ok(Some(guide)),
    }
}

/// What a network and its guide have in common, in words.
fn kind(architecture: &Architecture) -> [String; 6] {
    let [channels, height, width] = architecture.state_shape();
    let image = architecture.image_size();
    let process = match architecture.process() {
        Process::Flow(Clock::NoiseAtOne) => "a flow with noise at time 1",
        Process::Flow(Clock::NoiseAtZero) => "a flow with noise at time 0",
        Process::Denoiser { .. } => "a denoiser",
        Process::Hybrid { .. } => "a flow of latents and pixels",
        Process::MeanFlow => "average velocities",
    };
    [
        architecture.name().into(),
        process.into(),
        format!("states of {channels} × {height} × {width}"),
        // Hi-DiT's, whose states are latents.
        image.map_or(String::new(), |[width, height]| format!("images of {width} × {height}")),
        format!("{} classes", architecture.num_classes()),
        // Both estimate the velocity of one path.
        format!("noise scale {}", architecture.noise_scale()),
    ]
}
