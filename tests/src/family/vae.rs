//! The autoencoder: encoder, posterior, decoder, or whichever half the file has.

use std::path::Path;

use anyhow::Result;
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::image::{Rounding, to_rgb};
use tintype::model::vavae::VaeConfig;

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
    let half = |encoder: bool| {
        let mut half = Golden::open(path)?;
        half.weights = half.weights.filtered(|name| {
            encoder == (name.starts_with("encoder.") || name.starts_with("quant_conv."))
        });
        anyhow::Ok(half)
    };
    let mut sample = match golden.has("in.posterior_sample") {
        true => Some(golden.tensor::<4>("in.posterior_sample", device)?),
        false => None,
    };
    let encodes = golden.weights.tensors.contains_key("encoder.conv_in.weight");
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
    if golden.weights.tensors.contains_key("decoder.conv_in.weight") {
        let decoder = half(false)?.load(config.init_decoder(device)?, device)?;
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
