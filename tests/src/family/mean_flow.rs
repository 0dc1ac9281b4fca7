//! iMF and pMF: forward passes, samples, checkpoints and losses.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor};
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::mean_flow::{
    adaptive, compound_velocity, guided_velocity, omega_at, squared_error,
};
use tintype::image::{Rounding, to_rgb};
use tintype::model::imf::{Imf, ImfConfig};
use tintype::model::meanflow::{Condition, Embeddings, MeanFlow, Trace};
use tintype::model::pmf::{Pmf, PmfConfig, T_FLOOR};
use tintype::model::{Network, detect};
use tintype::sampler::mean_flow::{MeanFlowModel, sample as sample_steps, times};
use tintype::sampler::{State, Stop};
use tintype::weights::{gradients, layout, open, views};
use tintype_trainer::train::host::Values;
use tintype_trainer::train::meanflow::batch::Batch;
use tintype_trainer::train::meanflow::draws::Draw;
use tintype_trainer::train::meanflow::loss::pass;
use tintype_trainer::train::objective::Compute;

use super::diffusion_transformers::check_gradients;
use super::ode_sde::to_state;
use crate::check::{Checks, FORWARD, TABLE, Tolerance};
use crate::golden::Golden;

/// Step of the central differences, and how close they come.
const STEP: f64 = 1e-3;
const DIFFERENCES: Tolerance = Tolerance::RelativeL2(5e-4);
const GRADIENT: Tolerance = Tolerance::RelativeL2(5e-5);

/// A network of either kind.
#[allow(clippy::large_enum_variant)] // there is one at a time
enum Net {
    Imf(Imf),
    Pmf(Pmf),
}

/// The `model` section of a file's configuration, with what stands beside it.
fn model(config: &Value) -> Value {
    let mut model = config["model"].clone();
    for key in ["v_heads", "noise_scale"] {
        if !config[key].is_null() {
            model[key] = config[key].clone();
        }
    }
    model
}

impl Net {
    fn load(golden: &Golden, device: &Device) -> Result<Self> {
        let model = model(&golden.config()?);
        Ok(match model["pca_channels"].is_null() {
            true => {
                let config: ImfConfig = serde_json::from_value(model)?;
                Self::Imf(golden.load_part(config.init(device)?, "net.", device)?)
            }
            false => {
                let config: PmfConfig = serde_json::from_value(model)?;
                Self::Pmf(golden.load_part(config.init(device)?, "net.", device)?)
            }
        })
    }

    fn mean_flow(&self) -> &dyn MeanFlow {
        match self {
            Self::Imf(network) => network,
            Self::Pmf(network) => network,
        }
    }

    fn v(&self, z: Tensor<4>, t: Tensor<1>, c: Condition) -> Result<Tensor<4>> {
        self.mean_flow().v(z, t, c).context("the network has no head of v")
    }

    fn trace(&self, z: Tensor<4>, c: Condition) -> (Embeddings, Tensor<3>, Tensor<3>, Trace) {
        match self {
            Self::Imf(network) => network.trace(z, c),
            Self::Pmf(network) => network.trace(z, c),
        }
    }

    /// Cosines and sines of the tokens that are rotated, one value a pair: `[n or N, d/2]`.
    fn rope(&self, tokens: usize, patches: usize, device: &Device) -> [Tensor<2>; 2] {
        let (table, first) = match self {
            Self::Imf(network) => (network.rope(tokens, device), 0),
            Self::Pmf(network) => (network.rope(device), tokens - patches),
        };
        [table.cos, table.sin].map(|table| {
            let [n, d] = table.dims();
            let rotated: Tensor<2> = table.narrow(0, first, n - first);
            let pairs: Tensor<3> = rotated.reshape([n - first, d / 2, 2]);
            pairs.narrow(2, 0, 1).reshape([n - first, d / 2])
        })
    }
}

