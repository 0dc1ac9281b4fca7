//! RAE: its encoder, statistics and decoder stage by stage, and the files that its authors save.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::generate::LatentStats;
use tintype::image::{Rounding, to_rgb};
use tintype::model::dinov2::DinoV2;
use tintype::model::rae::{
    RaeDecoder, RaeDecoderConfig, RaeEncoder, decoder_part, encoder_part, noised,
};
use tintype::model::{Autoencoder, autoencoder_config};
use tintype::weights::{Weights, load, open, open_autoencoder};

use super::files::stored;
use super::vision_transformers::part;
use crate::check::{Checks, FORWARD, Tolerance};
use crate::golden::Golden;

/// A number of a configuration.
fn number(config: &Value, key: &str) -> Result<usize> {
    Ok(config[key].as_u64().with_context(|| format!("no {key}"))? as usize)
}

fn encoder(golden: &Golden, config: &Value, device: &Device) -> Result<RaeEncoder> {
    let heads = number(&config["encoder"], "num_attention_heads")?;
    let weights = part(&golden.weights, "encoder.");
    let network = DinoV2::without_final_affine(weights, Some(heads), device)?;
    Ok(RaeEncoder::new(network, number(config, "encoder_input_size")?)?)
}

fn decoder(golden: &Golden, config: &Value, device: &Device) -> Result<RaeDecoder> {
    let mut weights = part(&golden.weights, "decoder.");
    weights.set_config(&config["decoder"].to_string());
    let found = RaeDecoderConfig::of(&weights)?;
    ensure!(found.image_size() == number(config, "image_size")?, "{found:?}");
    ensure!(config["decoder_layer_norm_eps"] == found.layer_norm_eps, "{found:?}");
    golden.load_part(found.init(device)?, "decoder.", device)
}

