//! The files of a RAE as its authors publish them, of the networks in [`configs`](crate::configs).

use tintype::burn::tensor::Device;
use tintype::model::rae::RaeDecoderConfig;

use crate::configs;
use crate::pickles::{archive, dict, pickle, section, tensor};

/// Numbers in the one storage of a file, at least as many as its largest tensor has.
const NUMBERS: usize = 1 << 16;

/// A file of one value, over numbers between `low` and `low + 0.2`.
fn saved(value: &[u8], low: f32) -> Vec<u8> {
    let numbers: Vec<f32> = (0..NUMBERS).map(|i| (i * 37 % 101) as f32 / 500.0 + low).collect();
    archive(&pickle(value), &numbers)
}

/// The encoder, as DINOv2's authors save it: `dinov2_vitb14_reg4_pretrain.pth`.
pub fn encoder_file() -> Vec<u8> {
    saved(&section(&configs::dinov2().init(&Device::flex()).expect("valid")), -0.1)
}

/// The decoder's `model.pt`.
pub fn decoder_file() -> Vec<u8> {
    saved(&section(&configs::rae().init(&Device::flex()).expect("valid")), -0.1)
}

/// The decoder's `config.json`, transformers' ViT-MAE.
pub fn decoder_json() -> String {
    let RaeDecoderConfig {
        decoder_hidden_size,
        decoder_num_hidden_layers,
        decoder_num_attention_heads,
        decoder_intermediate_size,
        ..
    } = configs::rae();
    format!(
        r#"{{
  "architectures": ["ViTMAEForPreTraining"], "model_type": "vit_mae", "hidden_act": "gelu",
  "decoder_hidden_size": {decoder_hidden_size}, "decoder_num_hidden_layers": {decoder_num_hidden_layers},
  "decoder_num_attention_heads": {decoder_num_attention_heads},
  "decoder_intermediate_size": {decoder_intermediate_size}, "hidden_size": 768, "image_size": 224,
  "layer_norm_eps": 1e-12, "patch_size": "SHOULD BE RELOADED"
}}"#
    )
}

/// `stat.pt` of latents `[C, h, w]`: means and variances.
pub fn statistics_file([c, h, w]: [u32; 3]) -> Vec<u8> {
    let of_shape = || tensor("FloatStorage", &[c, h, w], &[h * w, w, 1]);
    saved(&dict(&[("mean", of_shape()), ("var", of_shape())]), 0.05)
}
