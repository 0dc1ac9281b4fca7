//! Whole optimizer steps, computed by the trainer's own objectives, optimizer and EMA.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::loss::mean_squared_error;
use tintype::model::hidit::{HiDiT, HiDiTConfig};
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::sit::SiTConfig;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{Flat, Which, flat, layout, load, snapshot, views};
use tintype_trainer::network::patchgan::PatchGanConfig;
use tintype_trainer::train::adamw::{AdamW, AdamWConfig, Group, guard};
use tintype_trainer::train::adversary::discriminator_pass;
use tintype_trainer::train::classes::drop_class;
use tintype_trainer::train::ema::EmaConfig;
use tintype_trainer::train::hdit::{self, HDiTLoss, density_context, noise_levels};
use tintype_trainer::train::hidit::{self, HiDiTLoss, Inputs};
use tintype_trainer::train::host::{Values, classes};
use tintype_trainer::train::lightningdit::{self, LightningDiTLoss};
use tintype_trainer::train::muon;
use tintype_trainer::train::objective::Compute;
use tintype_trainer::train::vae::{self, LinearProj, Networks, VaeLoss};

use super::hdit_model;
use super::stepper::{Stepper, get};
use crate::check::{Checks, FORWARD, LOSS, Tolerance};
use crate::golden::Golden;

pub(super) const PLAIN: Compute = Compute { precision: FloatDType::F32, recompute: false };
const GAN: Tolerance = Tolerance::Relative(1e-4);

pub(super) fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is not a number"))
}

pub(super) fn betas(optim: &Value) -> Result<[f64; 2]> {
    Ok([number(&optim["betas"][0])?, number(&optim["betas"][1])?])
}

/// The optimizer of a golden's `optim` section.
fn optimizer(optim: &Value) -> Result<(AdamWConfig, EmaConfig)> {
    Ok((
        AdamWConfig {
            eps: number(&optim["eps"])?,
            weight_decay: number(&optim["weight_decay"])?,
            max_grad_norm: optim["grad_clip"].as_f64(),
            ..AdamWConfig::new(number(&optim["lr"])?, betas(optim)?)
        },
        EmaConfig::Constant { decay: number(&optim["ema_decay"])? },
    ))
}

pub(super) fn plain_groups(_: &str) -> Group {
    Group::PLAIN
}

pub(super) fn values4(golden: &Golden, name: &str) -> Result<Values<4>> {
    let view = golden.view(name)?;
    let shape: [usize; 4] = view.shape.clone().try_into().ok().context("not four axes")?;
    Ok(Values::new(view.to_f32(), shape))
}

fn steps(golden: &Golden) -> usize {
    (0..).take_while(|s| golden.has(&format!("in.step{s}.t"))).count()
}

/// Steps of Muon, and of Adam beside it, on given gradients.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn muon(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let betas = [number(&config["adam_betas"][0])?, number(&config["adam_betas"][1])?];
    ensure!(number(&config["beta"])? == muon::BETA, "another momentum");
    let lr = number(&config["lr"])?;
    let settings = AdamWConfig {
        eps: number(&config["adam_eps"])?,
        weight_decay: number(&config["weight_decay"])?,
        muon: true,
        ..AdamWConfig::new(lr, betas)
    };
    let names =
        |key: &str| -> Result<Vec<String>> { Ok(serde_json::from_value(config[key].clone())?) };
    let mut matrices = BTreeMap::new();
    for name in names("muon")? {
        let shape = golden.view(&format!("in.param.{name}"))?.shape.clone();
        let shape: [usize; 2] = shape.try_into().ok().context("not a matrix")?;
        matrices.insert(name, shape);
    }
    let values = |name: &str| -> Result<Tensor<1>> {
        let values = golden.view(name)?.to_f32();
        Ok(Tensor::from_floats(values.as_slice(), device))
    };
    let all = [names("muon")?, names("adam")?].concat();
    let tensors = |prefix: &str| -> Result<Flat> {
        all.iter().map(|name| Ok((name.clone(), values(&format!("{prefix}.{name}"))?))).collect()
    };
    let mut optimizer = AdamW::new(settings, plain_groups).with_matrices(matrices);
    let mut parameters = tensors("in.param")?;
    for step in 0..number(&config["steps"])? as usize {
        let gradients = tensors(&format!("in.step{step}.grad"))?;
        let free = guard(&gradients, None, None);
        parameters = optimizer.update(parameters, gradients, &free, &mut [], lr);
        for (name, parameter) in &parameters {
            let label = format!("out.step{step}.param.{name}");
            let now: Vec<f64> = parameter.to_data().iter::<f64>().collect();
            checks.values(&label, &now, Tolerance::RelativeL2(1e-6))?;
            let before = golden.values(&format!("in.param.{name}"))?;
            let moved =
                |v: &[f64]| -> Vec<f64> { v.iter().zip(&before).map(|(a, b)| a - b).collect() };
            let expected = moved(&golden.values(&label)?);
            let change = Tolerance::RelativeL2(1e-4);
            checks.against(&format!("{label} (change)"), &moved(&now), &expected, change)?;
        }
    }
    Ok(())
}

