//! How a DiT-DH is recognised in a checkpoint: its tensors tell all of it, but where both widths are the same.

use super::DitDhConfig;
use super::config::{default_dropout, default_mlp_ratio};
use crate::model::classes;
use crate::model::tensors::{count, is_json, metadata, needs_configuration, parse, shape};
use crate::model::{Architecture, Family};
use crate::weights::{Weights, WeightsError};

/// DiT-DH in checkpoints.
pub static FAMILY: Family = Family { name: "DiT-DH", recognize };

/// The backbone's embedding of the latents, beside the head's.
const OWN: &str = "s_embedder.proj.weight";

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !weights.contains(OWN) {
        return Ok(None);
    }
    let mut config: DitDhConfig = match metadata(weights) {
        Some(json) if is_json(json) => parse(weights, FAMILY.name, json)?,
        Some(yaml) => DitDhConfig::from_yaml(yaml)?,
        None => from_shapes(weights)?,
    };
    // A table with a row for each class and no more is of a network without class dropout.
    if classes::rows(weights) == Some(config.num_classes) {
        config.class_dropout_prob = 0.0;
    }
    config.validate()?;
    Ok(Some(config.into()))
}

/// The configuration of a DiT-DH from its shapes. Numbers of heads follow from the tables of rotations.
fn from_shapes(weights: &Weights) -> Result<DitDhConfig, WeightsError> {
    let embed = shape(weights, OWN, 4)?;
    let hidden_size = [embed[0], shape(weights, "x_embedder.proj.weight", 4)?[0]];
    let rotations = shape(weights, "enc_feat_rope.freqs_cos", 2)?;
    let head_size = [rotations[1], shape(weights, "dec_feat_rope.freqs_cos", 2)?[1]];
    let heads = |part: usize| hidden_size[part].checked_div(head_size[part]).unwrap_or(0);
    let backbone = backbone_depth(weights, hidden_size, head_size)?;
    let mlp_ratio = match weights.tensors.get("blocks.0.mlp.fc1.weight") {
        Some(view) if view.shape.len() == 2 => view.shape[0] as f64 / hidden_size[0] as f64,
        _ => default_mlp_ratio(),
    };
    let classes::Rows { classes, null_row, .. } = classes::read(weights)?;
    Ok(DitDhConfig {
        input_size: rotations[0].isqrt(),
        patch_size: embed[2],
        in_channels: embed[1],
        hidden_size,
        depth: [backbone, count(weights, "blocks.").saturating_sub(backbone)],
        num_heads: [heads(0), heads(1)],
        mlp_ratio,
        class_dropout_prob: if null_row { default_dropout() } else { 0.0 },
        num_classes: classes,
        use_qknorm: weights.contains("blocks.0.attn.q_norm.weight"),
        use_swiglu: weights.contains("blocks.0.mlp.w12.weight"),
        use_rope: true,
        use_rmsnorm: weights.contains("final_layer.norm_final.weight"),
        wo_shift: false,
        use_pos_embed: weights.contains("pos_embed"),
        time_dist_shift_dim: None,
        time_dist_shift_base: None,
    })
}

/// Blocks before the first one of the head's width. Of one width for both, the norm of queries tells where the heads are
/// of two sizes.
fn backbone_depth(
    weights: &Weights,
    [width, head_width]: [usize; 2],
    [head_size, heads_size]: [usize; 2],
) -> Result<usize, WeightsError> {
    let has_norm = weights.contains("blocks.0.attn.q_norm.weight");
    let (tensor, rank, of_backbone) = if width != head_width {
        ("attn.qkv.weight", 2, width)
    } else if has_norm && head_size != heads_size {
        ("attn.q_norm.weight", 1, head_size)
    } else {
        let reason = format!(
            "backbone and head both have the width {width}, so the weights do not tell where the head begins"
        );
        return Err(needs_configuration(weights, reason));
    };
    let blocks = count(weights, "blocks.");
    for block in 0..blocks {
        let axes = shape(weights, &format!("blocks.{block}.{tensor}"), rank)?;
        if axes[rank - 1] != of_backbone {
            return Ok(block);
        }
    }
    Ok(blocks)
}
