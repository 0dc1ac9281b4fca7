//! The shape of a RAE's decoder.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::checkpoint::decoder_part;
use super::decoder::RaeDecoder;
use crate::model::tensors::{count, metadata, parse, problem, shape};
use crate::model::{InvalidConfig, MAX_DEPTH, MAX_SIDE, MAX_WIDTH, bounded, ensure};
use crate::weights::{Weights, WeightsError};

/// Added to the variance of a norm.
const EPS: f64 = 1e-12;

/// Shape of a RAE's decoder; the names that begin with `decoder_` are those of its `config.json`, which is
/// transformers' ViT-MAE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaeDecoderConfig {
    /// Channels of the latent: the encoder's width.
    pub latent_channels: usize,
    /// Tokens of a side.
    pub grid: usize,
    /// Side of the patch that a token becomes, in pixels.
    pub patch_size: usize,
    /// Width, divisible by 4 and by the number of heads.
    pub decoder_hidden_size: usize,
    /// Number of blocks.
    pub decoder_num_hidden_layers: usize,
    /// Number of heads, of which the width is a multiple.
    pub decoder_num_attention_heads: usize,
    /// Width of the MLP.
    pub decoder_intermediate_size: usize,
    /// Added to the variance of a norm.
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
}

fn eps() -> f64 {
    EPS
}

/// What tensors do not tell, of transformers' configuration or this library's. transformers leaves out what has its
/// default.
#[derive(Deserialize)]
struct Untold {
    decoder_hidden_size: Option<usize>,
    decoder_num_hidden_layers: Option<usize>,
    decoder_intermediate_size: Option<usize>,
    #[serde(default = "transformers_heads")]
    decoder_num_attention_heads: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    hidden_act: Option<String>,
}

fn transformers_heads() -> usize {
    16
}

/// Heads of the published widths.
fn published_heads(width: usize) -> Option<usize> {
    match width {
        768 => Some(12),
        1024 | 1152 => Some(16),
        _ => None,
    }
}

impl RaeDecoderConfig {
    /// A size of the authors', "B", "L" or "XL" (the released one), for images of this side, which is a multiple
    /// of 16, and latents of DINOv2-B. `None` for other sizes.
    pub fn variant(size: &str, image_size: usize) -> Option<Self> {
        let [layers, width, inner] = match size {
            "B" => [12, 768, 3072],
            "L" => [24, 1024, 4096],
            "XL" => [28, 1152, 4096],
            _ => return None,
        };
        let grid = Some(image_size / 16).filter(|grid| *grid > 0 && grid * 16 == image_size)?;
        Some(Self {
            latent_channels: 768,
            grid,
            patch_size: 16,
            decoder_hidden_size: width,
            decoder_num_hidden_layers: layers,
            decoder_num_attention_heads: published_heads(width)?,
            decoder_intermediate_size: inner,
            layer_norm_eps: EPS,
        })
    }

    /// The configuration of a decoder in a checkpoint, which its shapes tell but for the number of heads and the eps.
    /// These are in the metadata (key `config`: transformers' `config.json`, whose `patch_size` is a text that means
    /// nothing, or this library's; one of something else is not read), or those of the published widths.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`] where a tensor is missing, shapes do not make a decoder or a configuration is of
    ///   another one, and where nothing tells the number of heads
    /// * [`WeightsError::Config`] where they describe none
    pub fn of(weights: &Weights) -> Result<Self, WeightsError> {
        let weights = &decoder_part(weights.clone());
        let embed = shape(weights, "decoder_embed.weight", 2)?;
        let (width, latent_channels) = (embed[0], embed[1]);
        let tokens = shape(weights, "decoder_pos_embed", 3)?[1].saturating_sub(1);
        let pixels = shape(weights, "decoder_pred.weight", 2)?[0] / 3;
        let inner = shape(weights, "decoder_layers.0.intermediate.dense.weight", 2)?[0];
        let layers = count(weights, "decoder_layers.");
        let (grid, patch_size) = (tokens.isqrt(), pixels.isqrt());
        if grid * grid != tokens || patch_size * patch_size != pixels {
            let reason = format!("{tokens} positions or patches of {pixels} pixels are no square");
            return Err(problem(weights, reason));
        }
        let untold = untold(weights, [width, layers, inner])?;
        let config = Self {
            latent_channels,
            grid,
            patch_size,
            decoder_hidden_size: width,
            decoder_num_hidden_layers: layers,
            decoder_num_attention_heads: untold.decoder_num_attention_heads,
            decoder_intermediate_size: inner,
            layer_norm_eps: untold.layer_norm_eps,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let (width, heads) = (self.decoder_hidden_size, self.decoder_num_attention_heads);
        let layers = self.decoder_num_hidden_layers;
        for (name, value, most) in [
            ("latent_channels", self.latent_channels, MAX_WIDTH),
            ("grid", self.grid, MAX_SIDE),
            ("patch_size", self.patch_size, MAX_SIDE),
            ("decoder_hidden_size", width, MAX_WIDTH),
            ("decoder_num_hidden_layers", layers, MAX_DEPTH),
            ("decoder_intermediate_size", self.decoder_intermediate_size, MAX_WIDTH),
        ] {
            ensure!((1..=most).contains(&value), "{name} {value} is not in 1…{most}");
        }
        bounded([("grid · patch_size", self.grid * self.patch_size, MAX_SIDE)])?;
        ensure!(
            heads > 0 && width.is_multiple_of(heads),
            "decoder_hidden_size {width} does not split into {heads} heads"
        );
        ensure!(width.is_multiple_of(4), "decoder_hidden_size {width} is not a multiple of 4");
        ensure!(
            self.layer_norm_eps > 0.0 && self.layer_norm_eps.is_finite(),
            "layer_norm_eps must be positive"
        );
        Ok(())
    }

    /// The untrained decoder.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Result<RaeDecoder, InvalidConfig> {
        self.validate()?;
        Ok(RaeDecoder::new(self, device))
    }

