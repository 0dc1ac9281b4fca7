//! DiT-DH, RAE's diffusion transformer: forward passes, trajectories and schedules.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor};
use tintype::diffusion::flow::{Interpolant, early_times};
use tintype::diffusion::guidance::Guidance;
use tintype::diffusion::time_shift::{dimension_shift, shift_time, truncated_logit_normal};
use tintype::image::truncated;
use tintype::model::ditdh::{DitDh, DitDhConfig};
use tintype::sampler::flow;

use super::ditdh_train;
use super::ode_sde::{Call, Recorder};
use crate::check::{Checks, FORWARD, TABLE, Tolerance};
use crate::golden::Golden;

/// Where sampling and training end on the authors' grid, before the shift.
const LAST: f64 = 0.001;

/// A network by its configuration, filled from the weights below a prefix.
fn network(golden: &Golden, config: &Value, prefix: &str, device: &Device) -> Result<DitDh> {
    let config: DitDhConfig = serde_json::from_value(config.clone())?;
    golden.load_part(config.init(device)?, prefix, device)
}

/// The guidance of a case or a sampler, whose numbers the reference compares in float32.
fn guidance(case: &Value, scale: &str) -> Result<Guidance> {
    let number = |key: &str| case[key].as_f64().with_context(|| format!("no {key}"));
    let end = |key: &str| -> Result<f64> { Ok(f64::from(number(key)? as f32)) };
    Ok(Guidance { scale: number(scale)?, low: end("t_min")?, high: end("t_max")?, channels: None })
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
    let network = network(&golden, &config["model"], "", device)?;
    let (x, t) = (golden.tensor::<4>("in.x", device)?, golden.tensor::<1>("in.t", device)?);
    let y = golden.ints("in.y", device)?;
    let trace = network.trace(x.clone(), t.clone(), y.clone());
    for (name, value) in [("t_emb", &trace.t_emb), ("y_emb", &trace.y_emb), ("c", &trace.c)] {
        checks.tensor(&format!("out.{name}"), value, FORWARD)?;
    }
    for (name, value) in [
        ("s_patches", &trace.s_patches),
        ("s_tokens", &trace.s_tokens),
        ("s_condition", &trace.s_condition),
        ("s_projected", &trace.s_projected),
        ("x_patches", &trace.x_patches),
        ("final_tokens", &trace.tokens),
    ] {
        checks.tensor(&format!("out.{name}"), value, FORWARD)?;
    }
    for (i, block) in trace.blocks.iter().enumerate() {
        checks.tensor(&format!("out.block{i}"), block, FORWARD)?;
    }
    checks.tensor("out.forward", &network.forward(x, t, y), FORWARD)?;
    for (name, case) in config["cases"].as_object().context("no cases")? {
        let guidance = guidance(case, "cfg_scale")?;
        let x = golden.tensor::<4>("in.cfg_x", device)?;
        let t = golden.values("in.cfg_t")?;
        let y = golden.ints("in.cfg_y", device)?;
        let out = guided(&network, &guidance, x, &t, y);
        checks.tensor(&format!("out.{name}"), &out, FORWARD)?;
    }
    Ok(())
}

/// The doubled batch of classifier-free guidance, samples at times of their own: both halves see the first half's
/// states, and get the same velocity.
///
/// # Shapes
///
/// * `x`: `[2·n, C, S, S]`; `y`: `[2·n]`, the classes, then the null class; `t` has 2·n times
/// * returns `[2·n, C, S, S]`
fn guided(
    network: &DitDh,
    guidance: &Guidance,
    x: Tensor<4>,
    t: &[f64],
    y: Tensor<1, Int>,
) -> Tensor<4> {
    let n = x.dims()[0] / 2;
    let device = x.device();
    let half = x.narrow(0, 0, n);
    let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
    let times = Tensor::<1>::from_floats(times.as_slice(), &device);
    let out = network.forward(Tensor::cat(vec![half.clone(), half], 0), times, y);
    let velocity = |sample: usize| {
        let cond = out.clone().narrow(0, sample, 1);
        match guidance.active(t[sample]) {
            true => guidance.combine(cond, out.clone().narrow(0, n + sample, 1)),
            false => cond,
        }
    };
    let velocities: Vec<Tensor<4>> = (0..n).chain(0..n).map(velocity).collect();
    Tensor::cat(velocities, 0)
}