/// Stage 1 of Hi-DiT, whose pixel parts rest, is REPA-E's training of a SiT.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn sit(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let mut golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let sit: SiTConfig = serde_json::from_value(config["model"].clone())?;
    let grid = sit.input_size / sit.patch_size;
    let model = HiDiTConfig { sit, image: 4 * grid, pixel_patch: 4, tau: 0.3, t_min: 0.05 };
    let network = model.init(device)?;
    golden.weights.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
    for (name, view) in snapshot(&network) {
        if name.starts_with("pixel_") {
            golden.weights.tensors.insert(name, view);
        }
    }
    let network: HiDiT = golden.load(network, device)?;
    let (adamw, ema) = optimizer(&config["optim"])?;
    let mut stepper = Stepper::new(network, adamw, &[("ema", ema)], plain_groups);
    let settings =
        HiDiTLoss { repa_weight: number(&config["proj_coeff"])?, ..HiDiTLoss::default() };
    for step in 0..steps(&golden) {
        let input = |name: &str| format!("in.step{step}.{name}");
        let output = |name: &str| format!("out.step{step}.{name}");
        let moments = golden.tensor::<4>(&input("moments_mean_std"), device)?;
        let c = moments.dims()[1] / 2;
        let eps = golden.tensor::<4>(&input("posterior_eps"), device)?;
        let latents = moments.clone().narrow(1, 0, c) + moments.narrow(1, c, c) * eps;
        checks.tensor(&output("latent"), &latents, FORWARD)?;
        let noise = golden.tensor::<4>(&input("noise"), device)?;
        let t = golden.tensor::<1>(&input("t"), device)?;
        let labels = labels(&golden, &input("y"))?;
        // The loss of each sample, which the objective only sums.
        let network = &stepper.network;
        let clean = network.sit.normalize(latents);
        let (x_t, target) =
            Interpolant::Linear.interpolate(clean.clone(), noise.clone(), t.clone());
        let v = network.forward_latent(x_t, t.clone(), classes(&labels, device));
        checks.tensor(&output("denoising_loss"), &mean_squared_error(v, target), LOSS)?;
        let inputs = Inputs {
            weight: 1.0 / labels.len() as f64,
            clean,
            noise,
            t,
            labels,
            pixels: None,
            teacher: teachers(&golden, &input("zs"), device)?,
        };
        let loss = hidit::loss(network, inputs, &settings, PLAIN);
        checks.tensor(&output("total"), &loss.total, LOSS)?;
        let repa = loss.terms.iter().find(|(n, _)| *n == "repa").context("no repa")?.1.clone();
        checks.tensor(&output("proj_loss"), &repa, Tolerance::Absolute(1e-6))?;
        let norm = stepper.step(loss)?;
        checks.values(&output("grad_norm"), &[norm], Tolerance::Relative(2e-5))?;
        stepper.check(checks, &golden, step)?;
    }
    Ok(())
}

/// The features of one teacher, `zs`, or of several, `zs.0`, `zs.1`, …
fn teachers(golden: &Golden, name: &str, device: &Device) -> Result<Vec<Tensor<3>>> {
    if golden.has(name) {
        return Ok(vec![golden.tensor(name, device)?]);
    }
    let several = (0..).map(|i| format!("{name}.{i}")).take_while(|n| golden.has(n));
    several.map(|n| golden.tensor(&n, device)).collect()
}

