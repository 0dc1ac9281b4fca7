//! How a JiT is recognised in a checkpoint.

use serde_json::Value;

use super::JitConfig;
use super::config::{MLP_RATIO, T_EPS, usual_noise_scale, usual_start};
use crate::model::classes::TABLE;
use crate::model::meanflow::told;
use crate::model::tensors::{count, shape};
use crate::model::{Architecture, Family};
use crate::weights::{Weights, WeightsError};

/// JiT in checkpoints.
pub static FAMILY: Family = Family { name: "JiT", recognize };

/// Whether a checkpoint is that of a JiT: patches come through a bottleneck, and all blocks are one row.
pub(in crate::model) fn is_one(weights: &Weights) -> bool {
    weights.contains("x_embedder.proj1.weight") && weights.contains("blocks.0.attn.qkv.weight")
}

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !is_one(weights) {
        return Ok(None);
    }
    let config = told(weights, FAMILY.name, from_shapes(weights)?)?;
    config.validate()?;
    Ok(Some(config.into()))
}

/// What the tensors tell, and where they do not, the arguments of the authors' training or else the published sizes.
fn from_shapes(weights: &Weights) -> Result<JitConfig, WeightsError> {
    let embed = shape(weights, "x_embedder.proj1.weight", 4)?; // [bottleneck, C, p, p]
    let positions = shape(weights, "pos_embed", 3)?; // [1, N, D]
    let head = shape(weights, "blocks.0.attn.q_norm.weight", 1)?[0];
    let rows = shape(weights, TABLE, 2)?[0];
    let in_context_len = match weights.contains("in_context_posemb") {
        true => shape(weights, "in_context_posemb", 3)?[1],
        false => 0,
    };
    let (patch_size, hidden_size) = (embed[2], positions[2]);
    let (input_size, depth) =
        (positions[1].isqrt().saturating_mul(patch_size), count(weights, "blocks."));
    let arguments = weights.metadata.get("args").map_or("", String::as_str);
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let argument = |name: &str, usual: f64| arguments[name].as_f64().unwrap_or(usual);
    Ok(JitConfig {
        input_size,
        patch_size,
        in_channels: embed[1],
        hidden_size,
        depth,
        num_heads: hidden_size / head.max(1),
        mlp_ratio: MLP_RATIO,
        bottleneck_dim: embed[0],
        in_context_len,
        in_context_start: usual_start(depth),
        num_classes: rows.saturating_sub(1),
        noise_scale: argument("noise_scale", usual_noise_scale(input_size)),
        t_eps: argument("t_eps", T_EPS),
    })
}
