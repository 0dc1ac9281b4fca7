//! What a model takes of a device's memory.

use burn::tensor::Device;

use super::guide::guide_of;
use super::load::{LoadError, Parts};
use crate::model::{Architecture, autoencoder_config, detect};
use crate::precision::Precision;
use crate::weights::{Weights, WeightsError, parameter_count};

/// Activations of a residual block that are there at once: what enters it and is added at its end, what enters its
/// convolution, and what comes out.
const ACTIVATIONS: usize = 3;

impl Parts<'_> {
    /// Bytes that one image takes on a device: the parameters of the network and its guide, as they are loaded; those
    /// of the decoder alone, `4·n`; and three times the decoder's largest activation, `4·n` for each. What
    /// else the files hold is not loaded, and a network's activations are a few per cent of its parameters. Reads no
    /// weight.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Weights`] where the network, its guide or the autoencoder, or a configuration of them, is unknown
    /// * [`LoadError::IncompatibleParts`] where the guide is a network of another kind
    pub fn needed(self, precision: Precision, device: &Device) -> Result<u64, LoadError> {
        let invalid = |e| LoadError::Weights(WeightsError::Config(e));
        let architecture = detect(self.model)?;
        let memory = |architecture: &Architecture, weights: &Weights| -> Result<usize, LoadError> {
            let untrained = architecture.untrained(device).map_err(invalid)?;
            Ok(untrained.memory(weights, precision.dtype(), device))
        };
        let guide = match (guide_of(&architecture, self)?, self.guide) {
            (Some(guide), Some(weights)) => memory(&guide, weights)?,
            _ => 0,
        };
        let network = memory(&architecture, self.model)?.saturating_add(guide);
        let Some(weights) = self.vae else { return Ok(network as u64) };
        let config = autoencoder_config(weights)?;
        let decoder = parameter_count(&config.init_decoder(device).map_err(invalid)?);
        let [_, h, w] = architecture.state_shape();
        let activations = config.largest_activation([h, w]).saturating_mul(ACTIVATIONS);
        let decoder = decoder.saturating_add(activations).saturating_mul(4);
        Ok(network.saturating_add(decoder) as u64)
    }
}