pub(super) fn labels(golden: &Golden, name: &str) -> Result<Vec<usize>> {
    Ok(golden.view(name)?.to_i64().iter().map(|&l| l as usize).collect())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn lightningdit(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let model: LightningDiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let (adamw, ema) = optimizer(&config["optim"])?;
    let mut stepper = Stepper::new(network, adamw, &[("ema", ema)], plain_groups);
    for step in 0..steps(&golden) {
        let input = |name: &str| format!("in.step{step}.{name}");
        let labels = labels(&golden, &input("y"))?;
        let batch = lightningdit::Batch {
            data: values4(&golden, &input("x1"))?,
            noise: values4(&golden, &input("x0"))?,
            t: golden.view(&input("t"))?.to_f32(),
            weight: 1.0 / labels.len() as f64,
            labels,
        };
        let settings = LightningDiTLoss::default();
        let loss = lightningdit::loss(&stepper.network, batch, &settings, PLAIN, device);
        checks.tensor(&format!("out.step{step}.total"), &loss.total, LOSS)?;
        let norm = stepper.step(loss)?;
        let name = format!("out.step{step}.grad_norm");
        if checks.wants(&name) {
            checks.values(&name, &[norm], Tolerance::Relative(2e-5))?;
        }
        stepper.check(checks, &golden, step)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn hdit(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let written = golden.config()?;
    let resolved = golden.json("config_resolved")?;
    let model = hdit_model::config(&golden)?;
    let network = golden.load(model.init(device)?, device)?;
    let optim = &resolved["optimizer"];
    let adamw = AdamWConfig {
        eps: number(&optim["eps"])?,
        weight_decay: number(&optim["weight_decay"])?,
        max_grad_norm: Some(1.0),
        ..AdamWConfig::new(number(&optim["lr"])?, betas(optim)?)
    };
    let schedule = &resolved["ema_sched"];
    let ema = EmaConfig::Inverse {
        power: number(&schedule["power"])?,
        max_value: number(&schedule["max_value"])?,
    };
    check_groups(&golden, &network)?;
    let mut settings = HDiTLoss {
        sigma_sample_density: serde_json::from_value(
            written["model"]["sigma_sample_density"].clone(),
        )?,
        loss_weighting: hdit_model::weighting(&resolved)?,
        cond_dropout_rate: number(&resolved["dataset"]["cond_dropout_rate"])?,
        ..HDiTLoss::default()
    };
    settings.loss_config = serde_json::from_value(resolved["model"]["loss_config"].clone())?;
    settings.loss_scales = number(&resolved["model"]["loss_scales"])? as usize;
    let mut stepper = Stepper::new(network, adamw, &[("ema", ema)], hdit::group);
    let (count, batch) = (golden.view("in.u")?.shape[0], golden.view("in.u")?.shape[1]);
    let at = |name: &str, step: usize| -> Result<(Vec<f32>, Vec<usize>)> {
        let view = golden.view(name)?;
        let len: usize = view.shape[1..].iter().product();
        Ok((view.row_f32(step, len), view.shape[1..].to_vec()))
    };
    let (mut sigmas, mut labels) = (Vec::new(), Vec::new());
    let (mut losses, mut norms, mut decays) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..count {
        let uniform: Vec<f64> = at("in.u", step)?.0.iter().map(|&u| u as f64).collect();
        let sigma = noise_levels(settings.sigma_sample_density, &uniform, density_context(&model));
        let classes: Vec<usize> = if model.num_classes > 0 {
            let raw = golden.view("in.class_raw")?.to_i64();
            let drop = at("in.class_drop_u", step)?.0;
            let one = |i: usize| {
                let raw = raw[step * batch + i] as usize;
                let rate = settings.cond_dropout_rate;
                drop_class(raw, drop[i] as f64, rate, model.num_classes)
            };
            (0..batch).map(one).collect()
        } else {
            Vec::new()
        };
        let image = |name: &str| -> Result<Values<4>> {
            let (values, shape) = at(name, step)?;
            Ok(Values::new(values, shape.try_into().ok().context("not images")?))
        };
        let aug = match golden.has("in.aug_cond") {
            true => at("in.aug_cond", step)?.0,
            false => vec![0.0; 9 * batch],
        };
        let input = hdit::Batch {
            images: image("in.x")?,
            noise: image("in.noise")?,
            sigma: sigma.iter().map(|&s| s as f32).collect(),
            augmentation: Values::new(aug, [batch, 9]),
            labels: (!classes.is_empty()).then(|| classes.clone()),
            weight: 1.0 / batch as f64,
            dropout: None, // the reference ran its steps in evaluation mode
        };
        sigmas.extend(sigma);
        labels.extend(classes.iter().map(|&c| c as f64));
        let sigma_data = model.sigma_data;
        let loss = hdit::loss(&stepper.network, sigma_data, input, &settings, PLAIN, device);
        losses.extend(loss.total.to_data().iter::<f64>());
        decays.push(ema.decay(stepper.emas[0].updates, batch));
        norms.push(stepper.step(loss)?);
    }
    checks.values("out.sigma", &sigmas, Tolerance::Stated)?;
    if checks.wants("out.class_cond") {
        checks.values("out.class_cond", &labels, Tolerance::Exact)?;
    }
    checks.values("out.loss", &losses, Tolerance::Stated)?;
    checks.values("out.grad_norm", &norms, Tolerance::Stated)?;
    checks.values("out.ema_decay", &decays, Tolerance::Stated)?;
    let (now, ema) =
        (snapshot(&stepper.network), views(&stepper.emas[0].values, &layout(&stepper.network)));
    let names: Vec<String> = golden.outputs().cloned().collect();
    for name in names {
        if let Some(parameter) = name.strip_prefix("out.final.") {
            checks.values(&name, &get(&now, parameter)?, Tolerance::Stated)?;
        } else if let Some(parameter) = name.strip_prefix("out.ema.") {
            checks.values(&name, &get(&ema, parameter)?, Tolerance::Stated)?;
        }
    }
    Ok(())
}

/// The parameter groups are those that the file lists.
fn check_groups<M: Module>(golden: &Golden, network: &M) -> Result<()> {
    let groups = golden.json("extra")?["param_groups"].clone();
    let parameters = flat(network, Which::Trainable);
    let mut listed = 0;
    for (group, lr_scale, decay) in [
        ("wd", 1.0, true),
        ("no_wd", 1.0, false),
        ("mapping_wd", 1.0 / 3.0, true),
        ("mapping_no_wd", 1.0 / 3.0, false),
    ] {
        for name in groups[group].as_array().context("a list")? {
            let name = name.as_str().context("a name")?;
            ensure!(hdit::group(name) == Group { lr_scale, decay }, "{name} is not in {group}");
            ensure!(parameters.contains_key(name), "{name} does not train");
            listed += 1;
        }
    }
    ensure!(listed == parameters.len(), "{listed} of {} parameters", parameters.len());
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn vavae(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let mut golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let model: VaeConfig = {
        let mut section = config["model"].clone();
        section["z_channels"] = section["embed_dim"].clone();
        serde_json::from_value(section)?
    };
    let keep = |name: &String| !name.ends_with("num_batches_tracked") && name != "loss.logvar";
    golden.weights.tensors.retain(|name, _| keep(name));
    let whole = golden.weights.clone();
    let mut part = |prefixes: &[&str], strip: &str| {
        golden.weights.tensors = whole
            .tensors
            .iter()
            .filter(|(name, _)| prefixes.iter().any(|p| name.starts_with(p)))
            .map(|(name, view)| (name.trim_start_matches(strip).to_string(), view.clone()))
            .collect();
        golden.weights.clone()
    };
    let (encoder, decoder) =
        (part(&["encoder.", "quant_conv."], ""), part(&["decoder.", "post_"], ""));
    let proj = part(&["linear_proj."], "");
    let discriminator = part(&["loss.discriminator."], "loss.discriminator.");
    let gan = PatchGanConfig {
        ndf: number(&config["disc"]["ndf"])? as usize,
        n_layers: number(&config["disc"]["n_layers"])? as usize,
        use_actnorm: false,
    };
    let shape = &whole.tensors.get("linear_proj.weight").context("no projection")?.shape;
    let f32 = FloatDType::F32;
    let linear = LinearProj::new(shape[1], shape[0], device);
    let networks = Networks {
        encoder: load(model.init_encoder(device)?, &encoder, f32, device)?.network,
        decoder: load(model.init_decoder(device)?, &decoder, f32, device)?.network,
        proj: Some(load(linear, &proj, f32, device)?.network),
    };
    let discriminator = load(gan.init(device), &discriminator, f32, device)?.network;
    let golden = Golden::open(path)?;
    let settings = &config["loss"];
    let loss = VaeLoss {
        disc_start: number(&settings["disc_start"])? as u64,
        disc_weight: number(&settings["disc_weight"])?,
        kl_weight: number(&settings["kl_weight"])?,
        perceptual_weight: number(&settings["perceptual_weight"])?,
        vf_weight: number(&settings["vf_weight"])?,
        adaptive_vf: settings["adaptive_vf"].as_bool().unwrap_or(true),
        logvar: settings["logvar"].as_f64().unwrap_or(0.0),
        distmat_margin: number(&settings["distmat_margin"])?,
        cos_margin: number(&settings["cos_margin"])?,
        ..VaeLoss::default()
    };
    let images = golden.tensor::<4>("in.image", device)?;
    // The file's stand-in for LPIPS.
    let stand_in = |a: Tensor<4>, b: Tensor<4>| (a - b).square().mean_dims(&[1, 2, 3]);
    let inputs = vae::Inputs {
        images: images.clone(),
        eps: golden.tensor("in.eps", device)?,
        features: Some(golden.tensor("in.aux_feature", device)?),
        perceptual: Some(&stand_in),
    };
    let step = number(&config["global_step_generator"])? as u64;
    let pass = vae::generator_pass(&networks, &discriminator, inputs, &loss, step);
    let value = |name: &str| -> Result<f64> {
        let (_, v) = pass.values.iter().find(|(n, _)| *n == name).context(name.to_string())?;
        Ok(v.to_data().iter::<f64>().next().unwrap_or(f64::NAN))
    };
    checks.tensor("out.z", &pass.z, FORWARD)?;
    checks.tensor("out.z_projected", pass.projected.as_ref().context("no vf")?, FORWARD)?;
    checks.tensor("out.reconstruction", &pass.reconstruction, FORWARD)?;
    let pixels: usize = images.dims().iter().product();
    let weighted = value("nll")? * images.dims()[0] as f64 / pixels as f64;
    let mean = (weighted - loss.logvar) * loss.logvar.exp();
    let near = Tolerance::Relative(1e-5);
    checks.values("out.rec_loss", &[mean], near)?;
    checks.values("out.nll_loss", &[value("nll")?], near)?;
    checks.values("out.kl_loss", &[value("kl")?], near)?;
    checks.values("out.g_loss", &[value("g")?], GAN)?;
    checks.values("out.d_weight", &[value("d_weight")?], GAN)?;
    checks.values("out.vf_loss", &[value("vf")?], near)?;
    checks.values("out.vf_weight", &[value("vf_weight")?], GAN)?;
    checks.values("out.total_loss", &[value("loss")?], GAN)?;
    checks.values("out.logvar", &[loss.logvar], Tolerance::Relative(1e-6))?; // never trained
    let factor_at = |key: &str| -> Result<f64> {
        let count = number(&config[key])? as u64;
        Ok(if count >= loss.disc_start { 1.0 } else { 0.0 })
    };
    // That of the generator's pass; the discriminator's, a step later, may lie behind the start.
    let generators = factor_at("global_step_generator")?;
    checks.values("out.disc_factor", &[generators], Tolerance::Exact)?;
    let factor = factor_at("global_step_discriminator")?;
    let second = discriminator_pass(&pass.discriminator, images, pass.reconstruction);
    let scalar = |x: &Tensor<1>| x.to_data().iter::<f64>().next().unwrap_or(f64::NAN);
    checks.values("out.logits_real", &[scalar(&second.logits[0])], GAN)?;
    checks.values("out.logits_fake", &[scalar(&second.logits[1])], GAN)?;
    checks.values("out.disc_loss", &[factor * scalar(&second.loss)], GAN)?;
    let after = snapshot(&second.discriminator);
    let names: Vec<String> = golden.outputs().cloned().collect();
    for name in names {
        let close = Tolerance::RelativeL2(1e-4);
        if let Some(layer) = name.strip_prefix("out.disc_running_mean_after.") {
            checks.values(&name, &get(&after, &format!("{layer}.running_mean"))?, close)?;
        } else if let Some(parameter) = name.strip_prefix("out.grad.loss.discriminator.") {
            let gradient = second.gradients.get(parameter).context(name.clone())?;
            let values: Vec<f64> = gradient.to_data().iter::<f64>().map(|v| v * factor).collect();
            checks.values(&name, &values, close)?;
        } else if let Some(parameter) = name.strip_prefix("out.grad.") {
            let gradient = pass.gradients.get(parameter).context(name.clone())?;
            let values: Vec<f64> = gradient.to_data().iter::<f64>().collect();
            checks.values(&name, &values, close)?;
        }
    }
    // No gradient is left that the optimizer would not see.
    for name in flat(&networks.encoder, Which::Trainable).into_keys() {
        ensure!(pass.gradients.contains_key(&name), "{name} has no gradient");
    }
    for name in flat(&networks.decoder, Which::Trainable).into_keys() {
        ensure!(pass.gradients.contains_key(&name), "{name} has no gradient");
    }
    Ok(())
}