/// Compares what a file of this family expects: unguided, with classifier-free guidance, or with autoguidance.
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
    let has_guide = !config["guide"].is_null();
    let prefix = if has_guide { "model." } else { "" };
    let model = network(&golden, &config["model"], prefix, device)?;
    let guide = match has_guide {
        true => Some(network(&golden, &config["guide"], "guide.", device)?),
        false => None,
    };
    let sampler = &config["sampler"];
    let number = |key: &str| sampler[key].as_f64().with_context(|| format!("no {key}"));
    let guidance = guidance(sampler, "scale")?;
    let shift = dimension_shift(number("time_dist_shift_dim")?, number("time_dist_shift_base")?);
    let times = early_times(number("num_steps")? as usize, 1.0 - number("t_end")?, 1.0 / shift);
    checks.values("out.t_grid", &times, TABLE)?;
    let y = golden.ints("in.y", device)?;
    let mut recorder = Recorder {
        velocity: Box::new(|x: Tensor<4>, time, step_time| {
            let every = vec![time; x.dims()[0]];
            let at = || Tensor::<1>::full([every.len()], time, &x.device());
            let guided_here = guidance.active(step_time);
            let v = match &guide {
                // Both networks see the same states, times and labels.
                Some(guide) => {
                    let v = model.forward(x.clone(), at(), y.clone());
                    match guided_here {
                        true => guidance.combine(v, guide.forward(x.clone(), at(), y.clone())),
                        false => v,
                    }
                }
                None if guidance.scale > 1.0 => {
                    guided(&model, &guidance, x.clone(), &every, y.clone())
                }
                None => model.forward(x.clone(), at(), y.clone()),
            };
            let call = Call { time, guided: guided_here, raw: v.clone() };
            (v, call)
        }),
        noise: Box::new(|_| unreachable!("an ODE draws no noise")),
        calls: Vec::new(),
        states: Vec::new(),
    };
    let z = golden.state("in.z", device)?;
    let end = flow::euler(&mut recorder, z, &times, Interpolant::Linear);
    let end = pollster::block_on(end)?;
    let called: Vec<f64> = recorder.calls.iter().map(|call| call.time).collect();
    checks.values("out.t_model_calls", &called, TABLE)?;
    let velocities = recorder.calls.iter().map(|call| call.raw.clone()).collect();
    checks.tensor::<5>("out.velocity", &Tensor::stack(velocities, 0), FORWARD)?;
    let mut states = std::mem::take(&mut recorder.states);
    states.push(end.clone());
    checks.tensor::<5>("out.traj", &Tensor::stack(states, 0), FORWARD)?;
    let kept = golden.view("out.samples")?.shape[0];
    let samples = end.narrow(0, 0, kept).cast(FloatDType::F32);
    checks.tensor("out.samples", &samples, FORWARD)
}

/// Compares what a file of this family expects: grids, drawn times, 8-bit values and learning rates.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn schedules(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let list = |key: &str| config[key].as_array().with_context(|| format!("no {key}"));
    for (i, grid) in list("grids")?.iter().enumerate() {
        let [dim, base, points]: [f64; 3] = serde_json::from_value(grid.clone())?;
        let times = early_times(points as usize, LAST, 1.0 / dimension_shift(dim, base));
        checks.values(&format!("out.t_grid_{i}"), &times, TABLE)?;
    }
    let uniforms = golden.values("in.uniforms")?;
    for (i, density) in list("logit_normal")?.iter().enumerate() {
        let [mu, sigma]: [f64; 2] = serde_json::from_value(density.clone())?;
        let times = uniforms.iter().map(|&u| truncated_logit_normal(u, mu, sigma, 1.0 - LAST));
        let times: Vec<f64> = times.collect();
        checks.values(&format!("out.t_logit_normal_{i}"), &times, TABLE)?;
        for (j, square) in list("shift_squares")?.iter().enumerate() {
            let s = dimension_shift(square.as_f64().context("no square")?, 1.0);
            let shifted: Vec<f64> = times.iter().map(|&t| shift_time(t, s)).collect();
            let near = Tolerance::Absolute(2e-6);
            checks.values(&format!("out.t_shifted_{i}_{j}"), &shifted, near)?;
        }
    }
    let pixels = golden.view("in.pixels")?.to_f32();
    let levels: Vec<f64> = pixels.into_iter().map(|pixel| f64::from(truncated(pixel))).collect();
    checks.values("out.pixels_u8", &levels, Tolerance::Exact)?;
    ditdh_train::learning_rates(&golden, checks)
}
