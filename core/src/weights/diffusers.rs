//! Autoencoders under diffusers' names (`AutoencoderKL`), in CompVis' names, which are this
//! library's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::WeightsError;
use super::prefixes::unwrapped;
use super::store::{TensorView, Weights};

/// Beginnings of names that only diffusers gives the tensors of an autoencoder.
const BEGINNINGS: [&str; 4] =
    ["encoder.down_blocks.", "encoder.mid_block.", "decoder.up_blocks.", "decoder.mid_block."];
/// Ends of the names of an attention's projections; diffusers stores them as linear layers.
const PROJECTIONS: [&str; 4] = [".q.weight", ".k.weight", ".v.weight", ".proj_out.weight"];
/// What a configuration says of the latents, kept in the metadata under the same keys.
const LATENTS: [&str; 4] = ["scaling_factor", "shift_factor", "latents_mean", "latents_std"];
/// The scaling factor where a configuration does not name one, as in those older than the key.
const SCALING_FACTOR: &str = "0.18215";
/// Most channels of a latent; no more memory is claimed for a layer that a file lacks.
const MAX_CHANNELS: usize = 1024;

/// Whether the tensors have the names that diffusers gives an autoencoder.
pub(super) fn is_diffusers(weights: &Weights) -> bool {
    weights.tensors.keys().any(|name| BEGINNINGS.iter().any(|start| name.starts_with(start)))
}

/// Whether the text of a `config.json` describes an autoencoder; what cannot be read might.
#[cfg(feature = "files")]
pub(super) fn describes_autoencoder(text: &str) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(text) else { return true };
    match config.get("_class_name").and_then(Value::as_str) {
        Some(class) => class.contains("Autoencoder") || class.contains("VQ"),
        None => config.get("block_out_channels").is_some(),
    }
}

/// An autoencoder under diffusers' names in CompVis' names, which networks here have; other
/// weights as they are, but without prefixes of wrappers (`module.`, `_orig_mod.`; `first_stage_model.` and
/// `vae.` of an autoencoder). `config` is the text of its `config.json`.
///
/// Tensors are renamed and get axes of length 1; none is read. A half without its 1×1 convolution
/// (`use_quant_conv: false`) gets the identity. Of the configuration, the metadata has the text as
/// `config`, and `scaling_factor`, `shift_factor`, `latents_mean` and `latents_std` as JSON under
/// these keys where they are not null; a missing scaling factor is diffusers' default, 0.18215.
///
/// # Errors
///
/// [`WeightsError::Format`] where two tensors are one of CompVis', or the configuration is not JSON.
pub fn from_diffusers(weights: Weights, config: Option<&str>) -> Result<Weights, WeightsError> {
    let weights = unwrapped(weights)?;
    if !is_diffusers(&weights) {
        return Ok(weights);
    }
    let Weights { file, tensors: theirs, mut metadata, unreadable } = weights;
    let problem = |problem: String| WeightsError::Format { file: file.clone(), problem };
    let levels = levels(&theirs);
    let mut tensors = BTreeMap::new();
    for (name, view) in theirs {
        let name = compvis_name(&name, levels).unwrap_or(name);
        let is_projection = PROJECTIONS.iter().any(|end| name.ends_with(end));
        let view = if is_projection { view.with_rank(4) } else { view };
        if tensors.insert(name.clone(), view).is_some() {
            return Err(problem(format!("it holds tensor {name:?} under two names")));
        }
    }
    let mut quantizes = [None, None];
    if let Some(text) = config {
        let unreadable = |e| problem(format!("its configuration is not readable JSON: {e}"));
        let config: Value = serde_json::from_str(text).map_err(unreadable)?;
        quantizes = ["use_quant_conv", "use_post_quant_conv"]
            .map(|key| Some(config.get(key).and_then(Value::as_bool).unwrap_or(true)));
        describe_latents(&config, &mut metadata);
        metadata.entry("config".into()).or_insert_with(|| text.into());
    }
    if quantizes[0] != Some(true) {
        add_identity(&mut tensors, "encoder.conv_out.weight", 0, "quant_conv");
    }
    if quantizes[1] != Some(true) {
        add_identity(&mut tensors, "decoder.conv_in.weight", 1, "post_quant_conv");
    }
    Ok(Weights { file, tensors, metadata, unreadable })
}

/// Keeps what a configuration says of the latents.
fn describe_latents(config: &Value, metadata: &mut BTreeMap<String, String>) {
    for key in LATENTS {
        if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
            metadata.insert(key.into(), value.to_string());
        }
    }
    metadata.entry("scaling_factor".into()).or_insert_with(|| SCALING_FACTOR.into());
}

