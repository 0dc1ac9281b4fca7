//! How a SiT is recognised in a checkpoint.
//!
//! Three authors publish it: REPA-E with the statistics of the latents in the weights (`bn`), REPA without
//! them, and SiT's own authors without them and with a head that also emits variances (`learn_sigma`), whose
//! clock runs the other way.

use serde_json::{Value, json};

use super::SiTConfig;
use super::config::DROPOUT;
use crate::model::classes::{self, TABLE};
use crate::model::shapes::{dit_shapes, learns_sigma};
use crate::model::tensors::{count, metadata, needs_configuration, parse, shape, typed};
use crate::model::{Architecture, Family};
use crate::weights::{Weights, WeightsError};

/// SiT in checkpoints.
pub static FAMILY: Family = Family { name: "SiT", recognize };

/// A tensor that is there where the weights hold the statistics of the latents.
const STATISTICS: &str = "bn.running_mean";

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !weights.contains("x_embedder.proj.weight") || !weights.contains(TABLE) {
        return Ok(None);
    }
    let config = match metadata(weights) {
        Some(text) => configured(weights, text)?,
        None => {
            let config = sit_config(weights)?;
            check_clock(weights, &config)?;
            config
        }
    };
    config.validate()?;
    Ok(Some(config.into()))
}

/// A configuration, and from the tensors what it leaves out.
fn configured(weights: &Weights, text: &str) -> Result<SiTConfig, WeightsError> {
    let mut config: Value = parse(weights, FAMILY.name, text)?;
    tell_dropout(weights, &mut config);
    let learn_sigma = learns_sigma(weights).unwrap_or(false);
    if let Some(fields) = config.as_object_mut() {
        fields.entry("latent_norm").or_insert(json!(weights.contains(STATISTICS)));
        let learn_sigma = fields.entry("learn_sigma").or_insert(json!(learn_sigma)).clone();
        let learn_sigma = learn_sigma.as_bool().unwrap_or(false);
        fields.entry("noise_at_zero").or_insert(json!(noise_at_zero(weights, learn_sigma)));
    }
    typed(weights, FAMILY.name, config)
}

/// Whether the clock is that of SiT's own authors: their heads have `learn_sigma`. Statistics and projectors are
/// REPA's and REPA-E's, whose clock is this library's.
fn noise_at_zero(weights: &Weights, learn_sigma: bool) -> bool {
    learn_sigma && !weights.contains(STATISTICS) && count(weights, "projectors.") == 0
}

/// Sets a configuration's dropout to 0 where the table has a row for each class and no more.
pub(in crate::model) fn tell_dropout(weights: &Weights, config: &mut Value) {
    let classes = config["num_classes"].as_u64();
    let rows = classes::rows(weights).map(|rows| rows as u64);
    if let (true, Some(fields)) = (rows.is_some() && rows == classes, config.as_object_mut()) {
        fields.insert("class_dropout_prob".into(), json!(0.0));
    }
}

/// A plain LightningDiT has the tensors of a SiT without `bn`, and the other clock. Of those only SiTs on
/// Stable Diffusion's latents, which have 4 channels, are published.
fn check_clock(weights: &Weights, config: &SiTConfig) -> Result<(), WeightsError> {
    let sit = config.latent_norm || !config.z_dims.is_empty() || config.in_channels == 4;
    if sit {
        return Ok(());
    }
    let reason = "its tensors are those of a SiT and of a LightningDiT without RMSNorm, SwiGLU and RoPE, \
                  whose clocks run in opposite directions";
    Err(needs_configuration(weights, reason))
}

/// The configuration of a SiT from its shapes.
///
/// # Errors
///
/// * [`WeightsError::Format`] where a tensor is missing or has another number of dimensions, or the metadata hold a
///   configuration that cannot be read
/// * [`WeightsError::NeedsConfiguration`] where the number of heads cannot be told
/// * [`WeightsError::Config`] where the shapes do not describe a network
pub fn sit_config(weights: &Weights) -> Result<SiTConfig, WeightsError> {
    let s = dit_shapes(weights)?;
    let z_dims = (0..count(weights, "projectors."))
        .map(|i| Ok(shape(weights, &format!("projectors.{i}.4.weight"), 2)?[0]))
        .collect::<Result<Vec<_>, WeightsError>>()?;
    let projector_dim = match weights.tensors.get("projectors.0.0.weight") {
        Some(view) if view.shape.len() == 2 => view.shape[0],
        _ => 2048,
    };
    let mlp = shape(weights, "blocks.0.mlp.fc1.weight", 2)?[0];
    let config = SiTConfig {
        input_size: s.grid.saturating_mul(s.patch),
        patch_size: s.patch,
        in_channels: s.channels,
        hidden_size: s.hidden,
        depth: s.depth,
        num_heads: s.heads,
        mlp_ratio: mlp as f64 / s.hidden as f64,
        num_classes: s.classes,
        class_dropout_prob: if s.null_row { DROPOUT } else { 0.0 },
        qk_norm: weights.contains("blocks.0.attn.q_norm.weight"),
        latent_norm: weights.contains(STATISTICS),
        learn_sigma: s.learn_sigma,
        noise_at_zero: noise_at_zero(weights, s.learn_sigma),
        encoder_depth: 8.min(s.depth),
        z_dims,
        projector_dim,
    };
    config.validate()?;
    Ok(config)
}
