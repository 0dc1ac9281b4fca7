//! What a model takes of a device's memory.

use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{LoadError, ModelFiles};
use tintype::model::{detect, vae_config};
use tintype::weights::{WeightsError, parameter_count};

/// Bytes of a model's parameters once they are loaded: those of the network and its guide in a precision, those of the
/// decoder in float32, `4·n`. Networks are created lazily, so nothing is allocated.
///
/// # Errors
///
/// [`LoadError::Weights`] where a file is of no known network.
pub fn of_weights(
    files: &ModelFiles,
    precision: FloatDType,
    device: &Device,
) -> Result<u64, LoadError> {
    let invalid = |e| LoadError::Weights(WeightsError::Config(e));
    let mut sum = 0u64;
    for weights in [Some(&files.model), files.guide.as_ref()].into_iter().flatten() {
        let network = detect(weights)?.untrained(device).map_err(invalid)?;
        sum = sum.saturating_add(network.memory(weights, precision, device) as u64);
    }
    if let Some(weights) = &files.vae {
        let decoder = vae_config(weights)?.init_decoder(device).map_err(invalid)?;
        sum = sum.saturating_add((parameter_count(&decoder) as u64).saturating_mul(4));
    }
    Ok(sum)
}
