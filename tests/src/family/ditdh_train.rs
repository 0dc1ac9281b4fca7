//! DiT-DH's training: losses, whole optimizer steps and learning rates, by the trainer's own functions.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::tensor::Device;
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::loss::mean_squared_error;
use tintype::diffusion::time_shift::shift_time;
use tintype::model::ditdh::{DitDh, DitDhConfig};
use tintype::nn::block::run_blocks;
use tintype::weights::{layout, views};
use tintype_trainer::train::adamw::AdamWConfig;
use tintype_trainer::train::classes::drop_class;
use tintype_trainer::train::ditdh::{self, DitDhLoss, Draws};
use tintype_trainer::train::ema::EmaConfig;
use tintype_trainer::train::host::{Values, classes, vector};
use tintype_trainer::train::schedule::WarmUp;

use super::diffusion_transformers::check_all_gradients;
use super::stepper::Stepper;
use super::training::{PLAIN, betas, labels, number, plain_groups, values4};
use crate::check::{Checks, FORWARD, GRADIENT, LOSS, TABLE, Tolerance};
use crate::golden::Golden;

/// The network, all of whose parameters train, with its shape and the losses of a file's configuration.
fn parts(golden: &Golden, device: &Device) -> Result<(DitDh, DitDhConfig, DitDhLoss)> {
    let config = golden.config()?;
    let transport = &config["transport"];
    let settings = DitDhLoss {
        time_dist_type: serde_json::from_value(transport["time_dist_type"].clone())?,
        ..DitDhLoss::default()
    };
    let model = DitDhConfig {
        time_dist_shift_dim: Some(number(&transport["time_dist_shift_dim"])?),
        time_dist_shift_base: Some(number(&transport["time_dist_shift_base"])?),
        ..serde_json::from_value(config["model"].clone())?
    };
    let network = settings.trained(golden.load(model.init(device)?, device)?);
    Ok((network, model, settings))
}

/// The times before the shift of the samples of which a file has the draws.
fn times(golden: &Golden, prefix: &str, settings: &DitDhLoss) -> Result<Vec<f64>> {
    let uniforms = golden.values(&format!("{prefix}.time_uniforms"))?;
    Ok(uniforms.into_iter().map(|u| settings.time_dist_type.time(u)).collect())
}

