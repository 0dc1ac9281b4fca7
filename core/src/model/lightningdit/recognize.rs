//! How a LightningDiT is recognised in a checkpoint.

use serde_json::Value;

use super::LightningDiTConfig;
use super::config::default_dropout;
use super::published::Published;
use crate::model::classes::{self, TABLE};
use crate::model::shapes::dit_shapes;
use crate::model::tensors::{count, is_json, metadata, parse, shape, typed};
use crate::model::{Architecture, Family};
use crate::weights::{Weights, WeightsError};

/// LightningDiT in checkpoints.
pub static FAMILY: Family = Family { name: "LightningDiT", recognize };

/// Tensors of its options, which SiT does not have: SwiGLU, RMSNorm and RoPE.
const OWN: [&str; 3] =
    ["blocks.0.mlp.w12.weight", "final_layer.norm_final.weight", "feat_rope.freqs_cos"];

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    let is_dit = weights.contains("x_embedder.proj.weight") && weights.contains(TABLE);
    let has_own = OWN.iter().any(|name| weights.contains(name));
    if !has_own && !(is_dit && (lacks_shift(weights) || metadata(weights).is_some_and(is_named))) {
        return Ok(None);
    }
    let mut config = match metadata(weights) {
        Some(json) if is_json(json) => from_json(weights, json)?,
        Some(yaml) => LightningDiTConfig::from_yaml(yaml)?,
        None => from_shapes(weights)?,
    };
    // A table with a row for each class and no more is of a network without class dropout.
    if classes::rows(weights) == Some(config.num_classes) {
        config.class_dropout_prob = 0.0;
    }
    config.validate()?;
    Ok(Some(config.into()))
}

/// Whether a configuration is a LightningDiT's: a plain one has a SiT's tensors.
fn is_named(text: &str) -> bool {
    if !is_json(text) {
        return LightningDiTConfig::from_yaml(text).is_ok();
    }
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    let options = ["use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm", "wo_shift"];
    let kind = config["model"]["model_type"].as_str();
    options.iter().any(|option| config.get(option).is_some())
        || kind.is_some_and(|kind| kind.starts_with("LightningDiT"))
}

/// Whether the blocks' modulation has four parts; SiT's has six.
fn lacks_shift(weights: &Weights) -> bool {
    match shape(weights, "blocks.0.adaLN_modulation.1.weight", 2) {
        Ok([rows, hidden]) => hidden.checked_mul(4) == Some(*rows),
        _ => false,
    }
}

/// A configuration of this library, or the authors' as their checkpoints hold it. Of the latter's variants
/// only the published ones are known; the tensors tell the others.
fn from_json(weights: &Weights, text: &str) -> Result<LightningDiTConfig, WeightsError> {
    let config: Value = parse(weights, FAMILY.name, text)?;
    if !config["model"].is_object() {
        return typed(weights, FAMILY.name, config);
    }
    let published =
        serde_json::from_value(config).ok().and_then(|file: Published| file.config().ok());
    let embed = weights.tensors.get("x_embedder.proj.weight");
    let hidden = embed.and_then(|view| view.shape.first().copied());
    let fits = |config: &LightningDiTConfig| {
        hidden == Some(config.hidden_size) && count(weights, "blocks.") == config.depth
    };
    match published.filter(fits) {
        Some(config) => Ok(config),
        None => from_shapes(weights),
    }
}

/// The configuration of a LightningDiT from its shapes.
fn from_shapes(weights: &Weights) -> Result<LightningDiTConfig, WeightsError> {
    let s = dit_shapes(weights)?;
    let mlp_ratio = match weights.tensors.get("blocks.0.mlp.fc1.weight") {
        Some(view) if view.shape.len() == 2 => view.shape[0] as f64 / s.hidden as f64,
        _ => 4.0,
    };
    let config = LightningDiTConfig {
        input_size: s.grid.saturating_mul(s.patch),
        patch_size: s.patch,
        in_channels: s.channels,
        hidden_size: s.hidden,
        depth: s.depth,
        num_heads: s.heads,
        mlp_ratio,
        num_classes: s.classes,
        class_dropout_prob: if s.null_row { default_dropout() } else { 0.0 },
        use_qknorm: weights.contains("blocks.0.attn.q_norm.weight"),
        use_swiglu: weights.contains("blocks.0.mlp.w12.weight"),
        use_rope: weights.contains("feat_rope.freqs_cos"),
        use_rmsnorm: weights.contains("final_layer.norm_final.weight"),
        wo_shift: lacks_shift(weights),
        learn_sigma: s.learn_sigma,
    };
    config.validate()?;
    Ok(config)
}
