//! The halves of a RAE in the files that its authors save: decoders alone, DINOv2 alone, and checkpoints of training
//! that hold both.

use crate::model::dinov2::is_dinov2;
use crate::weights::Weights;

/// A tensor of every decoder.
const CLASS_TOKEN: &str = "trainable_cls_token";
/// What training puts before the names of a decoder's tensors.
const DECODER: &str = "decoder.";
/// The same of the encoder, transformers' DINOv2.
const ENCODER: &str = "encoder.encoder.";

/// Whether a decoder is there, alone or in a checkpoint of training.
pub fn is_decoder(weights: &Weights) -> bool {
    weights.contains(CLASS_TOKEN) || is_whole(weights)
}

/// Whether an encoder that is a DINOv2 is there, alone or in a checkpoint of training.
pub fn is_encoder(weights: &Weights) -> bool {
    is_dinov2(&encoder_part(weights.clone()))
}

fn is_whole(weights: &Weights) -> bool {
    weights.contains(&format!("{DECODER}{CLASS_TOKEN}"))
}

/// The decoder under its own names; a file of a decoder alone as it is.
pub fn decoder_part(weights: Weights) -> Weights {
    match is_whole(&weights) {
        true => weights.below(DECODER),
        false => weights,
    }
}

/// The encoder under the names of a DINOv2; a file of it alone as it is. Without tensors where there is none.
pub fn encoder_part(weights: Weights) -> Weights {
    match is_decoder(&weights) || weights.tensors.keys().any(|name| name.starts_with(ENCODER)) {
        true => weights.below(ENCODER),
        false => weights,
    }
}

/// With the names of a checkpoint of training, so that halves of two files can be put together; other files than a
/// decoder's and a DINOv2's as they are. A configuration in the metadata stays if it is the decoder's.
pub fn as_whole(mut weights: Weights) -> Weights {
    if weights.contains(CLASS_TOKEN) {
        return weights.above(DECODER);
    }
    if is_decoder(&weights) || !is_dinov2(&weights) {
        return weights;
    }
    weights.metadata.remove("config");
    weights.above(ENCODER)
}
