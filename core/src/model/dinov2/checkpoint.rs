//! DINOv2's weights as its authors, transformers and timm name them.

use std::collections::BTreeMap;

use crate::weights::{TensorView, Weights, WeightsError};

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

/// Names of the first block's LayerScale, the authors' and transformers', which other ViTs do not have.
const LAYER_SCALE: [&str; 2] = ["blocks.0.ls1.gamma", "encoder.layer.0.layer_scale1.lambda1"];
/// Prefixes that transformers' classes give all names. Under another one DINOv2 is a part of something else, as the
/// teacher is in checkpoints of a VA-VAE.
const CLASSES: [&str; 2] = ["dinov2_with_registers.", "dinov2."];

/// Whether tensors are a DINOv2's, as its authors, transformers or timm name them.
pub fn is_dinov2(weights: &Weights) -> bool {
    let is_under =
        |prefix: &str| LAYER_SCALE.iter().any(|name| weights.contains(&format!("{prefix}{name}")));
    is_under("") || CLASSES.into_iter().any(is_under)
}

/// The weights under the authors' names, without the mask token, which only training has a use for.
///
/// # Errors
///
/// [`WeightsError::Format`] if a part of a stacked tensor is missing, or parts do not fit together.
pub fn official(mut weights: Weights) -> Result<Weights, WeightsError> {
    let transformers = weights.tensors.keys().any(|name| name.contains("embeddings.cls_token"));
    let rename = |name: String| -> String {
        let name = CLASSES.iter().find_map(|class| name.strip_prefix(class)).unwrap_or(&name);
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
    weights.tensors.remove("mask_token");
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
        let rest = shape.iter().skip(1).fold(1, |n: usize, axis| n.saturating_mul(*axis));
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
    let width =
        |name: &str, axis: usize| tensors.get(name).and_then(|v| v.shape.get(axis).copied());
    let (out, inner) = (width("blocks.0.mlp.fc1.weight", 0), width("blocks.0.mlp.fc2.weight", 1));
    if out.is_none() || out == inner {
        return;
    }
    let rename =
        |name: String| name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
    *tensors =
        std::mem::take(tensors).into_iter().map(|(name, view)| (rename(name), view)).collect();
}

/// timm's tables for registers have no row for the class: its position is in the class token.
fn class_row(weights: &mut Weights) -> Result<(), WeightsError> {
    let is_table = |view: &&TensorView| view.shape.len() == 3 && !view.is_empty();
    let Some(table) = weights.tensors.get("pos_embed").filter(is_table) else {
        return Ok(());
    };
    let [_, rows, d] = [table.shape[0], table.shape[1], table.shape[2]];
    if rows == 0 || rows.isqrt().pow(2) != rows {
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

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::super::{DinoConfig, DinoV2};
    use super::*;
    use crate::noise::{ImageKey, Stream, normals};
    use crate::weights::snapshot;

    fn normal(seed: u64, n: usize) -> Vec<f32> {
        let key = ImageKey::new(seed, 0);
        normals(key, Stream::Noise, 0, n).iter().map(|v| v * 0.2).collect()
    }

    /// A small network with registers and SwiGLU, of one head.
    fn of_width(embed_dim: usize) -> DinoConfig {
        DinoConfig {
            embed_dim,
            depth: 2,
            num_heads: 1,
            patch_size: 14,
            mlp_ratio: 4,
            img_size: 42,
            registers: 4,
            swiglu: true,
        }
    }

    /// Its weights under the authors' names.
    fn authors() -> BTreeMap<String, TensorView> {
        let random = |(i, (name, view)): (usize, (String, TensorView))| {
            let values = normal(i as u64, view.len());
            (name, TensorView::from_f32(view.shape.clone(), &values).unwrap())
        };
        let network = of_width(64).init(&Device::flex()).unwrap();
        snapshot(&network).into_iter().enumerate().map(random).collect()
    }

    fn tokens(tensors: BTreeMap<String, TensorView>) -> Vec<f32> {
        let device = Device::flex();
        let weights = Weights { file: "test".into(), tensors, ..Weights::default() };
        let network = DinoV2::from_weights(weights, None, &device).unwrap();
        let x = TensorData::new(normal(99, 3 * 42 * 42), [1, 3, 42, 42]);
        let out = network.forward(Tensor::from_data(x, &device));
        let all = Tensor::cat(vec![out.registers.unwrap(), out.patches], 1);
        let class = out.class.into_data().iter::<f32>().collect::<Vec<f32>>();
        [class, all.into_data().iter::<f32>().collect()].concat()
    }

    fn under(prefix: &str, tensors: BTreeMap<String, TensorView>) -> Weights {
        let named = tensors.into_iter().map(|(name, view)| (format!("{prefix}{name}"), view));
        Weights { file: "test".into(), tensors: named.collect(), ..Weights::default() }
    }

    #[test]
    fn a_teacher_does_not_make_a_checkpoint_a_dinov2() {
        for (prefix, is_one) in
            [("", true), ("dinov2_with_registers.", true), ("foundation_model.model.", false)]
        {
            assert_eq!(is_dinov2(&under(prefix, authors())), is_one, "{prefix}");
        }
    }

    #[test]
    fn what_has_no_blocks_or_places_is_refused() {
        let refused = |tensors: BTreeMap<String, TensorView>| {
            let network = DinoV2::from_weights(under("", tensors), None, &Device::flex());
            network.expect_err("it is no DINOv2").to_string()
        };
        // Blocks in chunks have names of their own.
        let chunks = authors().into_iter().map(|(name, view)| match name.strip_prefix("blocks.") {
            Some(rest) => (format!("blocks.0.{rest}"), view),
            None => (name, view),
        });
        let error = refused(chunks.collect());
        assert!(error.contains("no blocks"), "{error}");
        let mut empty = authors();
        let table = TensorView::from_f32(vec![1, 0, usize::MAX / 8], &[]).unwrap();
        empty.insert("pos_embed".into(), table);
        assert!(refused(empty).contains("not a DINOv2"));
        // Of a place without values no row is made for the class.
        let mut empty = authors();
        let table = TensorView::from_f32(vec![0, 1, usize::MAX / 8], &[]).unwrap();
        empty.insert("pos_embed".into(), table);
        let error = refused(empty);
        assert!(error.contains("has no patch"), "{error}");
        // Of layers without rows all axes but the first may have any size.
        let of_part = |part: &str| {
            let layer = TensorView::from_f32(vec![0, 1 << 40, 1 << 40], &[]).unwrap();
            (format!("blocks.0.attn.{part}.weight"), layer)
        };
        let stacked = official(under("", ["q", "k", "v"].map(of_part).into())).unwrap();
        assert_eq!(stacked.tensors["blocks.0.attn.qkv.weight"].shape, [0, 1 << 40, 1 << 40]);
    }

    #[test]
    fn absurd_sizes_are_refused_by_name() {
        let refused = |change: fn(&mut DinoConfig)| {
            let mut config = of_width(64);
            change(&mut config);
            config.init(&Device::flex()).expect_err("absurd").0
        };
        let error = refused(|config| (config.patch_size, config.img_size) = (1 << 40, 1 << 41));
        assert!(error.contains("patch_size"), "{error}");
        assert!(refused(|config| config.img_size = 1 << 40).contains("img_size"));
        assert!(refused(|config| config.registers = usize::MAX).contains("registers"));
        assert!(refused(|config| config.mlp_ratio = usize::MAX).contains("mlp_ratio"));
    }

    #[test]
    fn a_width_that_is_no_multiple_of_64_needs_its_heads() {
        let config = DinoConfig { num_heads: 3, ..of_width(96) };
        let network = config.init(&Device::flex()).unwrap();
        let weights = under("", snapshot(&network));
        let error = DinoConfig::of(&weights, None).expect_err("64 and a half").to_string();
        assert!(error.contains("width 96 is not a multiple of 64"), "{error}");
        assert!(DinoV2::inspect(weights.clone(), &Device::flex()).is_err());
        assert_eq!(DinoConfig::of(&weights, Some(3)).unwrap(), Some(config));
        assert!(DinoV2::from_weights(weights, Some(3), &Device::flex()).is_ok());
    }

    /// Rows `from..to` of an axis-0 stack.
    fn rows(view: &TensorView, from: usize, to: usize) -> TensorView {
        let width = view.len() / view.shape[0];
        let shape = [&[to - from], &view.shape[1..]].concat();
        TensorView::from_f32(shape, &view.to_f32()[from * width..to * width]).unwrap()
    }

    #[test]
    fn every_tool_s_names_give_the_same_tokens() {
        let authors = authors();
        let expected = tokens(authors.clone());

        let mut timm = BTreeMap::new();
        for (name, view) in &authors {
            let name = name.replace("register_tokens", "reg_token");
            let name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.");
            timm.insert(name, view.clone());
        }
        let table = authors["pos_embed"].to_f32();
        let class: Vec<f32> =
            authors["cls_token"].to_f32().iter().zip(&table).map(|(c, p)| c + p).collect();
        timm.insert("cls_token".into(), TensorView::from_f32(vec![1, 1, 64], &class).unwrap());
        let grid = TensorView::from_f32(vec![1, 9, 64], &table[64..]).unwrap();
        timm.insert("pos_embed".into(), grid);

        let mut transformers = BTreeMap::new();
        for (name, view) in &authors {
            let name = match name.as_str() {
                "pos_embed" => "embeddings.position_embeddings".into(),
                "cls_token" | "register_tokens" => format!("embeddings.{name}"),
                _ => name
                    .replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
                    .replace("blocks.", "encoder.layer.")
                    .replace(".attn.proj.", ".attention.o_proj.")
                    .replace(".mlp.w3.", ".mlp.down_proj.")
                    .replace(".ls1.gamma", ".layer_scale1.lambda1")
                    .replace(".ls2.gamma", ".layer_scale2.lambda1"),
            };
            let name = if name.starts_with("norm.") { format!("layer{name}") } else { name };
            let part = |theirs: &str, whole: &str, i: usize, n: usize| {
                let third = view.shape[0] / n;
                (name.replace(whole, theirs), rows(view, i * third, (i + 1) * third))
            };
            if name.contains(".attn.qkv.") {
                let parts = [".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."];
                transformers.extend((0..3).map(|i| part(parts[i], ".attn.qkv.", i, 3)));
            } else if name.contains(".mlp.w12.") {
                let parts = [".mlp.gate_proj.", ".mlp.up_proj."];
                transformers.extend((0..2).map(|i| part(parts[i], ".mlp.w12.", i, 2)));
            } else {
                transformers.insert(format!("dinov2.{name}"), view.clone());
            }
        }
        for (tool, tensors) in [("timm", timm), ("transformers", transformers)] {
            let found = tokens(tensors);
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{tool}: {worst}");
        }
    }
}
