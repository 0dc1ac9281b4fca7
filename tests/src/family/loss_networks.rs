//! Loss networks, with weights by recipe: LPIPS on VGG16, the PatchGAN discriminator.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tintype::burn::tensor::{Device, FloatDType, Gradients, Tensor, TensorData};
use tintype::weights::{flat_gradients, load, open, snapshot};
use tintype_trainer::network::lpips::Lpips;
use tintype_trainer::network::patchgan::{
    PatchGan, PatchGanConfig, generator_loss, hinge_loss, vanilla_loss,
};

use crate::check::{Checks, Tolerance};
use crate::golden::Golden;
use crate::recipe::Manifest;

/// 8-bit images `[n, H, W, 3]` as `[n, 3, H, W]` in −1…1.
fn images(golden: &Golden, name: &str, device: &Device) -> Result<Tensor<4>> {
    let view = golden.view(name)?;
    let values: Vec<f32> = view.to_f32().iter().map(|v| v / 127.5 - 1.0).collect();
    let images = Tensor::<4>::from_data(TensorData::new(values, view.shape.clone()), device);
    Ok(images.permute([0, 3, 1, 2]))
}

pub(super) fn values<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().convert::<f32>().iter::<f64>().collect()
}

fn strided(values: &[f64], step: usize) -> Vec<f64> {
    values.iter().copied().step_by(step.max(1)).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The weights that the manifest beside a file describes.
pub(super) fn recipe(path: &Path) -> Result<tintype::weights::Weights> {
    let stem = path.file_stem().and_then(|s| s.to_str()).context("a name")?;
    Manifest::read(&path.with_file_name(format!("{stem}_manifest.json")))?.weights(&open(path)?)
}

/// Fails if the file has values that nothing compared.
pub(super) fn all_seen(golden: &Golden, seen: &BTreeSet<String>, inputs: &[&str]) -> Result<()> {
    let missed: Vec<&String> = golden
        .names()
        .filter(|n| !inputs.iter().any(|i| n.starts_with(i)) && !seen.contains(*n))
        .collect();
    ensure!(missed.is_empty(), "never compared: {missed:?}");
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn lpips(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let weights = recipe(path)?;
    let network = Lpips::from_weights(weights.clone(), &weights, device)?;
    let mut seen = BTreeSet::new();
    let mut compare = |name: String, actual: &[f64], tolerance: Tolerance| -> Result<()> {
        checks.values(&name, actual, tolerance)?;
        seen.insert(name);
        Ok(())
    };
    let close = Tolerance::Absolute(2e-6);
    let sets: Vec<String> =
        golden.names().filter_map(|n| Some(n.strip_prefix("image0.")?.to_string())).collect();
    for set in sets {
        let a = images(&golden, &format!("image0.{set}"), device)?.detach().require_grad();
        let b = images(&golden, &format!("image1.{set}"), device)?;
        let (features, others) = (network.features(a.clone()), network.features(b.clone()));
        let layers = network.layers(&features, &others); // [B, 5]
        let distance = layers.clone().sum_dim(1);
        compare(format!("lpips.{set}"), &values(&distance), close)?;
        compare(format!("lpips_layers.{set}"), &values(&layers), close)?;
        // REPA-E's trainer feeds −1…1 into a network that expects 0…1.
        let wide = |x: &Tensor<4>| x.clone() * 2.0 - 1.0;
        let repae = network.forward(wide(&a), wide(&b));
        compare(format!("lpips_repae_fed_m1_1.{set}"), &values(&repae), close)?;
        for (k, tap) in features.iter().enumerate() {
            let all = values(tap);
            let sample: Vec<f64> = (0..64).map(|i| all[i * all.len() / 64]).collect();
            let tolerance = Tolerance::RelativeL2(1e-5);
            compare(format!("vgg_relu{k}.{set}.sample64"), &sample, tolerance)?;
        }
        let gradient = a.grad(&distance.sum().backward()).context("no gradient")?;
        let gradient = values(&gradient);
        let name = format!("grad_image0.{set}");
        compare(format!("{name}.sub"), &strided(&gradient, 29), Tolerance::RelativeL2(2e-2))?;
        compare(format!("{name}.norm"), &[norm(&gradient)], Tolerance::Relative(1e-3))?;
    }
    all_seen(&golden, &seen, &["image", "stored."])
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn patchgan(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let weights = recipe(path)?;
    let config = config_of(&weights)?;
    let network: PatchGan = load(config.init(device), &weights, FloatDType::F32, device)?.network;
    let (real, fake) =
        (images(&golden, "real", device)?, images(&golden, "fake", device)?.detach());
    let mut seen = BTreeSet::new();
    let mut compare = |name: String, actual: &[f64], tolerance: Tolerance| -> Result<()> {
        if golden.has(&name) {
            checks.values(&name, actual, tolerance)?;
            seen.insert(name);
        }
        Ok(())
    };
    let logits = Tolerance::Absolute(5e-5);
    let (losses, gradients) = (Tolerance::Absolute(1e-5), Tolerance::RelativeL2(1e-3));
    compare("eval.logits_real".into(), &values(&network.forward(real.clone())), logits)?;
    compare("eval.logits_fake".into(), &values(&network.forward(fake.clone())), logits)?;
    // −mean D(fake) and its gradient at the image.
    for (mode, fake) in
        [("eval", fake.clone().require_grad()), ("train", fake.clone().require_grad())]
    {
        let d = match mode {
            "eval" => network.forward(fake.clone()),
            _ => network.train_forward(fake.clone(), false).0,
        };
        let g = generator_loss(d);
        let gradient = values(&fake.grad(&g.backward()).context("no gradient")?);
        let name = format!("{mode}.g_loss_grad_fake");
        compare(format!("{mode}.g_loss"), &values(&g), losses)?;
        compare(format!("{name}.sub"), &strided(&gradient, 29), gradients)?;
        compare(format!("{name}.norm"), &[norm(&gradient)], Tolerance::Relative(1e-3))?;
    }
    let (d_real, after_real) = network.train_forward(real, false);
    let (d_fake, _) = after_real.train_forward(fake, false);
    compare("train.logits_real".into(), &values(&d_real), logits)?;
    compare("train.logits_fake".into(), &values(&d_fake), logits)?;
    for (name, view) in snapshot(&after_real) {
        compare(format!("train.after_real.{name}"), &view.to_f64(), losses)?;
    }
    let vanilla = vanilla_loss(d_real.clone(), d_fake.clone());
    compare("train.vanilla_d_loss".into(), &values(&vanilla), losses)?;
    let hinge = hinge_loss(d_real, d_fake);
    compare("train.hinge_d_loss".into(), &values(&hinge), losses)?;
    let of: Gradients = hinge.backward();
    for (name, gradient) in flat_gradients(&network, &of) {
        let all = values(&gradient);
        let name = format!("train.hinge_grad.{name}");
        compare(format!("{name}.sub"), &strided(&all, all.len() / 256), gradients)?;
        compare(format!("{name}.norm"), &[norm(&all)], Tolerance::Relative(1e-3))?;
    }
    all_seen(&golden, &seen, &["real", "fake", "stored."])
}

/// The shape of a discriminator from its weights.
fn config_of(weights: &tintype::weights::Weights) -> Result<PatchGanConfig> {
    let first = weights.tensors.get("main.0.weight").context("no first layer")?;
    let use_actnorm = !weights.tensors.keys().any(|n| n.ends_with("running_mean"))
        && weights.tensors.contains_key("main.2.bias");
    let last = weights
        .tensors
        .keys()
        .filter_map(|n| n.split('.').nth(1)?.parse::<usize>().ok())
        .max()
        .context("no layers")?;
    Ok(PatchGanConfig { ndf: first.shape[0], n_layers: (last - 2) / 3, use_actnorm })
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn patchgan_actnorm(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let mut weights = open(path)?;
    weights.tensors = weights
        .tensors
        .iter()
        .filter_map(|(n, v)| Some((n.strip_prefix("weights.")?.to_string(), v.clone())))
        .collect();
    let config = config_of(&weights)?;
    let fresh = config.init(device);
    // Before its first batch a norm does nothing, and the file does not hold it.
    for (name, view) in snapshot(&fresh) {
        weights.tensors.entry(name).or_insert(view);
    }
    let network = load(fresh, &weights, FloatDType::F32, device)?.network;
    let mut seen = BTreeSet::new();
    let mut compare = |name: String, actual: &[f64], limit: f64| -> Result<()> {
        if golden.has(&name) {
            checks.values(&name, actual, Tolerance::Absolute(limit))?;
            seen.insert(name);
        }
        Ok(())
    };
    let (first, network) = network.train_forward(images(&golden, "real", device)?, true);
    compare("first_forward.logits".into(), &values(&first), 5e-5)?;
    let (second, network) = network.train_forward(images(&golden, "fake", device)?, false);
    compare("second_forward_fake.logits".into(), &values(&second), 5e-5)?;
    for (name, view) in snapshot(&network) {
        compare(format!("after_init.{name}"), &view.to_f64(), 1e-4)?;
    }
    all_seen(&golden, &seen, &["real", "fake", "weights."])
}
