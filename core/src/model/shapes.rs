//! What the names and shapes of a checkpoint's tensors tell about its network.

use super::classes;
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
    serde_json::from_str(json).map_err(|e| not_that_of(weights, network, &e))
}

/// The same of JSON that was read already.
pub(super) fn typed<C: serde::de::DeserializeOwned>(
    weights: &Weights,
    network: &str,
    json: serde_json::Value,
) -> Result<C, WeightsError> {
    serde_json::from_value(json).map_err(|e| not_that_of(weights, network, &e))
}

fn not_that_of(weights: &Weights, network: &str, e: &serde_json::Error) -> WeightsError {
    problem(weights, format!("its configuration is not that of a {network}: {e}"))
}

/// Numbers that all DiT-like checkpoints tell by their shapes.
pub(super) struct Shapes {
    pub hidden: usize,
    pub channels: usize,
    pub patch: usize,
    pub grid: usize,
    pub depth: usize,
    pub classes: usize,
    /// Whether the table of classes has a row for the null class.
    pub null_row: bool,
    pub heads: usize,
    /// Whether the head emits twice the channels.
    pub learn_sigma: bool,
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
        None => Err(match weights.unreadable.get(name) {
            Some(reason) => WeightsError::Unreadable {
                file: weights.file.clone(),
                tensor: name.into(),
                reason: reason.clone(),
            },
            None => problem(weights, format!("tensor {name:?} is missing")),
        }),
    }
}

pub(super) fn dit_shapes(weights: &Weights) -> Result<Shapes, WeightsError> {
    let embed = shape(weights, "x_embedder.proj.weight", 4)?;
    let (hidden, channels, patch) = (embed[0], embed[1], embed[2]);
    let grid = shape(weights, "pos_embed", 3)?[1].isqrt();
    let depth = count(weights, "blocks.");
    let classes::Rows { classes, null_row, .. } = classes::read(weights)?;
    let learn_sigma = learns_sigma(weights)?;
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
    Ok(Shapes { hidden, channels, patch, grid, depth, classes, null_row, heads, learn_sigma })
}

/// Whether the head of a DiT emits twice the channels that it takes.
pub(super) fn learns_sigma(weights: &Weights) -> Result<bool, WeightsError> {
    let embed = shape(weights, "x_embedder.proj.weight", 4)?;
    let out = shape(weights, "final_layer.linear.weight", 2)?[0];
    // Another number is found when the network is compared with the weights.
    let values = embed[1..].iter().try_fold(2usize, |n, &d| n.checked_mul(d));
    Ok(values == Some(out))
}

/// One more than the largest number that follows `prefix` in a tensor's name. A name may hold any number:
/// configurations are validated before a network is made of it.
pub(super) fn count(weights: &Weights, prefix: &str) -> usize {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    let names = weights.tensors.keys().chain(weights.unreadable.keys());
    names.filter_map(number).max().map_or(0, |last: usize| last.saturating_add(1))
}
