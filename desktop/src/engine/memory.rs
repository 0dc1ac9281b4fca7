//! What a model takes of a device's memory.

use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{LoadError, ModelFiles};
use tintype::model::{autoencoder_config, detect};
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
        let decoder = autoencoder_config(weights)?.init_decoder(device).map_err(invalid)?;
        sum = sum.saturating_add((parameter_count(&decoder) as u64).saturating_mul(4));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use tintype::burn::module::Module;
    use tintype::model::lightningdit::LightningDiTConfig;
    use tintype::weights::Weights;
    use tintype_test_models::{configs, tensors};

    use super::*;

    fn configured<M: Module>(network: &M, config: &serde_json::Value) -> Weights {
        let tensors = tensors(network, 0.1, |_| false);
        let mut weights = Weights { file: "x.pt".into(), tensors, ..Weights::default() };
        weights.set_config(&config.to_string());
        weights
    }

    #[test]
    fn the_decoder_of_any_autoencoder_counts() {
        let (device, config) = (Device::flex(), configs::rae());
        let network =
            LightningDiTConfig { in_channels: 64, input_size: 2, ..configs::lightningdit() };
        let decoder = config.init(&device).expect("valid");
        let mut files = ModelFiles {
            model: configured(&network.init(&device).expect("valid"), &serde_json::json!(network)),
            vae: None,
            stats: None,
            guide: None,
            notes: Vec::new(),
        };
        let bytes = |files: &ModelFiles| {
            of_weights(files, FloatDType::F32, &device).expect("they are known")
        };
        let alone = bytes(&files);
        files.vae = Some(configured(&decoder, &serde_json::json!(config)));
        assert_eq!(bytes(&files) - alone, 4 * parameter_count(&decoder) as u64);
    }
}
