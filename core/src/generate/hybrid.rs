//! Hi-DiT's run: the hybrid sampler around its network.

use burn::tensor::{FloatDType, Tensor};

use super::observer::Observer;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use super::{Event, GenerateError, Preview};
use crate::diffusion::flow::{ode_times, sde_times};
use crate::diffusion::guidance::Guidance;
use crate::model::hidit::HiDiT;
use crate::noise::{self, ImageKey, Stream};
use crate::sampler::hidit::{Draw, HybridModel, PixelInit, Pixels, Stepper, sample};
use crate::sampler::{State, Step, Stop};
use crate::settings::Sampler;

/// The pictures and, where wanted, the decoded latents, `[B, 3, H, W]`.
pub(super) async fn generate(
    pipeline: &Pipeline,
    network: &HiDiT,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<(State, Option<State>), GenerateError> {
    let settings = request.settings;
    let (stepper, times) = match settings.sampler {
        Sampler::Euler => (Stepper::Euler, ode_times(settings.steps)),
        _ => (Stepper::EulerMaruyama, sde_times(settings.steps)),
    };
    let keys: Vec<ImageKey> =
        request.images.iter().map(|i| ImageKey { seed: i.seed, image: i.index }).collect();
    let start =
        noise::batch(&keys, Stream::Start, 0, pipeline.state_shape(), &pipeline.state_device);
    let network = match settings.tau {
        Some(tau) => &network.clone().with_gate(tau),
        None => network,
    };
    let [width, height] = pipeline.image_size();
    let mut run = Run {
        pipeline,
        network,
        guidance: settings.guidance,
        classes: request.images.iter().map(|i| i.class).collect(),
        keys,
        image: [3, height, width],
        clean_image: None,
        observer,
    };
    let result = sample(&mut run, start, &times, stepper, PixelInit::Decode).await?;
    match result.image {
        Some(image) => {
            let latent = match settings.keep_latent {
                true => Some(pipeline.decode(result.latent).await?),
                false => None,
            };
            Ok((image, latent))
        }
        // A gate that never opens leaves the latent alone.
        None => Ok((pipeline.decode(result.latent).await?, None)),
    }
}

struct Run<'a> {
    pipeline: &'a Pipeline,
    network: &'a HiDiT,
    guidance: Guidance,
    classes: Vec<Option<usize>>,
    keys: Vec<ImageKey>,
    image: [usize; 3],
    /// The latest estimate of the image, kept on the network's device for previews.
    clean_image: Option<Tensor<4>>,
    observer: &'a mut dyn Observer,
}

impl Run<'_> {
    /// A state for the network, twice where guidance wants both halves.
    async fn input(&self, x: State, guided: bool) -> Result<Tensor<4>, Stop> {
        let x = self.pipeline.to_device(x, self.pipeline.precision).await?;
        Ok(if guided { Tensor::cat(vec![x.clone(), x], 0) } else { x })
    }

    /// States as the network takes them, with its other inputs.
    fn inputs(&self, streams: Vec<Tensor<4>>, t: f64, guided: bool) -> Inputs {
        let times = self.pipeline.times(t, streams[0].dims()[0]);
        Inputs { streams, times, labels: self.pipeline.labels_tensor(&self.classes, guided) }
    }

    /// The guided prediction in float32, `[B, …]` of `[B or 2B, …]`.
    fn guide(&self, y: Tensor<4>, guided: bool) -> Tensor<4> {
        let b = self.keys.len();
        let y = y.cast(FloatDType::F32);
        match guided {
            true => self.guidance.combine(y.clone().narrow(0, 0, b), y.narrow(0, b, b)),
            false => y,
        }
    }
}

impl HybridModel for Run<'_> {
    fn gate(&self, t: f64) -> bool {
        self.network.gate(t)
    }

    fn t_min(&self) -> f64 {
        self.network.t_min()
    }

    async fn latent(&mut self, z: State, t: f64) -> Result<State, Stop> {
        let guided = self.guidance.active(t);
        let z = self.input(z, guided).await?;
        let network = self.network.clone();
        let evaluate = move |Inputs { mut streams, times, labels }: Inputs| {
            vec![network.forward_latent(streams.remove(0), times, labels)]
        };
        let mut streams = self.pipeline.evaluate(self.inputs(vec![z], t, guided), evaluate);
        let velocity = self.guide(streams.remove(0), guided);
        self.pipeline.to_state(velocity).await
    }

    async fn hybrid(&mut self, z: State, x: State, t: f64) -> Result<(State, State), Stop> {
        let guided = self.guidance.active(t);
        let (z, x) = (self.input(z, guided).await?, self.input(x, guided).await?);
        let network = self.network.clone();
        let evaluate = move |Inputs { mut streams, times, labels }: Inputs| {
            let (image, latent) = (streams.remove(1), streams.remove(0));
            let streams = network.forward(latent, image, times, labels);
            vec![streams.velocity, streams.image]
        };
        let mut streams = self.pipeline.evaluate(self.inputs(vec![z, x], t, guided), evaluate);
        let image = self.guide(streams.remove(1), guided);
        let velocity = self.guide(streams.remove(0), guided);
        self.clean_image = Some(image.clone());
        Ok((self.pipeline.to_state(velocity).await?, self.pipeline.to_state(image).await?))
    }

    async fn decode(&mut self, z: State) -> Result<State, Stop> {
        let image = self.pipeline.decode(z).await?;
        self.pipeline.to_state(image).await
    }

    fn noise(&mut self, draw: Draw) -> State {
        let (stream, step, shape) = match draw {
            Draw::Latent(step) => (Stream::Step, step, self.pipeline.state_shape()),
            Draw::Pixel(step) => (Stream::PixelStep, step, self.image),
            Draw::PixelStart => (Stream::PixelStart, 0, self.image),
        };
        noise::batch(&self.keys, stream, step as u32, shape, &self.pipeline.state_device)
    }

    async fn on_step(&mut self, step: Step<'_>, pixels: Option<Pixels<'_>>) -> Result<(), Stop> {
        let pixels = pixels.and(self.clean_image.as_ref());
        let preview = Preview { clean: step.clean, pixels };
        let Step { index, total, time, .. } = step;
        self.observer.tell(Event::Step { index, total, time, preview }).await
    }
}
