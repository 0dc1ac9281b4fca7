//! Configurations of networks, in YAML and JSON: as files of their own, and as metadata of a checkpoint.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype::generate::LatentStats;
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hdit::HDiTConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{TensorView, Weights, from_diffusers, is_autoencoder_config};
use tintype_fuzz::checkpoint;

/// Tensors by which an HDiT, a LightningDiT, a DiT, and autoencoders are recognised.
const TENSORS: [&[&str]; 5] = [
    &["patch_in.proj.weight", "class_emb.weight"],
    &["blocks.0.mlp.w12.weight"],
    &["x_embedder.proj.weight", "y_embedder.embedding_table.weight"],
    &["decoder.conv_in.weight", "encoder.conv_out.weight"],
    &["decoder.mid_block.resnets.0.conv1.weight", "decoder.conv_in.weight"],
];

/// A checkpoint of such tensors.
fn named(names: &[&str]) -> Weights {
    let view = TensorView::from_f32(vec![3, 2], &[0.5; 6]).expect("six values");
    let tensors = names.iter().map(|name| (name.to_string(), view.clone())).collect();
    Weights { file: "x.safetensors".into(), tensors, ..Weights::default() }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = LightningDiTConfig::from_yaml(text) {
        assert_eq!(config.validate(), Ok(()));
    }
    if let Ok(config) = DitDhConfig::from_yaml(text) {
        assert_eq!(config.validate(), Ok(()));
    }
    if let Ok(config) = HDiTConfig::from_json(text) {
        assert_eq!(config.validate(), Ok(()));
    }
    if let Ok(config) = VaeConfig::from_diffusers(text) {
        assert_eq!(config.validate(), Ok(()));
    }
    is_autoencoder_config(text);
    for names in TENSORS {
        let mut weights = named(names);
        for key in ["args", "classes", "latents_mean", "latents_std"] {
            weights.metadata.insert(key.into(), text.into());
        }
        weights.set_config(text);
        checkpoint::read(&weights);
        if let Ok(weights) = from_diffusers(weights, Some(text)) {
            checkpoint::read(&weights);
            if let Ok(Some(stats)) = LatentStats::of_autoencoder(&weights, 4) {
                assert_eq!(stats.mean.len(), stats.std.len());
            }
        }
    }
});
