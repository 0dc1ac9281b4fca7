//! Whole trajectories of LightningDiT and SiT through the library's samplers.

use std::path::Path;

use anyhow::Result;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor};
use tintype::device::state_dtype;
use tintype::diffusion::flow::{Interpolant, ode_times, sde_times, shifted_times};
use tintype::diffusion::guidance::Guidance;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::sit::{SiT, SiTConfig};
use tintype::sampler::{Model, State, Stop, flow};

use super::diffusion_transformers::Cfg;
use crate::check::{Checks, FORWARD, TABLE, Tolerance};
use crate::golden::Golden;

/// A velocity function that remembers how it was called.
pub(super) struct Recorder<'a> {
    /// Velocity at a state in float32 and a time, and whether it was guided.
    pub velocity: Box<dyn FnMut(Tensor<4>, f64, f64) -> (Tensor<4>, Call) + 'a>,
    pub noise: Box<dyn FnMut(usize) -> State + 'a>,
    pub calls: Vec<Call>,
    pub states: Vec<State>,
}

/// One evaluation of the network.
pub(super) struct Call {
    pub time: f64,
    pub guided: bool,
    /// The raw output of the whole batch.
    pub raw: Tensor<4>,
}

impl Model for Recorder<'_> {
    async fn predict(&mut self, x: State, time: f64, step_time: f64) -> Result<State, Stop> {
        self.states.push(x.clone());
        let (v, call) = (self.velocity)(x.cast(FloatDType::F32), time, step_time);
        self.calls.push(call);
        Ok(to_state(v))
    }

    fn noise(&mut self, draw: usize) -> State {
        (self.noise)(draw)
    }
}

/// A prediction as samplers want it.
pub(super) fn to_state(x: Tensor<4>) -> State {
    let dtype = state_dtype(&x.device());
    x.cast(dtype)
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
/// Never: an ODE asks for no noise.
pub fn lightningdit_ode(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let model: LightningDiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let sampler = &config["sampler"];
    let number = |key: &str| sampler[key].as_f64().unwrap_or_default();
    let points = number("num_steps") as usize;
    let cfg = Cfg {
        scale: number("cfg_scale"),
        start: sampler["cfg_interval"]
            .as_bool()
            .unwrap_or(false)
            .then(|| number("cfg_interval_start")),
        channels: sampler["cfg_channels"].as_u64().unwrap_or(3) as usize,
    };
    let z = golden.state("in.z", device)?;
    let y = golden.ints("in.y", device)?;
    let mut recorder = Recorder {
        velocity: Box::new(|x: Tensor<4>, time, _| {
            let t = 1.0 - time; // the authors' clock
            let v = if cfg.scale > 1.0 {
                cfg.forward(&network, x, t, y.clone())
            } else {
                let times = Tensor::<1>::full([x.dims()[0]], t, &x.device());
                network.forward(x, times, y.clone())
            };
            let call = Call { time: t, guided: cfg.scale > 1.0, raw: v.clone() };
            (-v, call)
        }),
        noise: Box::new(|_| unreachable!("an ODE draws no noise")),
        calls: Vec::new(),
        states: Vec::new(),
    };
    let times = shifted_times(points, number("timestep_shift"));
    let adaptive = sampler["method"] == "dopri5";
    let traj = if adaptive {
        let tolerance = flow::Tolerance { relative: number("rtol"), absolute: number("atol") };
        pollster::block_on(flow::dopri5(&mut recorder, z, &times, tolerance))?
    } else {
        let end = pollster::block_on(flow::euler(&mut recorder, z, &times, Interpolant::Linear))?;
        let mut states = std::mem::take(&mut recorder.states);
        states.push(end);
        states
    };
    let calls = &recorder.calls;
    // The adaptive method amplifies rounding in its choice of steps.
    let close = if adaptive { Tolerance::RelativeL2(1e-3) } else { FORWARD };
    let grid = if adaptive { Tolerance::Absolute(1e-3) } else { TABLE };
    let called: Vec<f64> = calls.iter().map(|c| c.time).collect();
    checks.values("out.t_model_calls", &called, grid)?;
    let raws = calls.iter().map(|c| c.raw.clone()).collect();
    checks.tensor::<5>("out.velocity", &Tensor::stack(raws, 0), close)?;
    checks.tensor::<5>("out.traj", &Tensor::stack(traj.clone(), 0), close)?;
    let last = traj[traj.len() - 1].clone();
    let kept = golden.view("out.samples")?.shape[0];
    let samples = last.narrow(0, 0, kept).cast(FloatDType::F32);
    checks.tensor("out.samples", &samples, close)?;
    let [mean, std] =
        ["mean", "std"].map(|what| golden.tensor::<4>(&format!("in.latent_{what}"), device));
    let denormalised = samples * std? / number("latent_multiplier") + mean?;
    checks.tensor("out.samples_denormalised", &denormalised, close)
}

/// A SiT under guidance on all channels.
fn sit_velocity<'a>(
    network: &'a SiT,
    guidance: Guidance,
    y: Tensor<1, Int>,
    null: i64,
) -> Box<dyn FnMut(Tensor<4>, f64, f64) -> (Tensor<4>, Call) + 'a> {
    Box::new(move |x, time, step_time| {
        let guided = guidance.active(step_time);
        let b = x.dims()[0];
        let (x, y) = match guided {
            true => (
                Tensor::cat(vec![x.clone(), x], 0),
                Tensor::cat(vec![y.clone(), y.ones_like() * null], 0),
            ),
            false => (x, y.clone()),
        };
        let times = Tensor::<1>::full([x.dims()[0]], time, &x.device());
        let raw = network.forward(x, times, y);
        let v = match guided {
            true => guidance.combine(raw.clone().narrow(0, 0, b), raw.clone().narrow(0, b, b)),
            false => raw.clone(),
        };
        (v, Call { time, guided, raw })
    })
}

