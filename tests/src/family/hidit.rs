//! Hi-DiT: one forward pass with losses, and whole trajectories of the shipped model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor};
use tintype::diffusion::flow::{Interpolant, ode_times, sde_times};
use tintype::diffusion::guidance::Guidance;
use tintype::diffusion::loss;
use tintype::model::hidit::{HiDiT, HiDiTConfig};
use tintype::model::vavae::VaeDecoder;
use tintype::model::{Network, vae_config};
use tintype::sampler::hidit::{Draw, HybridModel, PixelInit, Pixels, Stepper, sample};
use tintype::sampler::{State, Step, Stop};
use tintype::weights::{gradients, load, open, snapshot};

use tintype_trainer::train::hidit::{
    HiDiTLoss, Inputs, Pixels as PixelInputs, loss as training_loss,
};
use tintype_trainer::train::objective::Compute;

use super::diffusion_transformers::check_gradients;
use super::ode_sde::to_state;
use crate::check::{Checks, LOSS, Tolerance};
use crate::golden::Golden;

const FORWARD: Tolerance = Tolerance::RelativeL2(1e-5);

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn forward(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let mut golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let model: HiDiTConfig = serde_json::from_value(config.clone())?;
    let network = model.init(device)?;
    // The file may leave out the latent statistics, which a forward pass does not use.
    for (name, view) in snapshot(&network.sit.bn) {
        golden.weights.tensors.entry(format!("bn.{name}")).or_insert(view);
    }
    let network = golden.load(network, device)?;
    let t = golden.tensor::<1>("in.t", device)?;
    let y = golden.ints("in.y", device)?;
    let image = |name: &str| golden.tensor::<4>(name, device);
    let (z, x) = (image("in.z")?, image("in.x")?);
    let latent = network.forward_latent(z.clone(), t.clone(), y.clone());
    checks.tensor_if("out.v_latent_only", &latent, FORWARD)?;
    let streams = network.forward(z, x, t.clone(), y.clone());
    checks.tensor("out.v", &streams.velocity, FORWARD)?;
    checks.tensor("out.xhat", &streams.image, FORWARD)?;
    // The losses are those of a training step: both streams noised to the same time.
    let clean_x = image("in.clean_x")?;
    let (z_t, target) =
        Interpolant::Linear.interpolate(image("in.clean_z")?, image("in.eps_z")?, t.clone());
    let (x_t, _) = Interpolant::Linear.interpolate(clean_x.clone(), image("in.eps_x")?, t.clone());
    let streams = network.forward(z_t, x_t, t.clone(), y);
    let latent_loss = loss::mean_squared_error(streams.velocity, target);
    checks.tensor("out.loss_latent", &latent_loss, LOSS)?;
    let open = t.clone().lower_scalar(model.tau).float();
    let pixel_loss =
        loss::pixel_velocity_loss(streams.image, clean_x.clone(), t.clone(), model.t_min);
    checks.tensor("out.loss_pixel_per_sample", &(pixel_loss * open.clone()), LOSS)?;
    // And their total that of the trainer, the pixel part over the open gates.
    let labels: Vec<usize> = golden.view("in.y")?.to_i64().iter().map(|&l| l as usize).collect();
    let weight = config["pixel_weight"].as_f64().unwrap_or(1.0);
    let inputs = Inputs {
        clean: image("in.clean_z")?,
        noise: image("in.eps_z")?,
        t,
        weight: 1.0 / labels.len() as f64,
        labels,
        pixels: Some(PixelInputs {
            images: clean_x,
            noise: image("in.eps_x")?,
            weights: open.clone() * weight / open.sum().clamp_min(1.0),
        }),
        teacher: Vec::new(),
    };
    let settings = HiDiTLoss { stage: 2, pixel_weight: weight, ..HiDiTLoss::default() };
    let compute = Compute { precision: FloatDType::F32, recompute: false };
    let total = training_loss(&network, inputs, &settings, compute).total;
    checks.tensor("out.loss_total", &total, LOSS)?;
    let grads = gradients(&network, &total.backward());
    check_gradients(checks, &golden, &grads, "out.grad.", Tolerance::RelativeL2(5e-5))
}

