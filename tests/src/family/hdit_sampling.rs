//! Karras samplers on a closed-form denoiser and on a small network; schedules and densities.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::guidance::Guidance;
use tintype::diffusion::karras::{
    DensityContext, Preconditioner, SigmaDensity, ema_decay, stratified,
};
use tintype::model::hdit::Conditions;
use tintype::sampler::dpm_solver::{self, Adaptive, AdaptiveInfo};
use tintype::sampler::karras::{
    self, Churn, SdeSolver, Stochastic, ancestral_step, lms_coefficient,
};
use tintype::sampler::{Model, State, Step, Stop, schedules};

use super::hdit_model::{both, config};
use super::ode_sde::to_state;
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

const STATED: Tolerance = Tolerance::Stated;

type Denoise<'a> = Box<dyn FnMut(State, f64) -> State + 'a>;

/// A denoiser with recorded noise that remembers the start of every step.
struct Recorder<'a> {
    denoise: Denoise<'a>,
    noise: Box<dyn FnMut(usize) -> State + 'a>,
    xs: Vec<State>,
    denoised: Vec<State>,
}

impl<'a> Recorder<'a> {
    fn new(denoise: Denoise<'a>, noise: Box<dyn FnMut(usize) -> State + 'a>) -> Self {
        Self { denoise, noise, xs: Vec::new(), denoised: Vec::new() }
    }
}

impl Model for Recorder<'_> {
    async fn predict(&mut self, x: State, sigma: f64, _: f64) -> Result<State, Stop> {
        Ok((self.denoise)(x, sigma))
    }
    fn noise(&mut self, draw: usize) -> State {
        (self.noise)(draw)
    }
    async fn on_step(&mut self, step: Step<'_>) -> Result<(), Stop> {
        self.xs.push(step.state.clone());
        self.denoised.push(step.clean.clone());
        Ok(())
    }
}

/// Runs a sampler by its name in the file.
fn sample(
    recorder: &mut Recorder<'_>,
    x: State,
    sigmas: &[f64],
    case: &Value,
) -> Result<(State, Option<AdaptiveInfo>)> {
    let args = &case["args"];
    let number = |key: &str, default: f64| args[key].as_f64().unwrap_or(default);
    let churn = Churn {
        s_churn: number("s_churn", 0.0),
        s_tmin: number("s_tmin", 0.0),
        s_tmax: number("s_tmax", f64::INFINITY),
        s_noise: number("s_noise", 1.0),
    };
    let name = case["sampler"].as_str().context("no sampler")?;
    let solver_default =
        if name.starts_with("dpm_fast") || name == "dpm_adaptive" { 0.0 } else { 1.0 };
    let noise = Stochastic { eta: number("eta", solver_default), s_noise: number("s_noise", 1.0) };
    let (min, max) = (sigmas[sigmas.len() - 2], sigmas[0]);
    let run = async {
        Ok::<_, Stop>(match name {
            "euler" => karras::euler(recorder, x, sigmas, churn).await?,
            "heun" => karras::heun(recorder, x, sigmas, churn).await?,
            "dpm_2" => karras::dpm_2(recorder, x, sigmas, churn).await?,
            "euler_ancestral" => karras::euler_ancestral(recorder, x, sigmas, noise).await?,
            "dpm_2_ancestral" => karras::dpm_2_ancestral(recorder, x, sigmas, noise).await?,
            "lms" => karras::lms(recorder, x, sigmas, number("order", 4.0) as usize).await?,
            "dpmpp_2s_ancestral" => karras::dpmpp_2s_ancestral(recorder, x, sigmas, noise).await?,
            "dpmpp_sde" => karras::dpmpp_sde(recorder, x, sigmas, noise).await?,
            "dpmpp_2m" => karras::dpmpp_2m(recorder, x, sigmas).await?,
            "dpmpp_2m_sde" => {
                let solver = match args["solver_type"].as_str() {
                    Some("heun") => SdeSolver::Heun,
                    _ => SdeSolver::Midpoint,
                };
                karras::dpmpp_2m_sde(recorder, x, sigmas, noise, solver).await?
            }
            "dpmpp_3m_sde" => karras::dpmpp_3m_sde(recorder, x, sigmas, noise).await?,
            "dpm_fast" => {
                let nfe = case["nfe"].as_u64().unwrap_or(12) as usize;
                dpm_solver::dpm_fast(recorder, x, min, max, nfe, noise).await?
            }
            "dpm_adaptive" => {
                let default = Adaptive::default();
                let options = Adaptive {
                    order: number("order", 3.0) as usize,
                    rtol: number("rtol", default.rtol),
                    atol: number("atol", default.atol),
                    h_init: number("h_init", default.h_init),
                    pcoeff: number("pcoeff", default.pcoeff),
                    icoeff: number("icoeff", default.icoeff),
                    dcoeff: number("dcoeff", default.dcoeff),
                    accept_safety: number("accept_safety", default.accept_safety),
                    noise,
                };
                let (x, info) = dpm_solver::dpm_adaptive(recorder, x, min, max, options).await?;
                return Ok((x, Some(info)));
            }
            other => return Err(Stop::Device(format!("{other} is no sampler"))),
        })
        .map(|x| (x, None))
    };
    Ok(pollster::block_on(run)?)
}

