//! RAE, Representation Autoencoders (Zheng et al., arXiv 2510.11690): the latents are the tokens of a frozen
//! [DINOv2](super::dinov2) with registers, which a ViT decodes.
//!
//! Encoder and decoder take images in 0…1, and latents as the encoder leaves them: their statistics, of each position,
//! are [`LatentStats`](crate::generate::LatentStats). The two halves are files of their own.

mod checkpoint;
mod config;
mod decoder;
mod encoder;

pub use checkpoint::{as_whole, decoder_part, encoder_part, is_decoder, is_encoder};
pub use config::RaeDecoderConfig;
#[cfg(feature = "files")]
pub(crate) use config::describes_decoder;
pub use decoder::RaeDecoder;
pub use encoder::{RaeEncoder, noised};