/// The shipped emoji model.
pub fn emoji_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji")
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn emoji(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let weights = open(&emoji_folder().join("hidit.safetensors"))?;
    let model: HiDiTConfig = serde_json::from_str(&weights.metadata["config"])?;
    let network = load(model.init(device)?, &weights, FloatDType::F32, device)?.network;
    let vae = open(&emoji_folder().join("vae-decoder.safetensors"))?;
    let decoder = vae_config(&vae)?.init_decoder(device)?;
    let decoder = load(decoder, &vae, FloatDType::F32, device)?.network;
    let number = |v: &Value| v.as_f64().context("not a number");
    let steps = number(&config["steps"])? as usize;
    let (stepper, times) = match config["mode"] == "ode" {
        true => (Stepper::Euler, ode_times(steps)),
        false => (Stepper::EulerMaruyama, sde_times(steps)),
    };
    // The reference made its grid in float32.
    checks.values("out.t_steps_f64", &times, Tolerance::Absolute(1e-7))?;
    let guidance = Guidance {
        scale: number(&config["cfg"])?,
        low: number(&config["interval"][0])?,
        high: number(&config["interval"][1])?,
        channels: None,
    };
    let mut run = Emoji {
        network: &network,
        decoder: &decoder,
        guidance,
        y: golden.ints("in.y", device)?,
        null: model.sit.num_classes as i64,
        device: device.clone(),
        golden: &golden,
        opened: None,
        z_traj: Vec::new(),
        x_traj: Vec::new(),
    };
    let z = golden.state("in.z", device)?;
    let result = sample(&mut run, z, &times, stepper, PixelInit::Decode);
    let result = pollster::block_on(result)?;
    let (gate_step, decoded) = run.opened.take().context("the gate never opened")?;
    checks.values("out.gate_step", &[gate_step as f64], Tolerance::Exact)?;
    let image = Tolerance::RelativeL2(1e-3);
    // The file holds the states after each step.
    let after = |mut states: Vec<State>, end: State| {
        states.remove(0);
        states.push(end);
        states
    };
    let pixels = result.image.context("no image")?;
    let z_traj = after(std::mem::take(&mut run.z_traj), result.latent.clone());
    let x_traj = after(std::mem::take(&mut run.x_traj), pixels.clone());
    checks.tensor_if("out.pixel_init_decode", &decoded, image)?;
    // Errors grow along the trajectory: the first three states are held closer.
    let stored = golden.values("out.z_traj")?;
    for (k, state) in z_traj.iter().take(3).enumerate() {
        let values: Vec<f64> = state.to_data().iter::<f64>().collect();
        let expected = &stored[k * values.len()..(k + 1) * values.len()];
        let name = format!("z_traj[{k}]");
        checks.against(&name, &values, expected, Tolerance::RelativeL2(1e-4))?;
    }
    checks.tensor::<5>("out.z_traj", &Tensor::stack(z_traj, 0), image)?;
    checks.tensor_if::<5>("out.x_traj", &Tensor::stack(x_traj, 0), image)?;
    checks.tensor("out.image", &pixels, image)?;
    let latent = pollster::block_on(run.decode(result.latent))?;
    checks.tensor_if("out.latent_image", &latent, image)
}

struct Emoji<'a> {
    network: &'a HiDiT,
    decoder: &'a VaeDecoder,
    guidance: Guidance,
    y: Tensor<1, Int>,
    null: i64,
    device: Device,
    golden: &'a Golden,
    opened: Option<(usize, State)>,
    z_traj: Vec<State>,
    x_traj: Vec<State>,
}

impl Emoji<'_> {
    fn both(&self, x: State, guided: bool) -> Tensor<4> {
        let x = x.cast(FloatDType::F32);
        if guided { Tensor::cat(vec![x.clone(), x], 0) } else { x }
    }

    fn labels(&self, guided: bool) -> Tensor<1, Int> {
        let null = self.y.ones_like() * self.null;
        if guided { Tensor::cat(vec![self.y.clone(), null], 0) } else { self.y.clone() }
    }

    fn guide(&self, out: Tensor<4>, guided: bool) -> State {
        let b = self.y.dims()[0];
        let out = match guided {
            true => self.guidance.combine(out.clone().narrow(0, 0, b), out.narrow(0, b, b)),
            false => out,
        };
        to_state(out)
    }

    fn times(&self, t: f64, n: usize) -> Tensor<1> {
        Tensor::full([n], t, &self.device)
    }
}

impl HybridModel for Emoji<'_> {
    fn gate(&self, t: f64) -> bool {
        self.network.gate(t)
    }

    fn t_min(&self) -> f64 {
        self.network.t_min()
    }

    async fn latent(&mut self, z: State, t: f64, step_time: f64) -> Result<State, Stop> {
        let guided = self.guidance.active(step_time);
        let z = self.both(z, guided);
        let times = self.times(t, z.dims()[0]);
        Ok(self.guide(self.network.forward_latent(z, times, self.labels(guided)), guided))
    }

    async fn hybrid(
        &mut self,
        z: State,
        x: State,
        t: f64,
        step_time: f64,
    ) -> Result<(State, State), Stop> {
        let guided = self.guidance.active(step_time);
        let (z, x) = (self.both(z, guided), self.both(x, guided));
        let times = self.times(t, z.dims()[0]);
        let streams = self.network.forward(z, x, times, self.labels(guided));
        Ok((self.guide(streams.velocity, guided), self.guide(streams.image, guided)))
    }

    async fn decode(&mut self, z: State) -> Result<State, Stop> {
        let z = self.network.denormalize(z.cast(FloatDType::F32));
        Ok(to_state(self.decoder.decode(z)))
    }

    fn noise(&mut self, draw: Draw) -> State {
        let name = match draw {
            Draw::Latent(step) => format!("in.eps_z.{step}"),
            Draw::Pixel(step) => format!("in.eps_x.{step}"),
            Draw::PixelStart => "in.pixel_init_noise".into(),
        };
        self.golden.state(&name, &self.device).expect("every draw is recorded")
    }

    async fn on_step(&mut self, step: Step<'_>, pixels: Option<Pixels<'_>>) -> Result<(), Stop> {
        self.z_traj.push(step.state.clone());
        self.x_traj.extend(pixels.map(|p| p.state.clone()));
        Ok(())
    }

    fn on_open(&mut self, step: usize, decoded: &State) {
        self.opened = Some((step, decoded.clone()));
    }
}