/// The condition in a file.
fn condition(golden: &Golden, device: &Device) -> Result<Condition> {
    let input = |name: &str| golden.tensor::<1>(&format!("in.{name}"), device);
    Ok(Condition {
        h: input("h")?,
        omega: input("omega")?,
        t_min: input("t_min")?,
        t_max: input("t_max")?,
        y: golden.ints("in.y", device)?,
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
    let network = Net::load(&golden, device)?;
    let (z, t) = (golden.tensor::<4>("in.x", device)?, golden.tensor::<1>("in.t", device)?);
    let condition = condition(&golden, device)?;
    let (e, patches, sequence, trace) = network.trace(z.clone(), condition.clone());
    for (name, embedding) in
        [("h", e.h), ("omega", e.omega), ("t_min", e.t_min), ("t_max", e.t_max), ("y", e.y)]
    {
        checks.tensor(&format!("out.{name}_emb"), &embedding, FORWARD)?;
    }
    let [cos, sin] = network.rope(sequence.dims()[1], patches.dims()[1], device);
    checks.tensor("out.rope_cos", &cos, TABLE)?;
    checks.tensor("out.rope_sin", &sin, TABLE)?;
    checks.tensor("out.patches", &patches, FORWARD)?;
    checks.tensor("out.sequence", &sequence, FORWARD)?;
    for (kind, blocks) in
        [("shared", &trace.shared_blocks), ("u", &trace.u_blocks), ("v", &trace.v_blocks)]
    {
        for (i, block) in blocks.iter().enumerate() {
            checks.tensor(&format!("out.{kind}_block{i}"), block, FORWARD)?;
        }
    }
    checks.tensor("out.u_tokens", &trace.u_tokens, FORWARD)?;
    let (u, v) = network.mean_flow().u_and_v(z.clone(), t.clone(), condition.clone());
    checks.tensor("out.u", &u, FORWARD)?;
    if let (Some(tokens), Some(v)) = (&trace.v_tokens, &v) {
        checks.tensor("out.v_tokens", tokens, FORWARD)?;
        checks.tensor("out.v", v, FORWARD)?;
        let alone = values(&network.v(z.clone(), t.clone(), condition.clone())?);
        checks.against("v alone", &alone, &golden.values("out.v")?, FORWARD)?;
    }
    let alone = values(&network.mean_flow().u(z, t, condition));
    checks.against("u alone", &alone, &golden.values("out.u")?, FORWARD)
}

fn values(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// A network whose evaluations are remembered.
struct Recorder<'a> {
    network: &'a dyn MeanFlow,
    device: &'a Device,
    /// ω, t_min and t_max.
    guidance: [f64; 3],
    y: Tensor<1, Int>,
    states: Vec<State>,
    velocities: Vec<Tensor<4>>,
    /// Times t and spans h.
    calls: Vec<[f64; 2]>,
}

impl<'a> Recorder<'a> {
    fn new(
        network: &'a dyn MeanFlow,
        case: &Value,
        y: Tensor<1, Int>,
        device: &'a Device,
    ) -> Result<Self> {
        let number = |key: &str| case[key].as_f64().with_context(|| format!("no {key}"));
        let guidance = [number("omega")?, number("t_min")?, number("t_max")?];
        let (states, velocities, calls) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { network, device, guidance, y, states, velocities, calls })
    }
}

impl MeanFlowModel for Recorder<'_> {
    async fn u(&mut self, z: State, t: f64, h: f64) -> Result<State, Stop> {
        let b = z.dims()[0];
        let every = |value: f64| Tensor::<1>::full([b], value, self.device);
        let [omega, t_min, t_max] = self.guidance.map(every);
        let condition = Condition { h: every(h), omega, t_min, t_max, y: self.y.clone() };
        self.states.push(z.clone());
        let u = self.network.u(z.cast(FloatDType::F32), every(t), condition);
        self.velocities.push(u.clone());
        self.calls.push([t, h]);
        Ok(to_state(u))
    }
}

