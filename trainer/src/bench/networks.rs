//! Benchmarks of whole networks: forward passes, training steps and what follows the gradients in them,
//! sampling, and forward throughput at increasing resolution.

use std::collections::BTreeMap;

use anyhow::{Error, Result, bail};
use tintype::burn::tensor::{FloatDType, Int, Tensor, f16};
use tintype::generate::{Event, ImageSpec, ModelFiles, ModelPaths, Parts, Pipeline, Request};
use tintype::model::hdit::{Conditions, HDiTConfig};
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::vavae::VaeConfig;
use tintype::model::{Architecture, Autoencoder, Network, autoencoder_config, detect};
use tintype::weights::{
    Dtype, TensorView, Weights, computing_in, layout, load_for_inference, snapshot,
};

use super::step::{Step, after_gradients};
use super::{Bench, Measurement};
use crate::train::recipe::Trained;
use crate::train::{hdit, hidit, lightningdit};

/// A network to benchmark.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Its architecture; weights are random, except in [`sample`] of the emoji model.
    pub architecture: Architecture,
    /// The autoencoder of its latents.
    pub vae: Option<Autoencoder>,
}

impl Subject {
    /// A preset by its name, or `emoji`.
    ///
    /// # Errors
    ///
    /// If there is no network of the name, or the emoji model is not in the program.
    pub fn named(name: &str) -> Result<Self> {
        if name == "emoji" {
            let files = ModelFiles::open(&ModelPaths::default())?;
            return Ok(Self {
                name: name.into(),
                architecture: detect(&files.model)?,
                vae: files.vae.as_ref().map(autoencoder_config).transpose()?,
            });
        }
        let Some(preset) = tintype::preset::find(name) else {
            let known: Vec<_> = tintype::preset::all().iter().map(|preset| preset.name).collect();
            bail!("unknown network {name:?}; use emoji, {}", known.join(", "));
        };
        let [_, side, _] = preset.architecture.state_shape();
        let latents = preset.architecture.latent_space();
        let vae = latents.and_then(|latents| published_autoencoder(latents.channels, side));
        Ok(Self { name: name.into(), architecture: preset.architecture, vae })
    }

    /// The network's kind.
    pub(super) fn kind(&self) -> Trained<'_> {
        Trained::of(&self.architecture).expect("presets and the emoji model are of these kinds")
    }

    /// Shape of one state `[C, H, W]`.
    pub(super) fn state(&self) -> [usize; 3] {
        self.architecture.state_shape()
    }

    /// FLOPs of one sample's forward pass (Hi-DiT: of the latent stream).
    fn flops(&self) -> f64 {
        2.0 * match self.kind() {
            Trained::HiDiT(c) => hidit::macs(&c.sit),
            Trained::SiT(c) => hidit::macs(c),
            Trained::LightningDiT(c) => lightningdit::macs(c),
            Trained::HDiT(c) => hdit::macs(c),
            Trained::Imf(c) => c.macs(),
            Trained::Pmf(c) => c.macs(),
            Trained::Jit(c) => c.macs(),
            Trained::DitDh(c) => c.macs(),
        }
    }
}

/// The autoencoder of published latents with so many channels and such a side.
fn published_autoencoder(channels: usize, side: usize) -> Option<Autoencoder> {
    Some(match channels {
        4 => Autoencoder::Vae(VaeConfig::f8d4()),
        768 => Autoencoder::Rae(RaeDecoderConfig::variant("XL", 16 * side)?),
        _ => Autoencoder::Vae(VaeConfig::f16d32()),
    })
}

/// State, times and classes of a batch.
struct Inputs {
    x: Tensor<4>,
    t: Tensor<1>,
    y: Tensor<1, Int>,
}

fn inputs(bench: &Bench, subject: &Subject, batch: usize) -> Inputs {
    let [c, h, w] = subject.state();
    let t: Vec<f32> = (0..batch).map(|i| (i as f32 + 0.5) / batch as f32).collect();
    Inputs {
        x: bench.values([batch, c, h, w]),
        t: Tensor::from_floats(t.as_slice(), &bench.device),
        y: Tensor::zeros([batch], &bench.device),
    }
}