    /// Width and height of its images.
    pub fn image_size(&self) -> usize {
        self.grid * self.patch_size
    }

    /// Values of its largest activation for one image: inside an MLP, or the scores of an attention without a kernel.
    pub fn largest_activation(&self) -> usize {
        let tokens = 1 + self.grid * self.grid;
        let inner = self.decoder_intermediate_size.max(3 * self.patch_size * self.patch_size);
        let scores = self.decoder_num_attention_heads.saturating_mul(tokens);
        tokens.saturating_mul(inner.max(scores))
    }

    /// Multiply-adds of one image.
    pub fn macs(&self) -> f64 {
        let [c, d, inner, pixels] = [
            self.latent_channels,
            self.decoder_hidden_size,
            self.decoder_intermediate_size,
            3 * self.patch_size * self.patch_size,
        ]
        .map(|n| n as f64);
        let n = (self.grid * self.grid) as f64;
        let of_token = 4.0 * d * d + 2.0 * d * inner + 2.0 * (n + 1.0) * d;
        let blocks = self.decoder_num_hidden_layers as f64 * (n + 1.0) * of_token;
        n * c * d + blocks + (n + 1.0) * d * pixels
    }
}

/// What the tensors of a decoder of this width, of so many blocks and with MLPs so wide do not tell.
fn untold(weights: &Weights, [width, layers, inner]: [usize; 3]) -> Result<Untold, WeightsError> {
    // A file may carry the configuration of something else, whose heads and eps are not the decoder's.
    let Some(text) = metadata(weights).filter(|text| describes_decoder(text)) else {
        let Some(heads) = published_heads(width) else {
            let reason = format!(
                "the number of heads of width {width} cannot be told from the weights; put the decoder's config.json \
                 beside the file"
            );
            return Err(problem(weights, reason));
        };
        return Ok(Untold {
            decoder_hidden_size: None,
            decoder_num_hidden_layers: None,
            decoder_intermediate_size: None,
            decoder_num_attention_heads: heads,
            layer_norm_eps: EPS,
            hidden_act: None,
        });
    };
    let untold: Untold = parse(weights, "RAE's decoder", text)?;
    for (name, told, found) in [
        ("decoder_hidden_size", untold.decoder_hidden_size, width),
        ("decoder_num_hidden_layers", untold.decoder_num_hidden_layers, layers),
        ("decoder_intermediate_size", untold.decoder_intermediate_size, inner),
    ] {
        if let Some(told) = told.filter(|told| *told != found) {
            let reason =
                format!("its configuration is of another decoder: {name} is {told}, not {found}");
            return Err(problem(weights, reason));
        }
    }
    if let Some(activation) = untold.hidden_act.as_deref().filter(|name| *name != "gelu") {
        let reason = format!("the activation {activation:?} is not supported, only \"gelu\"");
        return Err(problem(weights, reason));
    }
    Ok(untold)
}

/// Whether the text of a `config.json` describes a decoder; what cannot be read might.
pub(crate) fn describes_decoder(text: &str) -> bool {
    let Ok(config) = serde_json::from_str::<serde_json::Value>(text) else { return true };
    let has = |key: &str| config.get(key).is_some();
    has("decoder_hidden_size")
        || has("decoder_num_attention_heads")
        || config["model_type"] == "vit_mae"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_a_largest_side() {
        let config = RaeDecoderConfig::variant("B", 256).expect("a variant");
        assert_eq!(config.validate(), Ok(()));
        let error = RaeDecoderConfig { grid: 4096, ..config }.validate().expect_err("absurd").0;
        assert_eq!(error, "grid · patch_size 65536 is above 16384");
    }
}