/// The latents of those samples, and what is drawn for them.
fn batch(
    golden: &Golden,
    prefix: &str,
    model: &DitDhConfig,
    settings: &DitDhLoss,
) -> Result<(Values<4>, Draws)> {
    let input = |name: &str| format!("{prefix}.{name}");
    let uniforms = golden.values(&input("label_uniforms"))?;
    let (rate, null) = (model.class_dropout_prob, model.num_classes);
    let labels = labels(golden, &input("y"))?.into_iter().zip(uniforms);
    let labels: Vec<usize> = labels.map(|(label, u)| drop_class(label, u, rate, null)).collect();
    let (times, shift) = (times(golden, prefix, settings)?, model.shift());
    let draws = Draws {
        noise: values4(golden, &input("x0"))?,
        t: times.into_iter().map(|t| shift_time(t, shift) as f32).collect(),
        weight: 1.0 / labels.len() as f64,
        labels,
    };
    Ok((values4(golden, &input("x1"))?, draws))
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn loss(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let (network, model, settings) = parts(&golden, device)?;
    checks.values("out.t_unshifted", &times(&golden, "in", &settings)?, TABLE)?;
    let (latents, draws) = batch(&golden, "in", &model, &settings)?;
    let told: Vec<f64> = draws.labels.iter().map(|&label| label as f64).collect();
    checks.values("out.labels_dropped", &told, Tolerance::Exact)?;
    let t = vector(&draws.t, device);
    checks.tensor("out.t", &t, TABLE)?;
    // What the objective only sums.
    let (x1, x0) = (latents.tensor(device), draws.noise.clone().tensor(device));
    let (xt, target) = Interpolant::Linear.interpolate(x1.clone(), x0, t.clone());
    checks.tensor("out.xt", &xt, FORWARD)?;
    checks.tensor("out.target", &target, FORWARD)?;
    let y = classes(&draws.labels, device);
    let pred = network.forward_through(xt, t, y, &mut run_blocks);
    checks.tensor("out.pred", &pred, FORWARD)?;
    checks.tensor("out.loss_per_sample", &mean_squared_error(pred, target), LOSS)?;
    let loss = ditdh::loss(&network, x1, draws, PLAIN, device);
    checks.tensor("out.total", &loss.total, LOSS)?;
    let found = views(&loss.gradients(&network), &layout(&network));
    check_all_gradients(checks, &golden, &found, "out.grad.", GRADIENT)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn three_steps(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let (network, model, settings) = parts(&golden, device)?;
    let optim = &config["optim"];
    let optimizer = AdamWConfig {
        betas: betas(optim)?,
        eps: number(&optim["eps"])?,
        weight_decay: number(&optim["weight_decay"])?,
        max_grad_norm: optim["grad_clip"].as_f64(),
        ..schedule(&config["scheduler"], number(&config["steps_per_epoch"])?)?
    };
    let emas = [("ema", EmaConfig::Constant { decay: number(&optim["ema_decay"])? })];
    let mut stepper = Stepper::new(network, optimizer, &emas, plain_groups).with_key_biases();
    for (step, expected) in optim["lr"].as_array().context("no steps")?.iter().enumerate() {
        let (lr, expected) = (optimizer.lr_at(step as u64), number(expected)?);
        ensure!((lr - expected).abs() < 1e-12, "a learning rate of {lr}, not {expected}");
        let (latents, draws) = batch(&golden, &format!("in.step{step}"), &model, &settings)?;
        let latents = latents.tensor(device);
        let loss = ditdh::loss(&stepper.network, latents, draws, PLAIN, device);
        checks.tensor(&format!("out.step{step}.total"), &loss.total, LOSS)?;
        let norm = stepper.step_with(loss, lr)?;
        let name = format!("out.step{step}.grad_norm");
        checks.values(&name, &[norm], Tolerance::Relative(2e-5))?;
        stepper.check(checks, &golden, step)?;
    }
    Ok(())
}

/// The optimizer of a scheduler in epochs.
fn schedule(written: &Value, steps_per_epoch: f64) -> Result<AdamWConfig> {
    let steps = |key: &str| -> Result<u64> {
        Ok((number(&written[key])? * steps_per_epoch).round() as u64)
    };
    let from_zero = written["warmup_from_zero"].as_bool().context("no warmup_from_zero")?;
    Ok(AdamWConfig {
        warmup_steps: steps("warmup_epochs")?,
        // What the authors call zero is the first of the warm-up's steps.
        warmup_from: if from_zero { WarmUp::Step } else { WarmUp::Full },
        schedule: serde_json::from_value(written["type"].clone())?,
        decay_steps: Some(steps("decay_end_epoch")?),
        final_lr: Some(number(&written["final_lr"])?),
        ..AdamWConfig::new(number(&written["base_lr"])?, [0.9, 0.95])
    })
}

/// Compares the learning rates that a file expects, `out.lr_NAME_f64`.
///
/// # Errors
///
/// If the file lacks an entry. A value outside its tolerance is recorded in `checks`, not an error.
pub(super) fn learning_rates(golden: &Golden, checks: &mut Checks) -> Result<()> {
    let config = golden.config()?;
    let steps = golden.view("in.lr_steps")?.to_i64();
    for (name, written) in config["schedulers"].as_object().context("no schedulers")? {
        let optimizer = schedule(written, number(&config["steps_per_epoch"])?)?;
        let rates: Vec<f64> = steps.iter().map(|&step| optimizer.lr_at(step as u64)).collect();
        checks.values(&format!("out.lr_{name}_f64"), &rates, Tolerance::Absolute(1e-12))?;
    }
    Ok(())
}