/// Images in 0…1 as 8-bit values, channels last.
fn bytes(images: &Tensor<4>) -> Vec<f64> {
    let data = (images.clone() * 2.0 - 1.0).into_data().convert::<f32>();
    let pictures = to_rgb(&data, Rounding::Half);
    pictures.into_iter().flat_map(|picture| picture.pixels).map(f64::from).collect()
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn stage1(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let (encoder, decoder) =
        (encoder(&golden, &config, device)?, decoder(&golden, &config, device)?);
    let stats = match config["stats"].as_str() {
        Some("none") => None,
        _ => Some(LatentStats::from_weights(&part(&golden.weights, "stat."))?),
    };
    let normalized =
        |z: Tensor<4>| stats.as_ref().map_or(z.clone(), |stats| stats.normalize(z.clone()));
    let denormalized =
        |z: Tensor<4>| stats.as_ref().map_or(z.clone(), |stats| stats.denormalize(z.clone()));

    let image = golden.tensor::<4>("in.image", device)?;
    checks.tensor("out.encoder_input", &encoder.input(image.clone()), FORWARD)?;
    let mut stages = Vec::new();
    let tokens =
        encoder.tokens_observed(image.clone(), &mut |stage, x| stages.push((stage, x.clone())));
    for (stage, x) in &stages {
        let name = match stage {
            0 => "out.encoder_embedded".to_string(),
            i => format!("out.encoder_block{}", i - 1),
        };
        checks.tensor(&name, x, FORWARD)?;
    }
    checks.tensor("out.tokens", &tokens.patches, FORWARD)?;
    let class = tokens.class.unsqueeze_dim::<3>(1); // [B, 1, C]
    let registers = tokens.registers.context("no registers")?;
    let all = Tensor::cat(vec![class, registers, tokens.patches], 1);
    checks.tensor("out.encoder_normed_all_tokens", &all, FORWARD)?;

    let tokens = encoder.forward(image);
    let [b, c, h, w] = tokens.dims();
    let latent = normalized(tokens.clone());
    checks.tensor("out.latent", &latent, FORWARD)?;
    if golden.has("in.noise") {
        let u = golden.tensor::<3>("in.noise_uniforms", device)?.reshape([b]);
        let eps = golden.tensor::<3>("in.noise", device)?; // [B, N, C]
        let eps = eps.swap_dims(1, 2).reshape([b, c, h, w]);
        let tau = config["noise_tau"].as_f64().context("no noise_tau")?;
        let noised = normalized(noised(tokens, tau, u, eps));
        checks.tensor("out.latent_noised", &noised, FORWARD)?;
    }

    let mut stages = Vec::new();
    let restored = decoder.forward_observed(denormalized(latent), &mut |name, x| {
        stages.push((name, x.clone()));
    });
    for (name, x) in &stages {
        checks.tensor(&format!("out.{name}"), x, FORWARD)?;
    }
    checks.tensor("out.reconstruction", &restored, FORWARD)?;
    checks.values("out.image_u8", &bytes(&restored), Tolerance::Image)?;
    let random = golden.tensor("in.latent_random", device)?;
    let decoded = decoder.forward(denormalized(random));
    checks.tensor("out.decoded_random", &decoded, FORWARD)?;
    checks.values("out.decoded_random_u8", &bytes(&decoded), Tolerance::Image)?;
    if golden.has("in.latent_other_grid") {
        let other = golden.tensor("in.latent_other_grid", device)?;
        checks.tensor("out.decoded_other_grid", &decoder.forward(other), FORWARD)?;
    }
    Ok(())
}

/// Compares what the files of RAE's authors hold with what is expected of them, and opens each as it is used.
///
/// # Errors
///
/// If a file cannot be read, lacks an entry, or an entry has another shape. Another value is recorded in `checks`,
/// not an error.
pub(super) fn checkpoints(folder: &Path, checks: &mut Checks) -> Result<()> {
    let expected = open(&folder.join("expected.safetensors"))?;
    for (key, view) in expected.tensors.iter().filter(|(key, _)| key.starts_with("rae_")) {
        stored(folder, key, view, checks)?;
    }
    for (file, section) in [
        ("rae_stage2_model.pt", ""),
        ("rae_stage2_train.pt", "ema"),
        ("rae_stage1_train.pt", "ema"),
    ] {
        let weights = open(&folder.join(file))?;
        ensure!(weights.metadata["section"] == section, "{file}: {:?}", weights.metadata);
    }
    statistics(folder, &expected, checks)?;
    let json = std::fs::read_to_string(folder.join("decoder/config.json"))?;
    let yaml = std::fs::read_to_string(folder.join("rae_sampling.yaml"))?;
    let device = Device::flex();
    for file in ["rae_decoder_model.pt", "rae_stage1_train.pt"] {
        let mut weights = open_autoencoder(&folder.join(file))?;
        let unknown = autoencoder_config(&weights).err().map(|e| e.to_string());
        ensure!(unknown.is_some_and(|e| e.contains("heads of width 12")), "{file} tells its heads");
        weights.set_config(&json);
        let Autoencoder::Rae(config) = autoencoder_config(&weights)? else {
            anyhow::bail!("{file} is no RAE")
        };
        ensure!(
            yaml.contains(&format!("decoder_patch_size: {}\n", config.patch_size))
                && yaml.contains(&format!("encoder_input_size: {}\n", 14 * config.grid)),
            "{config:?}"
        );
        let told = (config.decoder_num_attention_heads, config.layer_norm_eps);
        ensure!(told == (2, 1e-12), "{config:?}");
        let half = decoder_part(weights);
        let report = load(config.init(&device)?, &half, FloatDType::F32, &device)?.report;
        ensure!(report.unexpected.is_empty(), "{file}: {report}");
    }
    let weights = encoder_part(open(&folder.join("rae_stage1_train.pt"))?);
    let network = DinoV2::without_final_affine(weights, Some(1), &device)?;
    let sizes = [network.width(), network.registers(), network.patch()];
    ensure!(sizes == [8, 4, 14], "{sizes:?}");
    Ok(())
}

/// Statistics of each position, of which the file has variances.
fn statistics(folder: &Path, expected: &Weights, checks: &mut Checks) -> Result<()> {
    let stats = LatentStats::from_weights(&open(&folder.join("rae_stat.pt"))?)?;
    let of = |name: &str| expected.tensors.get(name).with_context(|| format!("no {name}"));
    let (mean, var) = (of("rae_stat.pt/mean")?, of("rae_stat.pt/var")?);
    ensure!(stats.shape[..] == var.shape && stats.fits([8, 2, 2]), "{:?}", stats.shape);
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    checks.against("rae_stat.pt means", &wide(&stats.mean), &mean.to_f64(), Tolerance::Exact)?;
    let deviations: Vec<f64> = var.to_f64().iter().map(|var| (var + 1e-5).sqrt()).collect();
    let close = Tolerance::Relative(1e-6);
    checks.against("rae_stat.pt deviations", &wide(&stats.std), &deviations, close)
}