impl Weights {
    /// Puts the text of a configuration into the metadata; of an autoencoder in diffusers' words with what it
    /// says of the latents, as [`from_diffusers`] does.
    pub fn set_config(&mut self, text: &str) {
        if let Ok(config) = serde_json::from_str::<Value>(text)
            && config.get("block_out_channels").is_some()
        {
            describe_latents(&config, &mut self.metadata);
        }
        self.metadata.insert("config".into(), text.into());
    }
}

/// Levels of the decoder; diffusers counts them from the coarsest on, CompVis from the finest.
fn levels(tensors: &BTreeMap<String, TensorView>) -> usize {
    let number = |name: &String| -> Option<u8> {
        name.strip_prefix("decoder.up_blocks.")?.split('.').next()?.parse().ok()
    };
    tensors.keys().filter_map(number).max().map_or(0, |last| usize::from(last) + 1)
}

/// A tensor's name in CompVis' words; `None` where it is the same or not known.
fn compvis_name(name: &str, levels: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let (half, rest) = parts.split_first()?;
    let number = |text: &str| text.parse::<u8>().ok().map(usize::from);
    match (*half, rest) {
        ("encoder" | "decoder", ["conv_norm_out", leaf]) => Some(format!("{half}.norm_out.{leaf}")),
        ("encoder" | "decoder", ["mid_block", "resnets", i, layer @ ..]) => {
            Some(format!("{half}.mid.block_{}.{}", number(i)? + 1, of_resnet(layer)))
        }
        ("encoder" | "decoder", ["mid_block", "attentions", "0", layer @ ..]) => {
            Some(format!("{half}.mid.attn_1.{}", of_attention(layer)))
        }
        ("encoder", ["down_blocks", i, block @ ..]) => {
            Some(format!("encoder.down.{}.{}", number(i)?, of_level(block)?))
        }
        ("decoder", ["up_blocks", i, block @ ..]) => {
            let level = levels.checked_sub(number(i)? + 1)?;
            Some(format!("decoder.up.{level}.{}", of_level(block)?))
        }
        _ => None,
    }
}

/// A name below a level.
fn of_level(block: &[&str]) -> Option<String> {
    match block {
        ["resnets", i, layer @ ..] => Some(format!("block.{i}.{}", of_resnet(layer))),
        ["attentions", i, layer @ ..] => Some(format!("attn.{i}.{}", of_attention(layer))),
        ["downsamplers", "0", "conv", leaf] => Some(format!("downsample.conv.{leaf}")),
        ["upsamplers", "0", "conv", leaf] => Some(format!("upsample.conv.{leaf}")),
        _ => None,
    }
}

/// A name below a residual block.
fn of_resnet(layer: &[&str]) -> String {
    match layer {
        ["conv_shortcut", leaf] => format!("nin_shortcut.{leaf}"),
        other => other.join("."),
    }
}

/// A name below an attention, of today's words or the older ones.
fn of_attention(layer: &[&str]) -> String {
    match layer {
        ["group_norm", leaf] => format!("norm.{leaf}"),
        ["to_q" | "query", leaf] => format!("q.{leaf}"),
        ["to_k" | "key", leaf] => format!("k.{leaf}"),
        ["to_v" | "value", leaf] => format!("v.{leaf}"),
        ["to_out", "0", leaf] | ["proj_attn", leaf] => format!("proj_out.{leaf}"),
        other => other.join("."),
    }
}

/// Adds an identity 1×1 convolution if a half has none: of as many channels as the
/// convolution `beside` it has on `axis`, and of its type.
fn add_identity(tensors: &mut BTreeMap<String, TensorView>, beside: &str, axis: usize, name: &str) {
    let Some(beside) = tensors.get(beside) else { return };
    let (dtype, channels) = (beside.dtype, beside.shape.get(axis).copied().unwrap_or(0));
    if channels > MAX_CHANNELS || tensors.contains_key(&format!("{name}.weight")) {
        return;
    }
    let on_diagonal = |i: usize| if i / channels == i % channels { 1.0 } else { 0.0 };
    let matrix: Vec<f32> = (0..channels * channels).map(on_diagonal).collect();
    let parts = [
        ("weight", vec![channels, channels, 1, 1], matrix),
        ("bias", vec![channels], vec![0.0; channels]),
    ];
    for (part, shape, values) in parts {
        let view = TensorView::from_f32(shape, &values).ok().and_then(|v| v.converted(dtype));
        if let Some(view) = view {
            tensors.insert(format!("{name}.{part}"), view);
        }
    }
}