fn steps(case: &Value) -> Result<usize> {
    Ok(case["num_steps"].as_u64().context("no num_steps")? as usize)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn sample(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let network = Net::load(&golden, device)?;
    let scale = config["noise_scale"].as_f64().unwrap_or(1.0);
    for (name, case) in config["cases"].as_object().context("no cases")? {
        let key = |what: &str| format!("out.{name}.{what}");
        let start = golden.state("in.noise", device)? * scale;
        let y = golden.ints("in.y", device)?;
        let mut recorder = Recorder::new(network.mean_flow(), case, y, device)?;
        let grid = times(steps(case)?);
        let end = pollster::block_on(sample_steps(&mut recorder, start, &grid))?;
        let mut states = std::mem::take(&mut recorder.states);
        states.push(end.clone());
        checks.tensor::<5>(&key("traj"), &Tensor::stack(states, 0), FORWARD)?;
        checks.tensor::<5>(&key("u"), &Tensor::stack(recorder.velocities, 0), FORWARD)?;
        for (i, what) in ["t_calls", "h_calls"].into_iter().enumerate() {
            let called: Vec<f64> = recorder.calls.iter().map(|call| call[i]).collect();
            checks.values(&key(what), &called, TABLE)?;
        }
        checks.tensor(&key("samples"), &end, FORWARD)?;
        let end = end.cast(FloatDType::F32);
        match &network {
            Net::Imf(network) => {
                let raw = match end.dims()[1] {
                    4 => network.denormalize(end),
                    _ => {
                        let given = |what: &str| golden.tensor::<4>(what, device);
                        end * given("in.latent_std")? + given("in.latent_mean")?
                    }
                };
                checks.tensor(&key("samples_denormalised"), &raw, FORWARD)?;
            }
            Net::Pmf(_) => {
                let pictures = to_rgb(&end.into_data(), Rounding::Up);
                let bytes: Vec<f64> = pictures
                    .iter()
                    .flat_map(|picture| picture.pixels.iter().map(|&v| f64::from(v)))
                    .collect();
                checks.values(&key("uint8_round"), &bytes, Tolerance::Image)?;
                checks.values(&key("uint8_truncated"), &bytes, Tolerance::Image)?;
            }
        }
    }
    Ok(())
}

/// Compares what a file of this family expects: pictures of a checkpoint in the folder beside it, whose
/// configuration tells what its tensors do not.
///
/// # Errors
///
/// If the file or the checkpoint cannot be read, a tensor of it has no use, or an entry is missing or
/// has another shape. A value outside its tolerance is recorded in `checks`, not an error.
pub fn checkpoint(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let file = config["file"].as_str().context("no file")?;
    let mut weights = open(&path.with_file_name(file))?;
    let by_tensors = detect(&weights)?;
    weights.metadata.insert("config".into(), model(&config).to_string());
    let architecture = detect(&weights)?;
    ensure!(by_tensors.name() == architecture.name(), "{by_tensors:?}");
    // A pMF's tensors tell all of it.
    ensure!(by_tensors.name() == "iMF" || by_tensors == architecture, "{by_tensors:?}");
    let untrained = architecture.untrained(device)?;
    let (network, report) = untrained.load(&weights, FloatDType::F32, device)?;
    ensure!(report.unexpected.is_empty(), "tensors without a use: {report}");
    let network = network.mean_flow().context("it has no average velocity")?;
    let case = &config["sampler"];
    let scale = config["noise_scale"].as_f64().unwrap_or(1.0);
    let start = golden.state("in.noise", device)? * scale;
    let y = golden.ints("in.y", device)?;
    let mut recorder = Recorder::new(&*network, case, y, device)?;
    let grid = times(steps(case)?);
    let end = pollster::block_on(sample_steps(&mut recorder, start, &grid))?;
    checks.tensor("out.samples", &end, FORWARD)
}

/// Compares what a file of this family expects. The derivative du/dt is taken by central differences, which are
/// compared on their own; losses and gradients are those of the file's derivative.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn loss(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let number = |key: &str| config[key].as_f64().with_context(|| format!("no {key}"));
    let network = Net::load(&golden, device)?;
    let input = |name: &str| golden.tensor::<1>(&format!("in.{name}"), device);
    let (t, r, omega) = (input("t")?, input("r")?, input("omega")?);
    let (t_min, t_max) = (input("t_min")?, input("t_max")?);
    let x = golden.tensor::<4>("in.x", device)?;
    let e = golden.tensor::<4>("in.noise", device)? * number("noise_scale")?;
    let (z, v_t) = Interpolant::Linear.interpolate(x.clone(), e, t.clone());
    let v_t = match &network {
        Net::Imf(_) => v_t,
        Net::Pmf(_) => {
            let floored: Tensor<4> = t.clone().clamp_min(T_FLOOR).reshape([-1, 1, 1, 1]);
            (z.clone() - x) / floored
        }
    };
    checks.tensor("out.z_t", &z, FORWARD)?;
    checks.tensor("out.v_t", &v_t, FORWARD)?;

    // The guided target, from the network's own instantaneous velocities.
    let y = golden.ints("in.y", device)?;
    let null = number("null_class")? as i64;
    let v_at = |omega: Tensor<1>, y: Tensor<1, Int>| -> Result<Tensor<4>> {
        let condition = Condition { omega, ..Condition::instantaneous(y, &t) };
        Ok(network.v(z.clone(), t.clone(), condition)?.detach())
    };
    let omega_t = omega_at(omega.clone(), t.clone(), t_min.clone(), t_max.clone());
    let v_cond = v_at(omega.clone(), y.clone())?;
    let v_uncond = v_at(t.ones_like(), y.ones_like() * null)?;
    let v_tangent = v_at(omega_t.clone(), y)?;
    let v_guided = guided_velocity(v_t.clone(), v_tangent.clone(), v_uncond.clone(), omega_t);
    checks.tensor("out.v_cond", &v_cond, FORWARD)?;
    checks.tensor("out.v_uncond", &v_uncond, FORWARD)?;
    checks.tensor("out.v_tangent", &v_tangent, FORWARD)?;
    checks.tensor("out.v_guided", &v_guided, FORWARD)?;

    // The draws tell how many labels are dropped; the first ones are.
    let mut labels = golden.view("in.y")?.to_i64();
    let rate = number("class_dropout_prob")?;
    let drops = golden.values("in.drop_draws")?.iter().filter(|draw| **draw < rate).count();
    labels[..drops].fill(null);
    let used: Vec<f64> = labels.iter().map(|&label| label as f64).collect();
    checks.values("out.labels_used", &used, Tolerance::Exact)?;
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    let dropped: Vec<f32> = (0..labels.len()).map(|i| if i < drops { 1.0 } else { 0.0 }).collect();
    let dropped = Tensor::<1>::from_floats(dropped.as_slice(), device);
    let dropped: Tensor<4> = dropped.reshape([-1, 1, 1, 1]);
    let target = v_guided * (-dropped.clone() + 1.0) + v_t * dropped;
    checks.tensor("out.target", &target, FORWARD)?;

    let y = Tensor::<1, Int>::from_ints(labels.as_slice(), device);
    let h = t.clone() - r;
    let along = |h: Tensor<1>| Condition {
        h,
        omega: omega.clone(),
        t_min: t_min.clone(),
        t_max: t_max.clone(),
        y: y.clone(),
    };
    let (u, v) = network.mean_flow().u_and_v(z.clone(), t.clone(), along(h.clone()));
    let v = v.context("the network has no head of v")?;
    checks.tensor("out.u", &u, FORWARD)?;
    checks.tensor("out.v", &v, FORWARD)?;
    let shifted = |step: f64| {
        let (z, t) = (z.clone() + v_tangent.clone() * step, t.clone() + step);
        network.mean_flow().u(z, t, along(h.clone() + step)).detach()
    };
    let du_dt = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
    checks.tensor("out.du_dt", &du_dt, DIFFERENCES)?;
    let by_differences = compound_velocity(u.clone().detach(), du_dt, h.clone());
    checks.against(
        "V by differences",
        &values(&by_differences),
        &golden.values("out.V")?,
        DIFFERENCES,
    )?;

    let compound = compound_velocity(u, golden.tensor::<4>("out.du_dt", device)?, h);
    checks.tensor("out.V", &compound, Tolerance::RelativeL2(2e-5))?;
    let near = Tolerance::Relative(1e-5);
    let mut total = t.zeros_like();
    for (name, prediction) in [("u", compound), ("v", v)] {
        let mean = (prediction.clone() - target.clone()).square().mean();
        checks.tensor(&format!("out.loss_{name}_mean"), &mean, near)?;
        let loss = squared_error(prediction, target.clone());
        checks.tensor(&format!("out.loss_{name}_per_sample"), &loss, near)?;
        total = total + adaptive(loss);
    }
    let total = total.mean();
    checks.tensor("out.total", &total, Tolerance::Relative(2e-6))?;
    let found = total.backward();
    let found = match &network {
        Net::Imf(network) => gradients(network, &found),
        Net::Pmf(network) => gradients(network, &found),
    };
    check_gradients(checks, &golden, &found, "out.grad.net.", GRADIENT)?;
    match &network {
        Net::Imf(network) => objective(network, 0.0, &golden, drops, device, checks),
        Net::Pmf(network) => objective(network, T_FLOOR, &golden, drops, device, checks),
    }
}

