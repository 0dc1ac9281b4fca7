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
    use tintype::weights::Weights;
    use tintype_test_models::{configs, tensors};

    use super::*;

    fn weights<M: Module>(network: &M) -> Weights {
        Weights { tensors: tensors(network, 0.4, |_| false), ..Weights::default() }
    }

    /// The latents of a DiT-DH are a RAE's.
    #[test]
    fn every_autoencoder_is_counted() {
        let device = Device::flex();
        let network = configs::ditdh().init(&device).expect("valid");
        let mut files = ModelFiles {
            model: weights(&network),
            vae: None,
            stats: None,
            guide: None,
            notes: Vec::new(),
        };
        let bytes = |files: &ModelFiles| of_weights(files, FloatDType::F32, &device);
        let alone = bytes(&files).expect("a network");
        let rae = configs::rae().init(&device).expect("valid");
        let mut decoder = weights(&rae);
        let config = serde_json::json!(configs::rae()).to_string();
        decoder.metadata.insert("config".into(), config);
        files.vae = Some(decoder);
        let rae = 4 * parameter_count(&rae) as u64;
        assert_eq!(bytes(&files).expect("a RAE"), alone + rae);
        let vae = configs::autoencoder().init_decoder(&device).expect("valid");
        files.vae = Some(weights(&vae));
        let vae = 4 * parameter_count(&vae) as u64;
        assert_eq!(bytes(&files).expect("an autoencoder"), alone + vae);
    }
}
