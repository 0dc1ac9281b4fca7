//! JiT: forward passes, whole trajectories through the library's samplers, and tables.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::flow::{Interpolant, logit_normal, shifted_grid, shifted_times};
use tintype::diffusion::guidance::{Guidance, Interval};
use tintype::image::to_rgb;
use tintype::model::DiffusionModel;
use tintype::model::jit::{Jit, JitConfig, time_left};
use tintype::sampler::{Model, State, Step, Stop, flow};

use super::jit_train;
use super::ode_sde::to_state;
use crate::check::{Checks, FORWARD, TABLE, Tolerance};
use crate::golden::Golden;

/// The configuration of a file, whose `flow` says what stands outside of the section `model`.
fn model(config: &Value, flow: &Value) -> Result<JitConfig> {
    let mut model = config["model"].clone();
    for key in ["t_eps", "noise_scale"] {
        if !flow[key].is_null() {
            model[key] = flow[key].clone();
        }
    }
    Ok(serde_json::from_value(model)?)
}

fn number(config: &Value, key: &str) -> Result<f64> {
    config[key].as_f64().with_context(|| format!("no {key}"))
}

/// Guidance of a scale within an interval on the authors' clock (0 is noise).
fn guidance(scale: f64, [low, high]: [f64; 2]) -> Guidance {
    Guidance { low: 1.0 - high, high: 1.0 - low, ..Guidance::new(scale) }
}

/// Whether guidance acts at a time on the authors' clock, be its scale what it may.
fn in_interval(guidance: Guidance, t: f64) -> f64 {
    let guidance = Guidance { scale: 2.0, ..guidance };
    f64::from(Interval::Open.is_guided(&guidance, 1.0 - t, 1.0 - t))
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn forward(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let model = model(&config, &config)?;
    let network = golden.load(model.init(device)?, device)?;
    let (x, t) = (golden.tensor::<4>("in.x", device)?, golden.tensor::<1>("in.t", device)?);
    let y = golden.ints("in.y", device)?;
    let trace = network.trace(x.clone(), t.clone(), y.clone());
    checks.tensor("out.t_emb", &trace.time, FORWARD)?;
    checks.tensor("out.y_emb", &trace.label, FORWARD)?;
    checks.tensor("out.tokens_after_patch_embed", &trace.patches, FORWARD)?;
    for (i, stream) in trace.streams.iter().enumerate() {
        let name = match i.checked_sub(1) {
            None => "out.tokens_entering_block0".into(),
            Some(block) => format!("out.block{block}"),
        };
        checks.tensor(&name, stream, FORWARD)?;
    }
    checks.tensor("out.final_tokens", &trace.tokens, FORWARD)?;
    for (in_context, name) in [(0, ""), (model.in_context_len, "_incontext")] {
        let rope = network.rope(in_context, device);
        checks.tensor(&format!("out.rope_cos{name}"), &rope.cos, TABLE)?;
        checks.tensor(&format!("out.rope_sin{name}"), &rope.sin, TABLE)?;
    }
    let x_hat = network.forward(x.clone(), t.clone(), y);
    checks.tensor("out.forward", &x_hat, FORWARD)?;
    checks.tensor("out.velocity", &network.velocity(x, x_hat, t), FORWARD)
}

/// One evaluation, on the authors' clock.
struct Call {
    t: f64,
    velocity: Tensor<4>,
    /// Estimates of the image, with the class and without it.
    estimates: [Tensor<4>; 2],
}

/// A guided network that remembers how it was called, and the states that steps began with.
struct Guided<'a> {
    network: &'a Jit,
    guidance: Guidance,
    y: Tensor<1, Int>,
    null: Tensor<1, Int>,
    calls: Vec<Call>,
    states: Vec<State>,
}

