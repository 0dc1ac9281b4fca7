//! DINOv2's weights as its authors, transformers and timm name them.

use std::collections::BTreeMap;

use tintype::weights::{TensorView, Weights, WeightsError};

/// transformers' words and the authors', applied in order. Releases since 5 write the second form of
/// attention and SwiGLU.
const TRANSFORMERS: [(&str, &str); 19] = [
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    (".attention.attention.query.", ".attn.q."),
    (".attention.attention.key.", ".attn.k."),
    (".attention.attention.value.", ".attn.v."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.q_proj.", ".attn.q."),
    (".attention.k_proj.", ".attn.k."),
    (".attention.v_proj.", ".attn.v."),
    (".attention.o_proj.", ".attn.proj."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    (".mlp.weights_in.", ".mlp.w12."),
    (".mlp.weights_out.", ".mlp.w3."),
    (".mlp.gate_proj.", ".mlp.gate."),
    (".mlp.up_proj.", ".mlp.up."),
    (".mlp.down_proj.", ".mlp.w3."),
];

/// Tensors that the authors keep stacked along the first axis.
const STACKED: [(&[&str], &str); 2] = [
    (&[".attn.q.", ".attn.k.", ".attn.v."], ".attn.qkv."),
    (&[".mlp.gate.", ".mlp.up."], ".mlp.w12."),
];

/// The weights under the authors' names.
pub fn official(mut weights: Weights) -> Result<Weights, WeightsError> {
    let transformers = weights.tensors.keys().any(|name| name.contains("embeddings.cls_token"));
    let rename = |name: String| -> String {
        let name = name.strip_prefix("dinov2_with_registers.").unwrap_or(&name);
        let name = name.strip_prefix("dinov2.").unwrap_or(name);
        if !transformers {
            return name.replace("reg_token", "register_tokens");
        }
        let name = match name.strip_prefix("layernorm.") {
            Some(rest) => format!("norm.{rest}"),
            None => name.to_string(),
        };
        TRANSFORMERS.iter().fold(name, |name, (theirs, ours)| name.replace(theirs, ours))
    };
    weights.tensors =
        weights.tensors.into_iter().map(|(name, view)| (rename(name), view)).collect();
    for (parts, whole) in STACKED {
        stack(&mut weights, parts, whole)?;
    }
    packed_swiglu(&mut weights.tensors);
    class_row(&mut weights)?;
    Ok(weights)
}

/// Replaces `x{part}y` for every part by their rows under `x{whole}y`.
fn stack(weights: &mut Weights, parts: &[&str], whole: &str) -> Result<(), WeightsError> {
    let first: Vec<String> =
        weights.tensors.keys().filter(|name| name.contains(parts[0])).cloned().collect();
    for name in first {
        let mut shape = Vec::new();
        let mut values = Vec::new();
        for part in parts {
            let name = name.replace(parts[0], part);
            let Some(view) = weights.tensors.remove(&name) else {
                let problem = format!("it lacks {name}");
                return Err(WeightsError::Format { file: weights.file.clone(), problem });
            };
            values.extend(view.to_f32());
            shape = view.shape.clone();
        }
        let rest: usize = shape.iter().skip(1).product();
        if let Some(rows) = shape.first_mut() {
            *rows = values.len() / rest.max(1);
        }
        let view = float(weights, shape, &values)?;
        weights.tensors.insert(name.replace(parts[0], whole), view);
    }
    Ok(())
}

/// timm calls SwiGLU's two layers `fc1` and `fc2`, too; their widths tell.
fn packed_swiglu(tensors: &mut BTreeMap<String, TensorView>) {
    let width = |name: &str, axis: usize| tensors.get(name).and_then(|v| v.shape.get(axis).copied());
    let (out, inner) = (width("blocks.0.mlp.fc1.weight", 0), width("blocks.0.mlp.fc2.weight", 1));
    if out.is_none() || out == inner {
        return;
    }
    let rename = |name: String| name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
    *tensors =
        std::mem::take(tensors).into_iter().map(|(name, view)| (rename(name), view)).collect();
}

/// timm's tables for registers have no row for the class: its position is in the class token.
fn class_row(weights: &mut Weights) -> Result<(), WeightsError> {
    let Some(table) = weights.tensors.get("pos_embed").filter(|view| view.shape.len() == 3) else {
        return Ok(());
    };
    let [_, rows, d] = [table.shape[0], table.shape[1], table.shape[2]];
    if rows.isqrt().pow(2) != rows {
        return Ok(());
    }
    let mut values = vec![0.0; d];
    values.extend(table.to_f32());
    let view = float(weights, vec![1, 1 + rows, d], &values)?;
    weights.tensors.insert("pos_embed".into(), view);
    Ok(())
}

fn float(weights: &Weights, shape: Vec<usize>, values: &[f32]) -> Result<TensorView, WeightsError> {
    TensorView::from_f32(shape, values)
        .map_err(|problem| WeightsError::Format { file: weights.file.clone(), problem })
}