/// Runs `$body` with the subject's network type: its constructor on a device, and its forward pass.
macro_rules! with_network {
    ($subject:expr, |$init:ident, $forward:ident| $body:expr) => {
        match $subject.kind() {
            Trained::HiDiT(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::hidit::HiDiT, i: &Inputs| {
                    network.forward_latent(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::SiT(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::sit::SiT, i: &Inputs| {
                    network.forward(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::LightningDiT(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::lightningdit::LightningDiT,
                                i: &Inputs| {
                    network.forward(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::HDiT(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::hdit::HDiT, i: &Inputs| {
                    let class = network.null_class().map(|_| i.y.clone());
                    let conditions = Conditions { class, ..Conditions::default() };
                    network.forward(i.x.clone(), i.t.clone(), conditions)
                };
                $body
            }
            Trained::Imf(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::imf::Imf, i: &Inputs| {
                    network.predict(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::Pmf(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::pmf::Pmf, i: &Inputs| {
                    network.predict(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::Jit(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::jit::Jit, i: &Inputs| {
                    network.predict(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
            Trained::DitDh(c) => {
                let $init = |device: &_| c.init(device);
                let $forward = |network: &tintype::model::ditdh::DitDh, i: &Inputs| {
                    network.predict(i.x.clone(), i.t.clone(), i.y.clone())
                };
                $body
            }
        }
    };
}

/// Forward passes of a batch.
///
/// # Errors
///
/// If the configuration does not describe a network.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn forward(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let given = inputs(bench, subject, batch);
    let timing = with_network!(subject, |init, forward| {
        let network = computing_in(&init(&bench.device)?, bench.precision);
        bench.clock.time(&bench.device, || {
            forward(&network, &given);
        })
    });
    let flops = subject.flops() * batch as f64;
    Ok(Measurement::new(format!("forward {batch}"), timing, batch as f64, "images/s")
        .operations(flops))
}

/// Forward passes of a batch with the weights as loading keeps them from a file in float16.
///
/// # Errors
///
/// If the configuration does not describe a network.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn forward_f16(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let given = inputs(bench, subject, batch);
    let timing = with_network!(subject, |init, forward| {
        let network = init(&bench.device)?;
        let file = float16(layout(&network))?;
        let network = load_for_inference(network, &file, bench.precision, &bench.device)?.network;
        bench.clock.time(&bench.device, || {
            forward(&network, &given);
        })
    });
    let flops = subject.flops() * batch as f64;
    let name = format!("forward, float16 weights {batch}");
    Ok(Measurement::new(name, timing, batch as f64, "images/s").operations(flops))
}

/// A file of tensors of these shapes in float16, with small values that repeat: drawing as many as a large
/// network has takes longer than its forward pass.
fn float16(shapes: BTreeMap<String, Vec<usize>>) -> Result<Weights> {
    const BLOCK: usize = 65_521; // a prime number, so that the rows of a matrix differ
    let value = |i: usize| f16::from_f64(0.04 * ((i * 40_503 % BLOCK) as f64 / BLOCK as f64 - 0.5));
    let block: Vec<u8> = (0..BLOCK).flat_map(|i| value(i).to_le_bytes()).collect();
    let tensor = |(name, shape): (String, Vec<usize>)| -> Result<(String, TensorView)> {
        let count: usize = shape.iter().product();
        let mut bytes = block.repeat(count.div_ceil(BLOCK));
        bytes.truncate(2 * count);
        let view = TensorView::from_bytes(Dtype::F16, shape, bytes).map_err(Error::msg)?;
        Ok((name, view))
    };
    let tensors = shapes.into_iter().map(tensor).collect::<Result<_>>()?;
    Ok(Weights { file: "random weights".into(), tensors, ..Weights::default() })
}

/// Training steps of a batch: forward, backward, clipping by the global norm, AdamW on float32
/// parameters. Counted as three forward passes.
///
/// # Errors
///
/// If the configuration does not describe a network.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn train(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let tracked = Bench { device: bench.device.clone().autodiff(), ..bench.clone() };
    let given = inputs(&tracked, subject, batch);
    let target = tracked.values_on(given.x.dims(), &tracked.device);
    let timing = with_network!(subject, |init, forward| {
        let mut step = Step::new(init(&tracked.device)?);
        bench.clock.time(&bench.device, || {
            step.run(|network| {
                let y = forward(&computing_in(network, bench.precision), &given);
                (y.cast(FloatDType::F32) - target.clone()).square().mean()
            });
        })
    });
    let flops = 3.0 * subject.flops() * batch as f64;
    Ok(Measurement::new(format!("train {batch}"), timing, batch as f64, "images/s")
        .operations(flops))
}

/// What follows the gradients in a training step, in float32: clipping by the global norm, AdamW, the EMA.
///
/// # Errors
///
/// If the configuration does not describe a network.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn optimizer(bench: &Bench, subject: &Subject) -> Result<Vec<Measurement>> {
    let device = bench.device.clone().autodiff();
    with_network!(subject, |init, _forward| {
        let step = Step::new(init(&device)?);
        Ok(after_gradients(bench, step))
    })
}

/// Sampling with the network's default settings, from noise to 8-bit images on the host; `steps`
/// overrides the number of steps. The emoji model has its own weights, other networks random ones.
///
/// # Errors
///
/// If the network or its autoencoder cannot be made or loaded, or if the settings do not fit it, or
/// the device fails.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn sample(
    bench: &Bench,
    subject: &Subject,
    batch: usize,
    steps: Option<usize>,
) -> Result<Measurement> {
    let pipeline = if subject.name == "emoji" {
        let files = ModelFiles::open(&ModelPaths::default())?;
        Pipeline::load(files.parts(), bench.precision, &bench.device)?
    } else {
        untrained(bench, subject)?
    };
    let mut settings = pipeline.architecture().default_settings();
    settings.steps = steps.unwrap_or(settings.steps);
    let images = |seed| ImageSpec::new(pipeline.labels().len().checked_sub(1), seed, 0);
    let request = Request { settings, images: (0..batch as u64).map(images).collect() };
    let mut failed = None;
    let timing = bench.clock.time(&bench.device, || {
        let mut quiet = async |_: Event<'_>| Ok(());
        if let Err(error) = pollster::block_on(pipeline.generate(&request, &mut quiet)) {
            failed = Some(error);
        }
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Measurement::new(format!("sample {batch}"), timing, batch as f64, "images/s")),
    }
}

/// The network and its autoencoder with random weights.
fn untrained(bench: &Bench, subject: &Subject) -> Result<Pipeline> {
    let cpu = tintype::burn::tensor::Device::flex();
    let model = with_network!(subject, |init, _forward| snapshot(&init(&cpu)?));
    let config = match subject.kind() {
        Trained::HDiT(c) => hdit::config(c),
        _ => subject.architecture.config(),
    };
    let weights = |tensors, config: serde_json::Value| Weights {
        file: "random weights".into(),
        tensors,
        metadata: [("config".to_string(), config.to_string())].into(),
        ..Weights::default()
    };
    let model = weights(model, config);
    let vae = match &subject.vae {
        Some(config) => Some(weights(snapshot(&config.init_decoder(&cpu)?), config.config())),
        None => None,
    };
    let stats = stats(subject)?;
    let parts = Parts { model: &model, vae: vae.as_ref(), stats: stats.as_ref(), guide: None };
    Ok(Pipeline::load(parts, bench.precision, &bench.device)?)
}

/// Latent statistics, for networks that do not contain them.
fn stats(subject: &Subject) -> Result<Option<Weights>> {
    let latents = subject.architecture.latent_space();
    let Some(latents) = latents.filter(|latents| latents.needs_statistics) else {
        return Ok(None);
    };
    let row = |value: f32| {
        let shape = vec![1, latents.channels, 1, 1];
        TensorView::from_f32(shape, &vec![value; latents.channels]).map_err(Error::msg)
    };
    let tensors = [("mean".to_string(), row(0.0)?), ("std".to_string(), row(1.0)?)].into();
    Ok(Some(Weights { file: "statistics".into(), tensors, ..Weights::default() }))
}

/// A forward pass of one image of resolution `side`, in pixels per second: constant if a network
/// scales linearly in the number of pixels.
///
/// # Errors
///
/// If the network is not an HDiT, or cannot be made for this side.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn scaling(bench: &Bench, subject: &Subject, side: usize) -> Result<Measurement> {
    let Trained::HDiT(config) = subject.kind() else {
        bail!(
            "{} has a fixed resolution; `scaling` needs an HDiT, such as hdit-ffhq-1024",
            subject.name
        )
    };
    let config = HDiTConfig { input_size: [side, side], ..config.clone() };
    let sized = Subject { architecture: config.into(), ..subject.clone() };
    let mut measurement = forward(bench, &sized, 1)?;
    measurement.name = format!("forward {side} x {side}");
    measurement.rate *= (side * side) as f64 / 1e6;
    measurement.unit = "Mpixel/s";
    Ok(measurement)
}
