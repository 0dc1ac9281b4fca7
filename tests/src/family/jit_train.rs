//! JiT's training: losses, whole optimizer steps and learning rates, by the trainer's own functions.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::tensor::{Device, Tensor};
use tintype::diffusion::loss::mean_squared_error;
use tintype::model::jit::JitConfig;
use tintype::nn::block::run_blocks;
use tintype::weights::{layout, views};
use tintype_trainer::train::adamw::AdamWConfig;
use tintype_trainer::train::classes::drop_class;
use tintype_trainer::train::ema::EmaConfig;
use tintype_trainer::train::host::{classes, vector};
use tintype_trainer::train::jit::{self, Batch, JitLoss};
use tintype_trainer::train::schedule::WarmUp;

use super::diffusion_transformers::check_all_gradients;
use super::stepper::Stepper;
use super::training::{PLAIN, betas, labels, number, values4};
use crate::check::{Checks, FORWARD, GRADIENT, LOSS, TABLE, Tolerance};
use crate::golden::Golden;

/// The network and the losses of a file's configuration.
fn parts(config: &Value) -> Result<(JitConfig, JitLoss)> {
    let (mut model, diffusion) = (config["model"].clone(), &config["diffusion"]);
    for key in ["noise_scale", "t_eps"] {
        model[key] = diffusion[key].clone();
    }
    let settings = JitLoss {
        p_mean: number(&diffusion["P_mean"])?,
        p_std: number(&diffusion["P_std"])?,
        label_drop_prob: number(&diffusion["label_drop_prob"])?,
        ..JitLoss::default()
    };
    Ok((serde_json::from_value(model)?, settings))
}

/// The samples of which a file has the draws.
fn batch(golden: &Golden, prefix: &str, model: &JitConfig, settings: &JitLoss) -> Result<Batch> {
    let input = |name: &str| format!("{prefix}.{name}");
    let uniforms = golden.values(&input("label_uniforms"))?;
    let (rate, null) = (settings.label_drop_prob, model.num_classes);
    let labels = labels(golden, &input("y"))?.into_iter().zip(uniforms);
    let labels: Vec<usize> = labels.map(|(label, u)| drop_class(label, u, rate, null)).collect();
    let mut noise = values4(golden, &input("noise"))?;
    for e in &mut noise.values {
        *e *= model.noise_scale as f32;
    }
    let normals = golden.values(&input("time_normals"))?;
    Ok(Batch {
        images: values4(golden, &input("x"))?,
        noise,
        t: normals.into_iter().map(|normal| settings.time(normal) as f32).collect(),
        weight: 1.0 / labels.len() as f64,
        labels,
        dropout: None,
    })
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
    let (model, settings) = parts(&golden.config()?)?;
    let network = golden.load(model.init(device)?, device)?;
    let batch = batch(&golden, "in", &model, &settings)?;
    let told: Vec<f64> = batch.labels.iter().map(|&label| label as f64).collect();
    checks.values("out.labels_dropped", &told, Tolerance::Exact)?;
    let t = vector(&batch.t, device);
    checks.tensor("out.t", &t, TABLE)?;
    // What the objective only sums.
    let t4: Tensor<4> = t.clone().reshape([-1, 1, 1, 1]);
    let (x, e) = (batch.images.clone().tensor(device), batch.noise.clone().tensor(device));
    let z = x.clone() * t4.clone() + e * (-t4 + 1.0);
    checks.tensor("out.z", &z, FORWARD)?;
    let y = classes(&batch.labels, device);
    let x_pred = network.forward_through(z.clone(), t.clone(), y, &mut run_blocks);
    checks.tensor("out.x_pred", &x_pred, FORWARD)?;
    let v = network.velocity(z.clone(), x, t.clone());
    checks.tensor("out.v", &v, FORWARD)?;
    let v_pred = network.velocity(z, x_pred, t);
    checks.tensor("out.v_pred", &v_pred, FORWARD)?;
    checks.tensor("out.loss_per_sample", &mean_squared_error(v_pred, v), LOSS)?;
    let loss = jit::loss(&network, model.depth, batch, &settings, PLAIN, device);
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
    let (model, settings) = parts(&config)?;
    let network = golden.load(model.init(device)?, device)?;
    let optim = &config["optim"];
    let optimizer = AdamWConfig {
        betas: betas(optim)?,
        eps: number(&optim["eps"])?,
        weight_decay: number(&optim["weight_decay"])?,
        max_grad_norm: optim["grad_clip"].as_f64(),
        ..schedule(&config["schedule"])?
    };
    let average = |key: &str| -> Result<EmaConfig> {
        Ok(EmaConfig::Constant { decay: number(&optim[key])? })
    };
    let emas = [("ema1", average("ema_decay1")?), ("ema2", average("ema_decay2")?)];
    let mut stepper = Stepper::new(network, optimizer, &emas, jit::group).with_key_biases();
    for (step, epoch) in config["epoch_at_step"].as_array().context("no steps")?.iter().enumerate()
    {
        let lr = optimizer.lr_at(step_at(number(epoch)?));
        let expected = number(&optim["lr"][step])?;
        ensure!((lr - expected).abs() < 1e-12, "a learning rate of {lr}, not {expected}");
        let batch = batch(&golden, &format!("in.step{step}"), &model, &settings)?;
        let loss = jit::loss(&stepper.network, model.depth, batch, &settings, PLAIN, device);
        checks.tensor(&format!("out.step{step}.total"), &loss.total, LOSS)?;
        stepper.step_with(loss, lr)?;
        stepper.check(checks, &golden, step)?;
    }
    Ok(())
}

/// Steps of an epoch, so that the fractions of epochs in the files are whole steps.
const STEPS: f64 = 1000.0;

fn step_at(epoch: f64) -> u64 {
    (epoch * STEPS).round() as u64
}

/// The optimizer of a schedule in epochs.
fn schedule(written: &Value) -> Result<AdamWConfig> {
    Ok(AdamWConfig {
        warmup_steps: step_at(number(&written["warmup_epochs"])?),
        warmup_from: WarmUp::Zero,
        schedule: serde_json::from_value(written["lr_schedule"].clone())?,
        decay_steps: Some(step_at(number(&written["epochs"])?)),
        final_lr: Some(number(&written["min_lr"])?),
        ..AdamWConfig::new(number(&written["lr"])?, [0.9, 0.95])
    })
}

/// Compares the learning rates that a file expects, `out.lr_NAME_f64`.
///
/// # Errors
///
/// If the file lacks an entry. A value outside its tolerance is recorded in `checks`, not an error.
pub(super) fn learning_rates(golden: &Golden, checks: &mut Checks) -> Result<()> {
    let config = golden.config()?;
    let epochs = golden.values("in.epoch_f64")?;
    for (name, written) in config["schedules"].as_object().context("no schedules")? {
        let optimizer = schedule(written)?;
        let rates: Vec<f64> = epochs.iter().map(|&epoch| optimizer.lr_at(step_at(epoch))).collect();
        checks.values(&format!("out.lr_{name}_f64"), &rates, Tolerance::Absolute(1e-12))?;
    }
    Ok(())
}
