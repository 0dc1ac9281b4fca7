//! Which network a checkpoint holds.

use super::Architecture;
use super::classes::class_note;
use super::registry::families;
use super::tensors::{count, metadata, needs_configuration, parse, problem, shape};
use super::vavae::{VaeConfig, is_diffusers};
use super::{jit, rae};
use crate::weights::{Weights, WeightsError};

/// The architecture of a checkpoint. The metadata key `config` decides where there is one; otherwise names
/// and shapes of the tensors do.
///
/// # Errors
///
/// * [`WeightsError::NeedsConfiguration`] where the weights do not tell all of a configuration, or the one in
///   them has a value that cannot be read
/// * [`WeightsError::Autoencoder`] where they are an autoencoder's
/// * [`WeightsError::Config`] where the configuration does not describe a network
/// * [`WeightsError::Format`] where they are those of no known network, or the configuration in the metadata
///   cannot be read
pub fn detect(weights: &Weights) -> Result<Architecture, WeightsError> {
    if let Some(key) = weights.unreadable_config() {
        let reason = format!("{key} of its configuration cannot be read");
        return Err(needs_configuration(weights, reason));
    }
    for family in families() {
        if let Some(architecture) = (family.recognize)(weights)? {
            return Ok(architecture);
        }
    }
    let is_autoencoder = weights.tensors.keys().any(|name| name.starts_with("decoder."));
    if is_autoencoder || rae::is_decoder(weights) {
        return Err(WeightsError::Autoencoder { file: weights.file.clone() });
    }
    let known: Vec<_> = families().iter().map(|family| family.name).collect();
    let known = known.join(", ");
    Err(problem(weights, format!("its tensors are those of no network known here ({known})")))
}

/// What is worth knowing of a network's checkpoint, in sentences: that it holds raw weights, and what was
/// assumed of its classes.
pub fn notes(weights: &Weights) -> Vec<String> {
    // A JiT always has a null class.
    let of_classes = class_note(weights).filter(|_| !jit::is_one(weights));
    weights.raw_note().into_iter().chain(of_classes).chain(names_note(weights)).collect()
}

/// A sentence where the metadata's class names are not those of the network's classes, and not used.
fn names_note(weights: &Weights) -> Option<String> {
    let text = weights.metadata.get("classes")?;
    let n = detect(weights).ok()?.num_classes();
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(names) if names.len() == n => None,
        Ok(names) => Some(format!(
            "{}: its {} class names are not used; the network has {n} classes",
            weights.file,
            names.len()
        )),
        Err(_) => Some(format!(
            "{}: its class names are not used; they are not a JSON list of texts",
            weights.file
        )),
    }
}

/// The configuration of an autoencoder, or of one half of it. The metadata key `config` decides where there is
/// one (diffusers' `config.json`, too); otherwise the shapes of the tensors do, with 32 groups.
///
/// # Errors
///
/// * [`WeightsError::Format`] where the tensors are not those of a VA-VAE, or the metadata holds
///   another configuration
/// * [`WeightsError::Config`] where the configuration does not describe an autoencoder
pub fn vae_config(weights: &Weights) -> Result<VaeConfig, WeightsError> {
    if let Some(text) = metadata(weights) {
        let config: VaeConfig = match is_diffusers(text) {
            true => VaeConfig::from_diffusers(text).map_err(|e| problem(weights, e.to_string()))?,
            false => parse(weights, "VAE", text)?,
        };
        config.validate()?;
        return Ok(config);
    }
    let decoder = weights.contains("decoder.conv_in.weight");
    let side = if decoder { "decoder.up." } else { "encoder.down." };
    let levels = count(weights, side);
    if levels == 0 || levels > 15 {
        return Err(problem(weights, "its tensors are not those of a VA-VAE"));
    }
    let widths = (0..levels)
        .map(|l| Ok(shape(weights, &format!("{side}{l}.block.0.conv2.weight"), 4)?[0]))
        .collect::<Result<Vec<_>, WeightsError>>()?;
    let ch = if decoder { widths[0] } else { shape(weights, "encoder.conv_in.weight", 4)?[0] };
    if ch == 0 || widths.iter().any(|w| !w.is_multiple_of(ch)) {
        return Err(problem(weights, "the widths of its levels are not multiples of the first"));
    }
    let blocks = count(weights, &format!("{side}0.block."));
    let (z_channels, embed_dim) = if decoder {
        let quant = shape(weights, "post_quant_conv.weight", 4)?;
        (quant[0], quant[1])
    } else {
        let quant = shape(weights, "quant_conv.weight", 4)?;
        (quant[1] / 2, quant[0] / 2)
    };
    let attends = |l: &usize| weights.contains(&format!("{side}{l}.attn.0.norm.weight"));
    let config = VaeConfig {
        ch,
        ch_mult: widths.iter().map(|w| w / ch).collect(),
        num_res_blocks: if decoder { blocks.saturating_sub(1) } else { blocks },
        z_channels,
        embed_dim: Some(embed_dim),
        resolution: 256,
        attn_resolutions: (0..levels).filter(attends).map(|l| 256 >> l).collect(),
        ..VaeConfig::f16d32()
    };
    config.validate()?;
    Ok(config)
}
