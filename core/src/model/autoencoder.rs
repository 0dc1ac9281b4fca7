//! The autoencoder that a network's latents are of, whatever kind it is.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::InvalidConfig;
use super::detect::vae_config;
use super::dinov2::is_dinov2;
use super::rae::{self, RaeDecoder, RaeDecoderConfig};
use super::tensors::problem;
use super::vavae::{VaeConfig, VaeDecoder};
use crate::weights::{Weights, WeightsError};

/// An autoencoder by its configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Autoencoder {
    /// A VA-VAE, or Stable Diffusion's.
    Vae(VaeConfig),
    /// A RAE, whose encoder is a frozen DINOv2 and not described here.
    Rae(RaeDecoderConfig),
}

/// Its decoder.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // a program has one
pub enum Decoder {
    /// Of a VA-VAE.
    Vae(VaeDecoder),
    /// Of a RAE.
    Rae(RaeDecoder),
}

impl Autoencoder {
    /// The name of its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vae(_) => "VA-VAE",
            Self::Rae(_) => "RAE",
        }
    }

    /// The configuration as JSON.
    pub fn config(&self) -> Value {
        match self {
            Self::Vae(config) => json!(config),
            Self::Rae(config) => json!(config),
        }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Vae(config) => config.latent_channels(),
            Self::Rae(config) => config.latent_channels,
        }
    }

    /// Height and width of its latents, where it decodes those of one size alone.
    pub fn grid(&self) -> Option<[usize; 2]> {
        match self {
            Self::Vae(_) => None,
            Self::Rae(config) => Some([config.grid; 2]),
        }
    }

    /// Pixels of the image for each latent pixel of a side: 16 for a RAE.
    pub fn downsampling(&self) -> usize {
        match self {
            Self::Vae(config) => config.downsampling(),
            Self::Rae(config) => config.patch_size,
        }
    }

    /// Values of the decoder's largest activation for one image of latents `[C, h, w]`.
    pub fn largest_activation(&self, latents: [usize; 2]) -> usize {
        match self {
            Self::Vae(config) => config.largest_activation(latents),
            Self::Rae(config) => config.largest_activation(),
        }
    }

    /// The untrained decoder.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the configuration does not describe one.
    pub fn init_decoder(&self, device: &Device) -> Result<Decoder, InvalidConfig> {
        match self {
            Self::Vae(config) => config.init_decoder(device).map(Decoder::Vae),
            Self::Rae(config) => config.init(device).map(Decoder::Rae),
        }
    }

    /// The tensors of the decoder under its own names, and what else a file holds that is not the encoder's.
    pub fn decoder_part(&self, weights: Weights) -> Weights {
        match self {
            Self::Vae(_) => weights
                .filtered(|name| !name.starts_with("encoder.") && !name.starts_with("quant_conv.")),
            Self::Rae(_) => rae::decoder_part(weights),
        }
    }
}

impl Decoder {
    /// The image, about −1…1 (neither squashed nor clamped).
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Vae(decoder) => decoder.decode(z),
            Self::Rae(decoder) => decoder.forward(z) * 2.0 - 1.0,
        }
    }
}

/// The autoencoder in a checkpoint, or half of one: a RAE by its decoder, else a VA-VAE ([`vae_config`]).
///
/// # Errors
///
/// * As [`vae_config`].
/// * Of a RAE [`WeightsError::Format`]: the file is its encoder alone, its tensors do not make a decoder, or nothing tells
///   the number of heads.
/// * Of a RAE [`WeightsError::Config`]: its numbers describe no decoder.
pub fn autoencoder_config(weights: &Weights) -> Result<Autoencoder, WeightsError> {
    if rae::is_decoder(weights) {
        return RaeDecoderConfig::of(weights).map(Autoencoder::Rae);
    }
    if is_dinov2(weights) {
        let reason = "it is a DINOv2, which a RAE encodes with; its decoder is a file of its own";
        return Err(problem(weights, reason));
    }
    vae_config(weights).map(Autoencoder::Vae)
}
