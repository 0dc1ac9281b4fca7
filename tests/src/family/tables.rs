//! Tables, small functions, image preparation and metrics.

use std::path::Path;

use anyhow::{Context, Result};
use ndarray::Array2;
use tintype::burn::tensor::Device;
use tintype::diffusion::flow::{logit_normal, shifted_grid};
use tintype::image::Rgb;
use tintype::nn::activation::{gelu_erf, gelu_tanh, silu};
use tintype::nn::embedding::timestep_features;
use tintype::nn::norm::{
    GroupNorm, LatentNorm, cosine_similarity, l2_normalize, layer_norm, rms_norm_scaled,
};
use tintype::nn::position::sin_cos_2d;
use tintype::nn::rope::{AxialRope, axial_angles};
use tintype_trainer::data::augment::{Augmentation, Draws};
use tintype_trainer::data::crop::center_crop as crop;
use tintype_trainer::evaluate::{frechet, kernel};

use crate::check::{Checks, FORWARD, TABLE, Tolerance};
use crate::golden::Golden;

/// A number that follows a letter in a case label, as in `h72_g4`.
fn part(label: &str, letter: char) -> Option<f64> {
    label.split('_').find_map(|p| p.strip_prefix(letter)?.parse().ok())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn embeddings(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let names: Vec<String> = golden.outputs().cloned().collect();
    for name in names {
        let label = &name["out.".len()..];
        let size = |letter| {
            part(label, letter).map(|v| v as usize).with_context(|| format!("{label}: no {letter}"))
        };
        if let Some(rest) = label.strip_prefix("logit_normal_t") {
            let mu = match rest.strip_prefix("_mu_") {
                Some(mu) => mu.replace('m', "-").replace('p', ".").parse()?,
                None => 0.0,
            };
            let normals = golden.values("in.normal")?;
            let t: Vec<f64> = normals.iter().map(|&n| logit_normal(n, mu, 1.0)).collect();
            checks.values(&name, &t, TABLE)?;
        } else if label.starts_with("ode_grid") {
            let shift = part(label, 's').context("no shift")?;
            let grid = shifted_grid(size('n')?, shift);
            let grid: Vec<f64> = grid.into_iter().map(f64::from).collect();
            checks.values(&name, &grid, TABLE)?;
        } else if label.starts_with("sincos") {
            let table = sin_cos_2d(size('d')?, size('g')?);
            checks.values(&name, &table, TABLE)?;
        } else if label.starts_with("timestep_embedding") {
            let dim = golden.view(&name)?.shape[1];
            let t = golden.tensor::<1>("in.t", device)?;
            checks.tensor(&name, &timestep_features(t, dim), TABLE)?;
        } else if label.starts_with("rope_q") {
            let (head, grid) = (size('h')?, size('g')?);
            let q = golden.tensor::<4>(&format!("in.{label}"), device)?;
            let rotated = AxialRope::new(head, grid, device).table().forward(q);
            checks.tensor(&name, &rotated, FORWARD)?;
        } else if label.starts_with("rope_cos") || label.starts_with("rope_sin") {
            let f = if label.starts_with("rope_cos") { f64::cos } else { f64::sin };
            let table: Vec<f64> = axial_angles(size('h')?, size('g')?).into_iter().map(f).collect();
            checks.values(&name, &table, TABLE)?;
        } else {
            anyhow::bail!("{name} is of no known kind");
        }
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn units(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let close = Tolerance::RelativeL2(2e-6);
    let groups = config["groups"].as_u64().context("groups")? as usize;
    let channels = golden.weights.tensors["gn.weight"].len();
    let gn = golden.weights.clone().filtered(|n| n.starts_with("gn."));
    let part = |prefix: &str| {
        let mut part = Golden::open(path)?;
        part.weights = part.weights.filtered(|n| n.starts_with(prefix));
        anyhow::Ok(part)
    };
    anyhow::ensure!(gn.tensors.len() == 2, "a group norm has two tensors");
    let group_norm =
        part("gn.")?.load_part(GroupNorm::new(groups, channels, device), "gn.", device)?;
    let batch_norm = part("bn.")?.load_part(LatentNorm::new(channels, device), "bn.", device)?;
    let rms = golden.tensor::<1>("w.rms.weight", device)?;
    for suffix in ["", "_small"] {
        let x = golden.tensor::<3>(&format!("in.x{suffix}"), device)?;
        let image = golden.tensor::<4>(&format!("in.image{suffix}"), device)?;
        let key = |what: &str| format!("out.{what}{suffix}");
        checks.tensor_if(&key("layernorm"), &layer_norm(x.clone(), 1e-6), close)?;
        checks.tensor_if(&key("rmsnorm"), &rms_norm_scaled(x, rms.clone()), close)?;
        let normed = group_norm.forward(image.clone());
        checks.tensor_if(&key(&format!("groupnorm{groups}")), &normed, close)?;
        checks.tensor_if(&key("batchnorm_eval"), &batch_norm.normalize(image), close)?;
    }
    let act = golden.tensor::<1>("in.act_x", device)?;
    checks.tensor_if("out.gelu_erf", &gelu_erf(act.clone()), close)?;
    checks.tensor_if("out.gelu_tanh", &gelu_tanh(act.clone()), close)?;
    checks.tensor_if("out.silu", &silu(act), close)?;
    let x = golden.tensor::<3>("in.x", device)?;
    checks.tensor_if("out.l2_normalize", &l2_normalize(x.clone(), 2, 1e-12), close)?;
    let [b, _, d] = x.dims();
    // The reference compares the batch with itself in reverse.
    let cosine = cosine_similarity(x.clone(), x.flip([0]), 1, 1e-8).reshape([b, d]);
    checks.tensor_if::<2>("out.cosine_dim1", &cosine, close)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn center_crop(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    for (i, case) in config["cases"].as_array().into_iter().flatten().enumerate() {
        let view = golden.view(&format!("in.{i}.image"))?;
        let image = Rgb {
            height: view.shape[0],
            width: view.shape[1],
            pixels: view.to_i64().iter().map(|&v| v as u8).collect(),
        };
        let size = case["size"].as_u64().context("size")? as usize;
        let cropped: Vec<f64> = crop(&image, size).pixels.iter().map(|&v| v as f64).collect();
        checks.values(&format!("out.{i}.crop"), &cropped, Tolerance::Exact)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn augment(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let extra = golden.json("extra")?;
    for (i, case) in extra["cases"].as_array().into_iter().flatten().enumerate() {
        let view = golden.view(&format!("in.case{i}.image"))?;
        let (side, channels) = (view.shape[0], view.shape.get(2).copied().unwrap_or(1));
        let pixels = view.to_f32(); // [H, W, C]
        let planes: Vec<f32> = (0..channels)
            .flat_map(|c| pixels.iter().skip(c).step_by(channels).map(|v| v / 255.0))
            .collect();
        let d = golden.values(&format!("in.case{i}.draws"))?;
        let draws = Draws {
            x_flip: d[0] > 0.5,
            y_flip_u: d[1],
            y_flip: d[2] > 0.5,
            scale_u: d[3],
            scale_n: d[4],
            rotation_u: d[5],
            rotation_angle_u: d[6],
            aniso_u: d[7],
            aniso_angle_u: d[8],
            aniso_n: d[9],
            shift_u: d[10],
            shift_x_n: d[11],
            shift_y_n: d[12],
        };
        let probability = case["augment_prob"].as_f64().context("augment_prob")?;
        let augmentation = Augmentation::new(draws, probability, side);
        let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|&v| v as f64).collect() };
        let key = |what: &str| format!("out.case{i}.{what}");
        let image = augmentation.apply(&planes, side);
        checks.values(&key("image"), &wide(&image), Tolerance::Stated)?;
        let original: Vec<f32> = planes.iter().map(|v| v * 2.0 - 1.0).collect();
        checks.values(&key("image_orig"), &wide(&original), Tolerance::Absolute(1e-6))?;
        checks.values(&key("cond"), &augmentation.condition, Tolerance::Stated)?;
        if golden.has(&key("matrix")) {
            let matrix = augmentation.matrix.concat();
            checks.values(&key("matrix"), &matrix, Tolerance::Stated)?;
        }
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn metrics(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let extra = golden.json("extra")?;
    for (i, case) in extra["cases"].as_array().into_iter().flatten().enumerate() {
        let features = |what: &str| -> Result<Array2<f64>> {
            let name = format!("in.case{i}.{what}");
            let shape = &golden.view(&name)?.shape;
            Ok(Array2::from_shape_vec((shape[0], shape[1]), golden.values(&name)?)?)
        };
        let (x, y) = (features("x")?, features("y")?);
        let fid =
            frechet::distance(&frechet::statistics(&x, 1e-8), &frechet::statistics(&y, 1e-8))?;
        let max_size = case["kid_max_size"].as_u64().context("kid_max_size")? as usize;
        let kid = kernel::distance(&x, &y, max_size);
        for (name, value) in [("fid", fid), ("kid", kid)] {
            for key in [format!("out.case{i}.{name}"), format!("out.case{i}.{name}_f64")] {
                if golden.has(&key) {
                    checks.values(&key, &[value], Tolerance::Stated)?;
                }
            }
        }
    }
    Ok(())
}
