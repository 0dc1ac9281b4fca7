//! What the names and shapes of a checkpoint's tensors tell about its network.

use super::sit::SiTConfig;
use crate::weights::{Weights, WeightsError};

/// A checkpoint that does not fit what it seems to be.
pub(super) fn problem(weights: &Weights, problem: impl Into<String>) -> WeightsError {
    WeightsError::Format { file: weights.file.clone(), problem: problem.into() }
}

/// What the weights do not tell.
pub(super) fn needs_configuration(weights: &Weights, reason: impl Into<String>) -> WeightsError {
    WeightsError::NeedsConfiguration { file: weights.file.clone(), reason: reason.into() }
}

/// The configuration in a checkpoint's metadata.
pub(super) fn metadata(weights: &Weights) -> Option<&str> {
    weights.metadata.get("config").map(String::as_str)
}

/// A configuration of a network from its JSON.
pub(super) fn parse<C: serde::de::DeserializeOwned>(
    weights: &Weights,
    network: &str,
    json: &str,
) -> Result<C, WeightsError> {
    let wrong = |e| problem(weights, format!("its configuration is not that of a {network}: {e}"));
    serde_json::from_str(json).map_err(wrong)
}

/// Numbers that all DiT-like checkpoints tell by their shapes.
pub(super) struct Shapes {
    pub hidden: usize,
    pub channels: usize,
    pub patch: usize,
    pub grid: usize,
    pub depth: usize,
    pub classes: usize,
    pub heads: usize,
}

/// The shape of a tensor that must be there with so many dimensions.
pub(super) fn shape<'a>(
    weights: &'a Weights,
    name: &str,
    rank: usize,
) -> Result<&'a [usize], WeightsError> {
    match weights.tensors.get(name) {
        Some(view) if view.shape.len() == rank => Ok(&view.shape),
        Some(view) => Err(problem(weights, format!("tensor {name:?} has shape {:?}", view.shape))),
        None => Err(problem(weights, format!("tensor {name:?} is missing"))),
    }
}

pub(super) fn dit_shapes(weights: &Weights) -> Result<Shapes, WeightsError> {
    let embed = shape(weights, "x_embedder.proj.weight", 4)?;
    let (hidden, channels, patch) = (embed[0], embed[1], embed[2]);
    let grid = shape(weights, "pos_embed", 3)?[1].isqrt();
    let depth = count(weights, "blocks.");
    let classes = shape(weights, "y_embedder.embedding_table.weight", 2)?[0].saturating_sub(1);
    let head = ["blocks.0.attn.q_norm.weight", "feat_rope.freqs_cos"]
        .iter()
        .find_map(|name| weights.tensors.get(*name)?.shape.last().copied());
    let published = |hidden| match hidden {
        1152 | 1024 => Some(16),
        768 => Some(12),
        384 => Some(6),
        1536 => Some(24),
        1792 => Some(28),
        _ => None,
    };
    let heads = match head {
        Some(head) if head > 0 => hidden / head,
        _ => published(hidden).ok_or_else(|| {
            let reason = format!(
                "the number of heads of hidden size {hidden} cannot be told from the weights"
            );
            needs_configuration(weights, reason)
        })?,
    };
    Ok(Shapes { hidden, channels, patch, grid, depth, classes, heads })
}

/// One more than the largest number that follows `prefix` in a tensor's name.
pub(super) fn count(weights: &Weights, prefix: &str) -> usize {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    weights.tensors.keys().filter_map(number).max().map_or(0, |last: usize| last + 1)
}

/// The configuration of a SiT from its shapes.
///
/// # Errors
///
/// * [`WeightsError::Format`] where a tensor is missing or has another number of dimensions
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
        input_size: s.grid * s.patch,
        patch_size: s.patch,
        in_channels: s.channels,
        hidden_size: s.hidden,
        depth: s.depth,
        num_heads: s.heads,
        mlp_ratio: mlp as f64 / s.hidden as f64,
        num_classes: s.classes,
        qk_norm: weights.tensors.contains_key("blocks.0.attn.q_norm.weight"),
        encoder_depth: 8.min(s.depth),
        z_dims,
        projector_dim,
    };
    config.validate()?;
    Ok(config)
}