/// The trainer's objective on the draws of a file, with its own derivative.
fn objective<N: AutodiffModule + MeanFlow>(
    network: &N,
    t_floor: f64,
    golden: &Golden,
    drops: usize,
    device: &Device,
    checks: &mut Checks,
) -> Result<()> {
    let input = |name: &str| -> Result<Vec<f32>> { Ok(golden.view(name)?.to_f32()) };
    let (t, r, omega) = (input("in.t")?, input("in.r")?, input("in.omega")?);
    let (t_min, t_max) = (input("in.t_min")?, input("in.t_max")?);
    let count = t.len();
    let draw =
        |i: usize| Draw { t: t[i], r: r[i], omega: omega[i], t_min: t_min[i], t_max: t_max[i] };
    let images = |name: &str| -> Result<Values<4>> {
        let view = golden.view(name)?;
        let shape: [usize; 4] = view.shape.clone().try_into().ok().context("not four axes")?;
        Ok(Values::new(view.to_f32(), shape))
    };
    let config = golden.config()?;
    let null = config["null_class"].as_u64().context("no null_class")?;
    let scale = config["noise_scale"].as_f64().context("no noise_scale")? as f32;
    let mut noise = images("in.noise")?;
    for value in &mut noise.values {
        *value *= scale;
    }
    let batch = Batch {
        data: images("in.x")?,
        noise,
        draws: (0..count).map(draw).collect(),
        labels: golden.view("in.y")?.to_i64().iter().map(|&label| label as usize).collect(),
        dropped: (0..count).map(|i| i < drops).collect(),
        null_class: null as usize,
        weight: 1.0 / count as f64,
    };
    let compute = Compute { precision: FloatDType::F32, recompute: false };
    let loss = pass(network, batch, t_floor, compute, device)?.loss;
    let value = |x: &Tensor<1>| x.to_data().iter::<f64>().next().unwrap_or(f64::NAN);
    let near = Tolerance::Relative(1e-3);
    for (name, term) in &loss.terms {
        let mean = name.replace("mse_", "out.loss_") + "_mean";
        let label = format!("{name} of the trainer");
        checks.against(&label, &[value(term)], &golden.values(&mean)?, near)?;
    }
    let total = golden.values("out.total")?;
    let near = Tolerance::Relative(1e-5);
    checks.against("total of the trainer", &[value(&loss.total)], &total, near)?;
    let found = views(&loss.gradients(network), &layout(network));
    check_gradients(checks, golden, &found, "out.grad.net.", Tolerance::RelativeL2(2e-3))
}
