//! Teachers and loss networks: DINOv2 and its inputs, LPIPS, the VF loss.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::model::dinov2::{DinoConfig, Interpolation, resample_positions};
use tintype::resize::Method;
use tintype_trainer::data::resize::{repa_teacher_input, vf_teacher_input};
use tintype_trainer::loss::vf::{Margins, alignment};
use tintype_trainer::network::lpips;

use super::loss_networks::values;
use crate::check::{Checks, FORWARD, GRADIENT, LOSS, Tolerance};
use crate::golden::Golden;

const CLOSE: Tolerance = Tolerance::Absolute(1e-5);
const TIMM: Method = Method::BicubicAntialias;

fn bytes(golden: &Golden, name: &str) -> Result<(Vec<u8>, usize)> {
    let view = golden.view(name)?;
    let side = view.shape.last().copied().unwrap_or_default();
    Ok((view.to_i64().iter().map(|&v| v as u8).collect(), side))
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn dinov2_preprocess(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let (image, side) = bytes(&golden, "in.image_u8")?;
    let wide = |v: Vec<f32>| -> Vec<f64> { v.into_iter().map(f64::from).collect() };
    let names: Vec<String> = golden.outputs().cloned().collect();
    for name in names {
        let values = match name.starts_with("out.vavae_vf") {
            true => wide(vf_teacher_input(&image, side)),
            false => wide(repa_teacher_input(&image, side)),
        };
        checks.values(&name, &values, CLOSE)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn pos_embed_resample(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let table = golden.tensor::<3>("in.pos_embed", &Device::flex())?;
    let names: Vec<String> = golden.outputs().cloned().collect();
    for name in names {
        let rows = golden.view(&name)?.shape[1];
        let resampled = resample_positions(table.clone(), [(rows - 1).isqrt(); 2], TIMM);
        checks.tensor(&name, &resampled, CLOSE)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn dinov2_tiny(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let mut golden = Golden::open(path)?;
    let config: DinoConfig = serde_json::from_value(golden.config()?["model"].clone())?;
    golden.weights.tensors.remove("mask_token");
    // The file also holds the resampled table, against which ours is compared.
    let resampled: Vec<_> = golden
        .weights
        .tensors
        .keys()
        .filter(|n| n.starts_with("pos_embed_resampled_"))
        .cloned()
        .collect();
    let (image, side) = bytes(&golden, "in.image_u8")?;
    let input = repa_teacher_input(&image, side);
    let size = 224 * (side / 256);
    for name in resampled {
        let grid: usize = name.rsplit('_').next().unwrap_or_default().parse()?;
        let expected = golden.weights.tensors.remove(&name).map(|v| v.to_f64());
        let table = golden.tensor::<3>("w.pos_embed", device)?;
        let ours = values(&resample_positions(table, [grid; 2], TIMM));
        checks.against(&format!("w.{name}"), &ours, &expected.unwrap_or_default(), CLOSE)?;
    }
    let grid = [size / config.patch_size; 2];
    let network = golden.load(config.init(device)?, device)?;
    let network = network.with_grid(grid, Interpolation::Timm);
    let x = Tensor::from_data(TensorData::new(input, [1, 3, size, size]), device);
    let tokens = network.forward(x);
    checks.tensor("out.x_norm_clstoken", &tokens.class, FORWARD)?;
    checks.tensor("out.x_norm_patchtokens", &tokens.patches, FORWARD)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn lpips_head(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    for i in 0..2 {
        let image = golden.tensor::<4>(&format!("in.image{i}"), device)?;
        checks.tensor(&format!("out.scaled{i}"), &lpips::scale_input(image), FORWARD)?;
    }
    let layers = |image: usize| -> Result<Vec<Tensor<4>>> {
        (0..5).map(|l| golden.tensor(&format!("in.feats{image}.{l}"), device)).collect()
    };
    let weights = (0..5)
        .map(|l| golden.tensor(&format!("w.lin{l}.model.1.weight"), device))
        .collect::<Result<Vec<_>>>()?;
    let value = lpips::distance(&layers(0)?, &layers(1)?, &weights);
    checks.tensor("out.value", &value, FORWARD)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn vf_loss(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let teacher = golden.tensor::<4>("in.aux", device)?;
    for (case, margins) in config["cases"].as_object().into_iter().flatten() {
        let number = |key: &str| margins.get(key).and_then(Value::as_f64).unwrap_or_default();
        let margins = Margins { distmat: number("distmat_margin"), cos: number("cos_margin") };
        for term in ["distmat", "cos", "total"] {
            let z = golden.tensor::<4>("in.z", device)?.require_grad();
            let terms = alignment(z.clone(), teacher.clone(), margins);
            let value = match term {
                "distmat" => terms.distmat,
                "cos" => terms.cos,
                _ => terms.distmat + terms.cos,
            };
            checks.tensor(&format!("out.{case}.{term}"), &value, LOSS)?;
            let gradient = z.grad(&value.backward());
            let gradient = gradient.unwrap_or_else(|| z.inner().zeros_like());
            checks.tensor(&format!("out.{case}.{term}.grad_z"), &gradient, GRADIENT)?;
        }
    }
    Ok(())
}
