//! Which network a checkpoint holds, from its metadata or from names and shapes.

use super::WeightsError;
use super::store::Weights;
use crate::model::hdit::HDiTConfig;
use crate::model::hidit::HiDiTConfig;
use crate::model::lightningdit::LightningDiTConfig;
use crate::model::sit::SiTConfig;
use crate::model::vavae::VaeConfig;

/// A generating network and its configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// Latents and pixels.
    HiDiT(HiDiTConfig),
    /// Latents.
    SiT(SiTConfig),
    /// Latents, on the opposite clock.
    LightningDiT(LightningDiTConfig),
    /// Pixels, under the Karras preconditioner.
    HDiT(HDiTConfig),
}

impl Architecture {
    /// The name of the network.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HiDiT(_) => "Hi-DiT",
            Self::SiT(_) => "SiT",
            Self::LightningDiT(_) => "LightningDiT",
            Self::HDiT(_) => "HDiT",
        }
    }

    /// How many classes it knows.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::HiDiT(c) => c.sit.num_classes,
            Self::SiT(c) => c.num_classes,
            Self::LightningDiT(c) => c.num_classes,
            Self::HDiT(c) => c.num_classes,
        }
    }
}

fn problem(weights: &Weights, problem: impl Into<String>) -> WeightsError {
    WeightsError::Format { file: weights.file.clone(), problem: problem.into() }
}

fn needs_configuration(weights: &Weights, reason: impl Into<String>) -> WeightsError {
    WeightsError::NeedsConfiguration { file: weights.file.clone(), reason: reason.into() }
}

/// The architecture of a checkpoint. The metadata key `config` decides where it is there (with
/// `model` naming the kind); otherwise names and shapes do.
pub fn detect(weights: &Weights) -> Result<Architecture, WeightsError> {
    let has = |name: &str| weights.tensors.contains_key(name);
    let config = weights.metadata.get("config");
    let parse = |what: &str, e: serde_json::Error| {
        problem(weights, format!("its configuration is not that of a {what}: {e}"))
    };
    if has("patch_in.proj.weight") {
        let text = config
            .ok_or_else(|| needs_configuration(weights, "an HDiT needs its JSON configuration"))?;
        return Ok(Architecture::HDiT(HDiTConfig::from_json(text)?));
    }
    if has("pixel_embedder.proj.weight") {
        return match config {
            Some(text) => {
                let config: HiDiTConfig =
                    serde_json::from_str(text).map_err(|e| parse("Hi-DiT", e))?;
                config.validate()?;
                Ok(Architecture::HiDiT(config))
            }
            None => Ok(Architecture::HiDiT(hidit_config(weights)?)),
        };
    }
    if has("blocks.0.mlp.w12.weight") || has("final_layer.norm_final.weight") {
        return match config {
            Some(text) if !text.trim_start().starts_with('{') => {
                Ok(Architecture::LightningDiT(LightningDiTConfig::from_yaml(text)?))
            }
            Some(text) => {
                let config: LightningDiTConfig =
                    serde_json::from_str(text).map_err(|e| parse("LightningDiT", e))?;
                config.validate()?;
                Ok(Architecture::LightningDiT(config))
            }
            None => Ok(Architecture::LightningDiT(lightningdit_config(weights)?)),
        };
    }
    if has("x_embedder.proj.weight") && has("y_embedder.embedding_table.weight") {
        return match config {
            Some(text) => {
                let config: SiTConfig = serde_json::from_str(text).map_err(|e| parse("SiT", e))?;
                config.validate()?;
                Ok(Architecture::SiT(config))
            }
            None => Ok(Architecture::SiT(sit_config(weights)?)),
        };
    }
    if weights.tensors.keys().any(|name| name.starts_with("decoder.")) {
        return Err(WeightsError::Autoencoder { file: weights.file.clone() });
    }
    Err(problem(
        weights,
        "its tensors are those of no network known here (Hi-DiT, SiT, LightningDiT, HDiT)",
    ))
}

/// Numbers that all DiT-like checkpoints tell by their shapes.
struct Shapes {
    hidden: usize,
    channels: usize,
    patch: usize,
    grid: usize,
    depth: usize,
    classes: usize,
    heads: usize,
}

fn shape<'a>(weights: &'a Weights, name: &str, rank: usize) -> Result<&'a [usize], WeightsError> {
    match weights.tensors.get(name) {
        Some(view) if view.shape.len() == rank => Ok(&view.shape),
        Some(view) => Err(problem(weights, format!("tensor {name:?} has shape {:?}", view.shape))),
        None => Err(problem(weights, format!("tensor {name:?} is missing"))),
    }
}

fn dit_shapes(weights: &Weights) -> Result<Shapes, WeightsError> {
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
fn count(weights: &Weights, prefix: &str) -> usize {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    weights.tensors.keys().filter_map(number).max().map_or(0, |last: usize| last + 1)
}

/// The configuration of a SiT from its shapes.
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

fn hidit_config(weights: &Weights) -> Result<HiDiTConfig, WeightsError> {
    let sit = sit_config(weights)?;
    let pixels = shape(weights, "pixel_embedder.proj.weight", 2)?[1];
    let pixel_patch = (pixels / 3).isqrt();
    let image = pixel_patch * (sit.input_size / sit.patch_size);
    let config = HiDiTConfig { sit, image, pixel_patch, tau: 0.3, t_min: 0.05 };
    config.validate()?;
    Ok(config)
}

fn lightningdit_config(weights: &Weights) -> Result<LightningDiTConfig, WeightsError> {
    let s = dit_shapes(weights)?;
    let has = |name: &str| weights.tensors.contains_key(name);
    let head = shape(weights, "final_layer.linear.weight", 2)?[0];
    let modulation = shape(weights, "blocks.0.adaLN_modulation.1.weight", 2)?[0];
    let config = LightningDiTConfig {
        input_size: s.grid * s.patch,
        patch_size: s.patch,
        in_channels: s.channels,
        hidden_size: s.hidden,
        depth: s.depth,
        num_heads: s.heads,
        mlp_ratio: 4.0,
        num_classes: s.classes,
        class_dropout_prob: 0.1,
        use_qknorm: has("blocks.0.attn.q_norm.weight"),
        use_swiglu: has("blocks.0.mlp.w12.weight"),
        use_rope: has("feat_rope.freqs_cos"),
        use_rmsnorm: has("final_layer.norm_final.weight"),
        wo_shift: modulation == 4 * s.hidden,
        learn_sigma: head == 2 * s.patch * s.patch * s.channels,
    };
    config.validate()?;
    Ok(config)
}

/// The configuration of an autoencoder, or of one half of it.
pub fn vae_config(weights: &Weights) -> Result<VaeConfig, WeightsError> {
    if let Some(text) = weights.metadata.get("config") {
        let config: VaeConfig = serde_json::from_str(text)
            .map_err(|e| problem(weights, format!("its configuration is not a VAE's: {e}")))?;
        config.validate()?;
        return Ok(config);
    }
    let decoder = weights.tensors.contains_key("decoder.conv_in.weight");
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
    let attends =
        |l: &usize| weights.tensors.contains_key(&format!("{side}{l}.attn.0.norm.weight"));
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