struct SitRun {
    golden: Golden,
    network: SiT,
    guidance: Guidance,
    null: i64,
    steps: usize,
    sampler: serde_json::Value,
}

fn sit_run(path: &Path, device: &Device) -> Result<SitRun> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let model: SiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let sampler = config["sampler"].clone();
    let number = |key: &str| sampler[key].as_f64().unwrap_or_default();
    let guidance = Guidance {
        scale: number("cfg_scale"),
        low: number("guidance_low"),
        high: number("guidance_high"),
        channels: None,
    };
    let (null, steps) = (number("null_class") as i64, number("num_steps") as usize);
    Ok(SitRun { golden, network, guidance, null, steps, sampler })
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
pub fn sit_sde(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let SitRun { golden, network, guidance, null, steps, sampler } = sit_run(path, device)?;
    let flow_path = match sampler["path_type"] == "cosine" {
        true => Interpolant::Cosine,
        false => Interpolant::Linear,
    };
    let times = sde_times(steps);
    checks.values("out.t_steps_f64", &times, Tolerance::Absolute(1e-15))?;
    let y = golden.ints("in.y", device)?;
    let mut recorder = Recorder {
        velocity: sit_velocity(&network, guidance, y, null),
        noise: Box::new(|draw| {
            golden.state_at("in.eps", draw, device).expect("a draw for every step")
        }),
        calls: Vec::new(),
        states: Vec::new(),
    };
    let z = golden.state("in.z", device)?;
    let end = flow::euler_maruyama(&mut recorder, z, &times, flow_path);
    let end = pollster::block_on(end)?;
    let mut traj = recorder.states.clone();
    traj.push(end.clone());
    if golden.has("out.score_call1_cond") {
        let b = end.dims()[0];
        let v = to_state(recorder.calls[1].raw.clone().narrow(0, 0, b));
        let score = flow_path.score(traj[1].clone(), v, times[1]);
        checks.tensor("out.score_call1_cond", &score, FORWARD)?;
    }
    checks.tensor::<5>("out.traj", &Tensor::stack(traj, 0), FORWARD)?;
    check_calls(checks, &recorder.calls)?;
    checks.tensor("out.samples", &end, FORWARD)
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
/// Never: an ODE asks for no noise.
pub fn sit_ode(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let SitRun { golden, network, guidance, null, steps, sampler } = sit_run(path, device)?;
    let times = ode_times(steps);
    checks.values("out.t_steps_f64", &times, Tolerance::Absolute(1e-15))?;
    let mut recorder = Recorder {
        velocity: sit_velocity(&network, guidance, golden.ints("in.y", device)?, null),
        noise: Box::new(|_| unreachable!("an ODE draws no noise")),
        calls: Vec::new(),
        states: Vec::new(),
    };
    let z = golden.state("in.z", device)?;
    let end = match sampler["heun"].as_bool().unwrap_or(false) {
        true => pollster::block_on(flow::heun(&mut recorder, z, &times, Interpolant::Linear))?,
        false => pollster::block_on(flow::euler(&mut recorder, z, &times, Interpolant::Linear))?,
    };
    for (k, state) in recorder.states.iter().enumerate() {
        checks.tensor_if(&format!("out.x_call.{k}"), state, FORWARD)?;
    }
    let called: Vec<f64> = recorder.calls.iter().map(|c| c.time).collect();
    checks.values("out.t_calls", &called, TABLE)?;
    check_calls(checks, &recorder.calls)?;
    checks.tensor("out.samples", &end, FORWARD)
}

fn check_calls(checks: &mut Checks, calls: &[Call]) -> Result<()> {
    let guided: Vec<f64> = calls.iter().map(|c| f64::from(c.guided)).collect();
    checks.values("out.guided", &guided, Tolerance::Exact)?;
    for (k, call) in calls.iter().enumerate() {
        checks.tensor_if(&format!("out.v_call.{k}"), &call.raw, FORWARD)?;
    }
    Ok(())
}