impl Model for Guided<'_> {
    async fn predict(&mut self, x: State, time: f64, step_time: f64) -> Result<State, Stop> {
        let z = x.cast(FloatDType::F32);
        let t = Tensor::<1>::full([z.dims()[0]], 1.0 - time, &z.device());
        let estimate = |y: &Tensor<1, Int>| self.network.forward(z.clone(), t.clone(), y.clone());
        let estimates = [estimate(&self.y), estimate(&self.null)];
        let [cond, uncond] =
            estimates.clone().map(|estimate| self.network.velocity(z.clone(), estimate, t.clone()));
        let velocity = match Interval::Open.is_guided(&self.guidance, time, step_time) {
            true => self.guidance.combine(cond, uncond),
            false => cond,
        };
        self.calls.push(Call { t: 1.0 - time, velocity: velocity.clone(), estimates });
        Ok(to_state(-velocity))
    }

    fn noise(&mut self, _draw: usize) -> State {
        unreachable!("an ODE draws no noise")
    }

    async fn on_step(&mut self, step: Step<'_>) -> Result<(), Stop> {
        self.states.push(step.state.clone());
        Ok(())
    }
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
pub fn ode(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let sampler = &config["sampler"];
    let model = model(&config, sampler)?;
    let network = golden.load(model.init(device)?, device)?;
    let interval = [number(sampler, "interval_min")?, number(sampler, "interval_max")?];
    let y = golden.ints("in.y", device)?;
    let mut guided = Guided {
        network: &network,
        guidance: guidance(number(sampler, "cfg_scale")?, interval),
        null: y.ones_like() * number(&config, "null_class")? as i64,
        y,
        calls: Vec::new(),
        states: Vec::new(),
    };
    let start = golden.state("in.noise", device)? * model.noise_scale();
    let times = shifted_times(number(sampler, "num_steps")? as usize + 1, 0.0);
    let end = match sampler["method"] == "heun" {
        true => pollster::block_on(flow::heun(&mut guided, start, &times, Interpolant::Linear))?,
        false => pollster::block_on(flow::euler(&mut guided, start, &times, Interpolant::Linear))?,
    };
    let Guided { guidance, calls, mut states, .. } = guided;
    let steps: Vec<f64> = times.iter().map(|time| 1.0 - time).collect();
    checks.values("out.t_steps", &steps, TABLE)?;
    let called: Vec<f64> = calls.iter().map(|call| call.t).collect();
    checks.values("out.t_calls", &called, TABLE)?;
    let inside: Vec<f64> = called.iter().map(|&t| in_interval(guidance, t)).collect();
    checks.values("out.in_interval", &inside, Tolerance::Exact)?;
    let all = |of: fn(&Call) -> &Tensor<4>| -> Tensor<5> {
        Tensor::stack(calls.iter().map(|call| of(call).clone()).collect(), 0)
    };
    checks.tensor("out.velocity", &all(|call| &call.velocity), FORWARD)?;
    checks.tensor("out.x_cond", &all(|call| &call.estimates[0]), FORWARD)?;
    checks.tensor("out.x_uncond", &all(|call| &call.estimates[1]), FORWARD)?;
    states.push(end.clone());
    checks.tensor::<5>("out.traj", &Tensor::stack(states, 0), FORWARD)?;
    checks.tensor("out.samples", &end, FORWARD)?;
    if checks.wants("out.image_u8") {
        let pictures = to_rgb(&end.cast(FloatDType::F32).into_data(), model.rounding());
        let bytes = pictures.iter().flat_map(|picture| picture.pixels.iter());
        let bytes: Vec<f64> = bytes.map(|&byte| f64::from(byte)).collect();
        checks.values("out.image_u8", &bytes, Tolerance::Image)?;
    }
    Ok(())
}

/// The list of a configuration.
fn list<'a>(config: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    config[key].as_array().with_context(|| format!("no list {key}"))
}

/// Two numbers of a list.
fn pair(value: &Value) -> Result<[f64; 2]> {
    Ok(serde_json::from_value(value.clone())?)
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn schedules(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let normals = golden.values("in.normals")?;
    for (i, times) in list(&config, "times")?.iter().enumerate() {
        let [mean, std] = pair(times)?;
        let times: Vec<f64> = normals.iter().map(|&n| logit_normal(n, mean, std)).collect();
        checks.values(&format!("out.t_{i}"), &times, TABLE)?;
    }
    for steps in list(&config, "steps")? {
        let steps = steps.as_u64().context("steps are numbers")? as usize;
        let grid: Vec<f64> = shifted_grid(steps + 1, 0.0).into_iter().map(f64::from).collect();
        checks.values(&format!("out.t_steps_{steps}"), &grid, TABLE)?;
    }
    let t = golden.values("in.t")?;
    for (i, interval) in list(&config, "intervals")?.iter().enumerate() {
        let guidance = guidance(2.0, pair(interval)?);
        let inside: Vec<f64> = t.iter().map(|&t| in_interval(guidance, t)).collect();
        checks.values(&format!("out.in_interval_{i}"), &inside, Tolerance::Exact)?;
    }
    let device = Device::flex();
    for (i, t_eps) in list(&config, "t_eps")?.iter().enumerate() {
        let t_eps = t_eps.as_f64().context("t_eps are numbers")?;
        let left = time_left(golden.tensor::<1>("in.t", &device)?, t_eps);
        checks.tensor(&format!("out.one_minus_t_clamped_{i}"), &left, TABLE)?;
    }
    let pixels = golden.view("in.pixels")?.to_f32();
    let data = TensorData::new(pixels.clone(), [1, 1, 1, pixels.len()]);
    let rounding = JitConfig::variant("B/16").context("a size")?.rounding();
    let grey = to_rgb(&data, rounding).remove(0).pixels;
    let bytes: Vec<f64> = grey.chunks(3).map(|pixel| f64::from(pixel[0])).collect();
    checks.values("out.pixels_u8", &bytes, Tolerance::Exact)?;
    jit_train::learning_rates(&golden, checks)
}
