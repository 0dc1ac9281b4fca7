//! The shape of an autoencoder from diffusers' `config.json`.

use serde::Deserialize;

use super::VaeConfig;
use crate::model::{InvalidConfig, ensure};

/// The keys that shape the network; a missing one has diffusers' default.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    act_fn: Option<String>,
    block_out_channels: Option<Vec<usize>>,
    down_block_types: Option<Vec<String>>,
    in_channels: Option<usize>,
    latent_channels: Option<usize>,
    layers_per_block: Option<usize>,
    mid_block_add_attention: Option<bool>,
    norm_num_groups: Option<usize>,
    out_channels: Option<usize>,
    up_block_types: Option<Vec<String>>,
}

/// Whether the text of a configuration is diffusers'.
pub(in crate::model) fn is_diffusers(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|config| {
        ["_class_name", "block_out_channels"].iter().any(|key| config.get(*key).is_some())
    })
}

impl VaeConfig {
    /// The configuration of diffusers' `AutoencoderKL` from the text of its `config.json`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the text is no such file, or is of another class, activation or block
    /// than this network has, or its numbers describe no network.
    pub fn from_diffusers(text: &str) -> Result<Self, InvalidConfig> {
        let invalid = |e| InvalidConfig(format!("JSON: {e}"));
        let config: Config = serde_json::from_str(text).map_err(invalid)?;
        if let Some(class) = config.class_name.filter(|class| class != "AutoencoderKL") {
            return Err(InvalidConfig(format!(
                "autoencoders of the class {class} are not supported, only AutoencoderKL"
            )));
        }
        if let Some(activation) = config.act_fn.filter(|name| name != "silu") {
            return Err(InvalidConfig(format!(
                "the activation {activation:?} is not supported, only \"silu\""
            )));
        }
        ensure!(
            config.mid_block_add_attention.unwrap_or(true),
            "a middle block without attention is not supported"
        );
        let widths = config.block_out_channels.unwrap_or_else(|| vec![64]);
        let (levels, ch) = (widths.len(), widths.first().copied().unwrap_or(0));
        ensure!((1..16).contains(&levels), "block_out_channels has no sane length");
        ensure!(
            ch > 0 && widths.iter().all(|width| width.is_multiple_of(ch)),
            "the widths {widths:?} of the levels are not multiples of the first"
        );
        let down = attends(config.down_block_types.as_deref(), levels)?;
        // In the order of execution: the coarsest first.
        let mut up = attends(config.up_block_types.as_deref(), levels)?;
        up.reverse();
        ensure!(down == up, "encoder and decoder have attention on different levels");
        let resolution = 256;
        let latent = config.latent_channels.unwrap_or(4);
        let config = Self {
            ch,
            ch_mult: widths.iter().map(|width| width / ch).collect(),
            num_res_blocks: config.layers_per_block.unwrap_or(1),
            z_channels: latent,
            embed_dim: Some(latent),
            in_channels: config.in_channels.unwrap_or(3),
            out_ch: config.out_channels.unwrap_or(3),
            resolution,
            attn_resolutions: (0..levels)
                .filter(|&level| down[level])
                .map(|level| resolution >> level)
                .collect(),
            num_groups: config.norm_num_groups.unwrap_or(32),
        };
        config.validate()?;
        Ok(config)
    }
}

/// Which levels have attention, by the types of their blocks.
fn attends(types: Option<&[String]>, levels: usize) -> Result<Vec<bool>, InvalidConfig> {
    let Some(types) = types else { return Ok(vec![false; levels]) };
    ensure!(types.len() == levels, "{} types of blocks for {levels} levels", types.len());
    let attends = |name: &String| match name.as_str() {
        "DownEncoderBlock2D" | "UpDecoderBlock2D" => Ok(false),
        "AttnDownEncoderBlock2D" | "AttnUpDecoderBlock2D" => Ok(true),
        other => Err(InvalidConfig(format!("blocks of the type {other} are not supported"))),
    };
    types.iter().map(attends).collect()
}
