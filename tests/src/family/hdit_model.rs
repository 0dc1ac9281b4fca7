//! HDiT: forward passes with taps, the Karras wrapper with its losses, gradients.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tintype::burn::tensor::{Device, Tensor};
use tintype::diffusion::guidance::Guidance;
use tintype::diffusion::karras::{Preconditioner, Weighting, frequency_weight};
use tintype::model::hdit::{Conditions, HDiT, HDiTConfig};
use tintype::weights::gradients;

use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

/// The configuration as a user writes it, checked against the resolved one.
pub(super) fn config(golden: &Golden) -> Result<HDiTConfig> {
    let written = HDiTConfig::from_json(&golden.config()?.to_string())?;
    let resolved = HDiTConfig::from_json(&golden.json("config_resolved")?.to_string())?;
    for level in 0..written.depths.len() {
        anyhow::ensure!(written.attention(level) == resolved.attention(level), "defaults differ");
    }
    Ok(written)
}

pub(super) fn weighting(config: &Value) -> Result<Weighting> {
    Ok(serde_json::from_value(config["model"]["loss_weighting"].clone())?)
}

/// The conditions that a file has.
pub(super) fn conditions(golden: &Golden, augmented: bool, device: &Device) -> Result<Conditions> {
    let has = |name: &str| golden.has(name);
    Ok(Conditions {
        augmentation: match augmented && has("in.aug_cond") {
            true => Some(golden.tensor("in.aug_cond", device)?),
            false => None,
        },
        class: match has("in.class_cond") {
            true => Some(golden.ints("in.class_cond", device)?),
            false => None,
        },
        mapping: match has("in.mapping_cond") {
            true => Some(golden.tensor("in.mapping_cond", device)?),
            false => None,
        },
        dropout: None,
    })
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn forward(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let network = golden.load(config(&golden)?.init(device)?, device)?;
    let x = golden.tensor::<4>("in.x", device)?;
    let sigma = golden.tensor::<1>("in.sigma", device)?;
    let augmented = conditions(&golden, true, device)?;
    let cond = network.map(network.embed_conditions(sigma.clone(), augmented.clone()));
    checks.tensor_if("out.tap.cond", &cond, Tolerance::Stated)?;
    let mut taps = Vec::new();
    let y = network.forward_observed(x.clone(), sigma.clone(), augmented, &mut |name, h| {
        taps.push((name, h.clone()));
    });
    for (name, h) in &taps {
        checks.tensor_if(&format!("out.tap.{name}"), h, Tolerance::Stated)?;
    }
    checks.tensor_if("out.y", &y, Tolerance::Stated)?;
    let plain = network.forward(x, sigma, conditions(&golden, false, device)?);
    checks.tensor_if("out.y_noaug", &plain, Tolerance::Stated)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn denoiser(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = config(&golden)?;
    let network = golden.load(config.init(device)?, device)?;
    let preconditioner = Preconditioner { sigma_data: config.sigma_data };
    let [x, eps] = [golden.tensor::<4>("in.x", device)?, golden.tensor("in.noise", device)?];
    let sigma = golden.tensor::<1>("in.sigma", device)?;
    let stated = Tolerance::Stated;
    let scalings = preconditioner.scalings(sigma.clone());
    checks.tensor_if("out.c_skip", &scalings.c_skip, stated)?;
    checks.tensor_if("out.c_out", &scalings.c_out, stated)?;
    checks.tensor_if("out.c_in", &scalings.c_in, stated)?;
    let noised = x.clone() + eps.clone() * sigma.clone().reshape([-1, 1, 1, 1]);
    checks.tensor_if("out.noised", &noised, stated)?;
    let f = |x: Tensor<4>, sigma: Tensor<1>| -> Result<Tensor<4>> {
        Ok(network.forward(x, sigma, conditions(&golden, true, device)?))
    };
    let (input, target) = preconditioner.training_pair(x.clone(), eps.clone(), sigma.clone());
    checks.tensor_if("out.target", &target, stated)?;
    let output = f(input, sigma.clone())?;
    checks.tensor_if("out.model_output", &output, stated)?;
    let denoised = preconditioner.denoise(noised.clone(), sigma.clone(), |_, _| output.clone());
    checks.tensor_if("out.denoised", &denoised, stated)?;
    let names: Vec<String> = golden.outputs().cloned().collect();
    let parse = |name: &str| -> Result<Weighting> {
        Ok(serde_json::from_value(Value::String(name.into()))?)
    };
    for name in names {
        if let Some(kind) = name.strip_prefix("out.weight_grid.") {
            let grid = golden.tensor::<1>("in.sigma_grid", device)?;
            checks.tensor(&name, &preconditioner.weight(parse(kind)?, grid), stated)?;
        } else if let Some(scales) = name.strip_prefix("out.freq_weight.scales") {
            let shape = &golden.view(&name)?.shape;
            let weight = frequency_weight(shape[0], shape[1], scales.parse()?);
            checks.values(&name, &weight, stated)?;
        } else if name == "out.loss.simple" {
            let loss = preconditioner
                .simple_loss(x.clone(), eps.clone(), sigma.clone(), |_, _| output.clone());
            checks.tensor(&name, &loss, stated)?;
        } else if let Some(kind) = name.strip_prefix("out.loss.") {
            let (kind, scales) = match kind.split_once(".scales") {
                Some((kind, scales)) => (kind, scales.parse()?),
                None => (kind, 1),
            };
            let (output, target) = (output.clone(), target.clone());
            let loss = preconditioner.loss(output, target, sigma.clone(), parse(kind)?, scales);
            checks.tensor(&name, &loss, stated)?;
        } else if let Some(scale) = name.strip_prefix("out.cfg") {
            let class = golden.ints("in.cfg_class", device)?;
            let guidance = Guidance { high: f64::MAX, ..Guidance::new(scale.parse()?) };
            let (cond, uncond) =
                both(&network, &preconditioner, noised.clone(), sigma.clone(), class)?;
            checks.tensor(&name, &guidance.combine(cond, uncond), stated)?;
        }
    }
    Ok(())
}

/// Denoised with the class and with none, in one batch.
pub(super) fn both(
    network: &HDiT,
    preconditioner: &Preconditioner,
    y: Tensor<4>,
    sigma: Tensor<1>,
    class: tintype::burn::tensor::Tensor<1, tintype::burn::tensor::Int>,
) -> Result<(Tensor<4>, Tensor<4>)> {
    let b = y.dims()[0];
    let null = network.null_class().context("the network has no classes")? as i64;
    let classes = Tensor::cat(vec![class.clone(), class.ones_like() * null], 0);
    let conditions = Conditions { class: Some(classes), ..Conditions::default() };
    let twice = preconditioner.denoise(
        Tensor::cat(vec![y.clone(), y], 0),
        Tensor::cat(vec![sigma.clone(), sigma], 0),
        |x, sigma| network.forward(x, sigma, conditions),
    );
    Ok((twice.clone().narrow(0, 0, b), twice.narrow(0, b, b)))
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn gradients_of_loss(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config_json = golden.config()?;
    let config = config(&golden)?;
    let network = golden.load(config.init(device)?, device)?;
    let preconditioner = Preconditioner { sigma_data: config.sigma_data };
    let x = golden.tensor::<4>("in.x", device)?.require_grad();
    let eps = golden.tensor::<4>("in.noise", device)?;
    let sigma = golden.tensor::<1>("in.sigma", device)?;
    let (input, target) = preconditioner.training_pair(x.clone(), eps, sigma.clone());
    let output = network.forward(input, sigma.clone(), conditions(&golden, true, device)?);
    let loss = preconditioner.loss(output, target, sigma, weighting(&config_json)?, 1).mean();
    checks.tensor("out.loss", &loss, Tolerance::Stated)?;
    let grads = loss.backward();
    let of_x = x.grad(&grads).context("the image has no gradient")?;
    checks.tensor("out.grad_x", &of_x, Tolerance::Stated)?;
    let named = gradients(&network, &grads);
    let names: Vec<String> =
        golden.outputs().filter(|n| n.starts_with("out.grad.")).cloned().collect();
    for name in names {
        let view = named.get(&name["out.grad.".len()..]).context("a parameter without gradient")?;
        checks.values(&name, &view.to_f64(), Tolerance::Stated)?;
    }
    let squares: f64 = named.values().flat_map(|v| v.to_f64()).map(|v| v * v).sum();
    if golden.has("out.grad_norm") {
        checks.values("out.grad_norm", &[squares.sqrt()], Tolerance::Stated)?;
    }
    Ok(())
}
