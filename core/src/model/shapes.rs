//! What the shapes of a checkpoint's tensors tell about a DiT.

use super::classes;
use super::tensors::{count, needs_configuration, shape};
use crate::weights::{Weights, WeightsError};

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