/// Compares what a run left behind.
fn check(checks: &mut Checks, name: &str, end: &State, recorder: &Recorder<'_>) -> Result<()> {
    checks.tensor(&format!("out.{name}.final"), end, STATED)?;
    for (key, states) in [("xs", &recorder.xs), ("denoised", &recorder.denoised)] {
        let key = format!("out.{name}.{key}");
        if checks.wants(&key) {
            checks.tensor::<5>(&key, &Tensor::stack(states.clone(), 0), STATED)?;
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
///
/// # Panics
///
/// If the file has too few draws of noise.
pub fn toy(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let extra = golden.json("extra")?;
    let toy = |key: &str| extra["toy"][key].as_f64().context("toy");
    let (s, mu) = (toy("s")?, toy("mu")?);
    let sigmas = golden.values("in.sigmas")?;
    for (name, case) in extra["samplers"].as_object().into_iter().flatten() {
        let denoise = Box::new(move |x: State, sigma: f64| {
            let v = s * s + sigma * sigma;
            let pull = (x.clone() * (mu / v)).tanh() * (sigma * sigma * mu);
            (x * (s * s) + pull) / v
        });
        let noise = Box::new(|draw| {
            golden.state_at("in.noise", draw, device).expect("a draw for every step")
        });
        let mut recorder = Recorder::new(denoise, noise);
        let x = golden.state("in.x", device)?;
        let (end, info) = sample(&mut recorder, x, &sigmas, case)?;
        check(checks, name, &end, &recorder)?;
        if let Some(info) = info {
            let count = |key: &str| case["info"][key].as_u64().unwrap_or_default() as f64;
            let expected = [count("steps"), count("nfe"), count("n_accept"), count("n_reject")];
            let actual = [info.steps, info.nfe, info.accepted, info.rejected];
            let actual = actual.map(|n| n as f64);
            checks.against(&format!("{name} info"), &actual, &expected, Tolerance::Exact)?;
        }
    }
    if golden.has("out.ancestral_step") {
        let mut values = Vec::new();
        for eta in [1.0, 0.5] {
            for pair in sigmas.windows(2) {
                let (down, up) = ancestral_step(pair[0], pair[1], eta);
                values.extend([down, up]);
            }
        }
        checks.values("out.ancestral_step", &values, STATED)?;
    }
    if golden.has("out.lms_coeffs_f64") {
        let shape = golden.view("out.lms_coeffs_f64")?.shape.clone();
        let mut values = vec![0.0; shape[0] * shape[1]];
        for i in 0..shape[0] {
            let order = shape[1].min(i + 1);
            for j in 0..order {
                values[i * shape[1] + j] = lms_coefficient(order, &sigmas, i, j);
            }
        }
        checks.values("out.lms_coeffs_f64", &values, STATED)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
///
/// # Panics
///
/// If the file has too few draws of noise, or its network has no classes.
pub fn model(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = config(&golden)?;
    let network = golden.load(config.init(device)?, device)?;
    let preconditioner = Preconditioner { sigma_data: config.sigma_data };
    let sigmas = golden.values("in.sigmas")?;
    let classes = match golden.has("in.class_cond") {
        true => Some(golden.ints("in.class_cond", device)?),
        false => None,
    };
    let extra = golden.json("extra")?;
    for (name, case) in extra["samplers"].as_object().into_iter().flatten() {
        let scale = case["cfg_scale"].as_f64().unwrap_or(1.0);
        let denoise = Box::new(|x: State, sigma: f64| {
            let x = x.cast(FloatDType::F32);
            let levels = Tensor::<1>::full([x.dims()[0]], sigma, device);
            let out = match (scale == 1.0, &classes) {
                (false, Some(class)) => {
                    let (cond, uncond) = both(&network, &preconditioner, x, levels, class.clone())
                        .expect("the network has classes");
                    Guidance { high: f64::MAX, ..Guidance::new(scale) }.combine(cond, uncond)
                }
                (_, class) => {
                    let conditions = Conditions { class: class.clone(), ..Default::default() };
                    preconditioner
                        .denoise(x, levels, |x, sigma| network.forward(x, sigma, conditions))
                }
            };
            to_state(out)
        });
        let noise = Box::new(|draw| {
            golden.state_at("in.noise", draw, device).expect("a draw for every step")
        });
        let mut recorder = Recorder::new(denoise, noise);
        let x = golden.state("in.z", device)? * sigmas[0];
        let (end, _) = sample(&mut recorder, x, &sigmas, case)?;
        check(checks, name, &end, &recorder)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn schedules(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let extra = golden.json("extra")?;
    let u = golden.values("in.u")?;
    for (name, case) in extra["densities"].as_object().into_iter().flatten() {
        let key = format!("out.density.{name}");
        if case.get("scale_1").is_some() {
            let mut tagged = case.clone();
            tagged["type"] = Value::String("split-lognormal".into());
            let density: SigmaDensity = serde_json::from_value(tagged)?;
            let (us, normals) = (golden.values("in.split.u")?, golden.values("in.split.normal")?);
            let context = DensityContext {
                sigma_data: 1.0,
                sigma_min: 0.01,
                sigma_max: 80.0,
                image_side: 32,
            };
            let values: Vec<f64> =
                us.iter().zip(&normals).map(|(u, n)| density.sample(*u, *n, context)).collect();
            checks.values(&key, &values, STATED)?;
            continue;
        }
        let density: SigmaDensity = serde_json::from_value(case["sigma_sample_density"].clone())?;
        let number = |key: &str| case[key].as_f64().with_context(|| format!("{key} is missing"));
        let side = |i: usize| case["input_size"][i].as_u64().unwrap_or_default() as usize;
        let context = DensityContext {
            sigma_data: number("sigma_data")?,
            sigma_min: number("sigma_min")?,
            sigma_max: number("sigma_max")?,
            image_side: side(0).max(side(1)),
        };
        let values: Vec<f64> = u.iter().map(|u| density.sample(*u, 0.0, context)).collect();
        checks.values(&key, &values, STATED)?;
        let exact = format!("{key}_f64");
        if golden.has(&exact) {
            checks.values(&exact, &values, STATED)?;
        }
    }
    for (name, case) in extra["noise_schedules"].as_object().into_iter().flatten() {
        let number = |key: &str, default: f64| case[key].as_f64().unwrap_or(default);
        let n = number("n", 0.0) as usize;
        let (min, max) = (number("sigma_min", 0.01), number("sigma_max", 80.0));
        let sigmas = match case["type"].as_str() {
            Some("karras") => schedules::karras(n, min, max, number("rho", 7.0)),
            Some("exponential") => schedules::exponential(n, min, max),
            Some("polyexponential") => schedules::polyexponential(n, min, max, number("rho", 1.0)),
            Some("vp") => schedules::vp(
                n,
                number("beta_d", 19.9),
                number("beta_min", 0.1),
                number("eps_s", 1e-3),
            ),
            other => bail!("{other:?} is no schedule"),
        };
        checks.values(&format!("out.sigmas.{name}"), &sigmas, STATED)?;
    }
    for (name, case) in extra["ema"].as_object().into_iter().flatten() {
        let number = |key: &str| case[key].as_f64().unwrap_or_default();
        let steps = golden.view("in.ema.steps")?.to_i64();
        let decays: Vec<f64> = steps
            .iter()
            .map(|&n| ema_decay(n as u64, number("power"), number("max_value")))
            .collect();
        checks.values(&format!("out.ema.{name}_f64"), &decays, STATED)?;
    }
    for (name, case) in extra["stratified"].as_object().into_iter().flatten() {
        let number = |key: &str| case[key].as_u64().unwrap_or_default() as usize;
        let uniform = golden.values(&format!("in.stratified.{name}"))?;
        let quantiles = stratified(&uniform, number("group"), number("groups"));
        checks.values(&format!("out.stratified.{name}"), &quantiles, STATED)?;
    }
    Ok(())
}
