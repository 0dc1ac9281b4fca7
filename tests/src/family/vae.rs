//! The autoencoder: encoder, posterior, decoder, or whichever half the file has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::generate::LatentStats;
use tintype::image::{Rounding, to_rgb};
use tintype::model::vae_config;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{Weights, from_diffusers, open};

use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

const CLOSE: Tolerance = Tolerance::RelativeL2(1e-5);

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn autoencoder(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config: VaeConfig = serde_json::from_value(golden.config()?["model"].clone())?;
    compare(path, &golden.weights, &config, None, device, checks)
}

/// Compares what a file of this family expects: an autoencoder under diffusers' names, in the file
/// itself or in the folder beside that its configuration names.
///
/// # Errors
///
/// If the file or the folder cannot be read, lacks an entry, an entry has another shape, or a tensor
/// is renamed to another name than the file says. A value outside its tolerance is recorded in
/// `checks`, not an error.
pub fn diffusers(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let all = golden.config()?;
    let expected: VaeConfig = serde_json::from_value(all["model"].clone())?;
    let autoencoders = match all["folder"].as_str() {
        Some(folder) => {
            let folder = path.with_file_name(folder);
            vec![open(&folder)?, open(&folder.join("diffusion_pytorch_model.bin"))?]
        }
        None => {
            let text = all["diffusers"].to_string();
            let names: BTreeMap<String, String> = serde_json::from_value(all["ldm_names"].clone())?;
            let mut weights = golden.weights.clone();
            weights.metadata.remove("config"); // the reference file's own
            let weights = from_diffusers(weights, Some(&text))?;
            let found: BTreeSet<&String> = weights.tensors.keys().collect();
            let wanted: BTreeSet<&String> = names.values().collect();
            ensure!(found == wanted, "other names: {found:?}");
            vec![weights]
        }
    };
    for weights in &autoencoders {
        let config = vae_config(weights)?;
        ensure!(config == expected, "{config:?} instead of {expected:?}");
        let stats = LatentStats::of_autoencoder(weights, config.latent_channels())?;
        compare(path, weights, &config, stats.as_ref(), device, checks)?;
    }
    Ok(())
}

/// Compares the halves that the weights have. The statistics are those of a generator's latents.
fn compare(
    path: &Path,
    weights: &Weights,
    config: &VaeConfig,
    stats: Option<&LatentStats>,
    device: &Device,
    checks: &mut Checks,
) -> Result<()> {
    let golden = Golden::open(path)?;
    let half = |encoder: bool| {
        let mut half = Golden::open(path)?;
        half.weights = weights.clone().filtered(|name| {
            encoder == (name.starts_with("encoder.") || name.starts_with("quant_conv."))
        });
        anyhow::Ok(half)
    };
    let mut sample = match golden.has("in.posterior_sample") {
        true => Some(golden.tensor::<4>("in.posterior_sample", device)?),
        false => None,
    };
    let encodes = weights.tensors.contains_key("encoder.conv_in.weight");
    if encodes {
        let encoder = half(true)?.load(config.init_encoder(device)?, device)?;
        let x = match golden.has("in.x") {
            true => golden.tensor::<4>("in.x", device)?,
            false => scaled(&golden, device)?,
        };
        if golden.has("in.x") && golden.has("in.image_u8") {
            let values: Vec<f64> = scaled(&golden, device)?.into_data().iter::<f64>().collect();
            checks.against("in.x", &values, &golden.values("in.x")?, Tolerance::Absolute(1e-6))?;
        }
        let mut seen = Vec::new();
        let moments =
            encoder.moments_observed(x.clone(), &mut |name, h| seen.push((name, h.clone())));
        for (name, h) in &seen {
            let key = match name.as_str() {
                "encoder_out" => "out.encoder_out".to_string(),
                name => format!("out.enc.{name}"),
            };
            checks.tensor_if(&key, h, CLOSE)?;
        }
        checks.tensor_if("out.moments", &moments, CLOSE)?;
        let posterior = encoder.encode(x);
        checks.tensor_if("out.mean", &posterior.mean, CLOSE)?;
        checks.tensor_if("out.logvar", &posterior.logvar, CLOSE)?;
        checks.tensor_if("out.std", &posterior.std(), CLOSE)?;
        checks.tensor_if("out.kl", &posterior.kl(), Tolerance::Relative(1e-5))?;
        if golden.has("in.eps") {
            let drawn = posterior.sample(golden.tensor("in.eps", device)?);
            checks.tensor_if("out.posterior_sample", &drawn, CLOSE)?;
            sample = sample.or(Some(drawn));
        }
    }
    if weights.tensors.contains_key("decoder.conv_in.weight") {
        let decoder = half(false)?.load(config.init_decoder(device)?, device)?;
        if let (Some(sample), Some(stats)) = (&sample, stats) {
            let scaled = stats.normalize(sample.clone());
            checks.tensor_if("out.scaled_latent", &scaled, CLOSE)?;
            let decoded = decoder.decode(stats.denormalize(scaled));
            checks.tensor_if("out.decoded_from_scaled", &decoded, CLOSE)?;
        }
        if let Some(sample) = sample {
            checks.tensor_if("out.decoded_from_sample", &decoder.decode(sample), CLOSE)?;
        }
        if golden.has("in.z") {
            let decoded = decoder.decode(golden.tensor("in.z", device)?);
            checks.tensor_if("out.decoded_from_z", &decoded, CLOSE)?;
            let data = decoded.into_data();
            for (name, rounding) in [("repae", Rounding::Half), ("vavae", Rounding::Up)] {
                let key = format!("out.uint8_from_z_{name}");
                if golden.has(&key) {
                    let bytes: Vec<f64> = to_rgb(&data, rounding)
                        .iter()
                        .flat_map(|image| image.pixels.iter().map(|&v| v as f64))
                        .collect();
                    checks.values(&key, &bytes, Tolerance::Image)?;
                }
            }
            if golden.has("out.uint8_from_z_round") {
                checks.values("out.uint8_from_z_round", &rounded(&data), Tolerance::Image)?;
            }
        }
    }
    Ok(())
}

/// The 8-bit image in −1…1.
fn scaled(golden: &Golden, device: &Device) -> Result<Tensor<4>> {
    let view = golden.view("in.image_u8")?;
    let values: Vec<f32> = view.to_f32().iter().map(|v| v / 127.5 - 1.0).collect();
    Ok(Tensor::from_data(TensorData::new(values, view.shape.clone()), device))
}

/// 8-bit values of images `[B, C, H, W]` in −1…1, channels last, halves to even.
fn rounded(data: &TensorData) -> Vec<f64> {
    let [b, c, h, w]: [usize; 4] = data.shape.dims();
    let values: Vec<f32> = data.iter::<f32>().collect();
    let area = h * w;
    let byte = |i: usize| {
        let (channel, pixel) = (i % c, i / c);
        let x = values[(pixel / area * c + channel) * area + pixel % area];
        f64::from((255.0 * ((x + 1.0) / 2.0)).clamp(0.0, 255.0).round_ties_even())
    };
    (0..b * c * area).map(byte).collect()
}
