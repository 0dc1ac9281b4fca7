//! Hi-DiT's run: the hybrid sampler around its network.

use burn::tensor::{FloatDType, Tensor};

use super::GenerateError;
use super::batch::Batch;
use super::grid::flow_times;
use super::observer::Observer;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use crate::model::hidit::HiDiT;
use crate::noise::Stream;
use crate::sampler::hidit::{Draw, HybridModel, PixelInit, Pixels, Stepper, sample};
use crate::sampler::times::through_gate;
use crate::sampler::{State, Step, Stop};
use crate::settings::Sampler;

/// What a run makes.
pub(super) struct Made {
    /// The pictures, `[B, 3, H, W]`.
    pub image: State,
    /// The decoded latents, where they are wanted.
    pub latent: Option<State>,
    /// Evaluations of the network for each image.
    pub evaluations: Vec<usize>,
}

pub(super) async fn generate(
    pipeline: &Pipeline,
    network: &HiDiT,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<Made, GenerateError> {
    let settings = request.settings;
    let network = match settings.tau {
        Some(tau) => &network.clone().with_gate(tau),
        None => network,
    };
    let guide = pipeline.guide.as_ref().and_then(|guide| guide.network.hybrid());
    // Both networks have pixels at the same times.
    let guide = guide.map(|guide| guide.clone().with_gate(network.tau()));
    let stepper = match settings.sampler {
        Sampler::Heun => Stepper::Heun,
        Sampler::EulerMaruyama => Stepper::EulerMaruyama,
        Sampler::DpmPp2m => Stepper::DpmPp2m,
        Sampler::DpmPp3m => Stepper::DpmPp3m,
        Sampler::DpmPp2s => Stepper::DpmPp2s,
        Sampler::UniPc => Stepper::UniPc,
        _ => Stepper::Euler,
    };
    let times = flow_times(&settings, &pipeline.architecture);
    let times = match stepper {
        // The published samplers take the first time below the gate.
        Stepper::Euler | Stepper::EulerMaruyama => times,
        // With few steps it has to be one of the times.
        _ => through_gate(times, network.tau()),
    };
    let [width, height] = pipeline.image_size();
    let batch = Batch::new(pipeline, request, observer);
    let mut run = Run { batch, network, guide, image: [3, height, width] };
    let start = run.batch.start();
    let result = sample(&mut run, start, &times, stepper, PixelInit::Decode).await?;
    let evaluations = run.batch.evaluations().to_vec();
    let (image, latent) = match result.image {
        Some(image) => {
            let latent = match settings.keep_latent {
                true => Some(pipeline.decode(result.latent)),
                false => None,
            };
            (image, latent)
        }
        // A gate that never opens leaves the latent alone.
        None => (pipeline.decode(result.latent), None),
    };
    Ok(Made { image, latent, evaluations })
}

struct Run<'a> {
    batch: Batch<'a>,
    network: &'a HiDiT,
    guide: Option<HiDiT>,
    image: [usize; 3],
}

impl Run<'_> {
    /// A state in the network's precision, `[B + G, C, H, W]`.
    fn input(&self, x: State, guided: &[usize]) -> Tensor<4> {
        self.batch.input(x, self.batch.pipeline.precision, guided)
    }
}

impl HybridModel for Run<'_> {
    fn gate(&self, t: f64) -> bool {
        self.network.gate(t)
    }

    fn t_min(&self) -> f64 {
        self.network.t_min()
    }

    async fn latent(&mut self, z: State, t: f64, step_time: f64) -> Result<State, Stop> {
        let guided = self.batch.evaluation(t, step_time);
        let z = self.input(z, &guided);
        let of = |network: &HiDiT| {
            let network = network.clone();
            move |Inputs { mut streams, times, labels, .. }: Inputs| {
                vec![network.forward_latent(streams.remove(0), times, labels)]
            }
        };
        let pipeline = self.batch.pipeline;
        // Without pixels the gate is not asked.
        let inputs = self.batch.inputs(vec![z], t, &guided);
        let guide = self.guide.as_ref().map(of);
        let mut results = self.batch.evaluate(inputs, None, of(self.network), guide).await?;
        let velocity = results.remove(0);
        self.batch.compare(|| velocity.clone(), &guided).await?;
        Ok(pipeline.to_state(self.batch.guide(velocity, &guided)))
    }

    async fn hybrid(
        &mut self,
        z: State,
        x: State,
        t: f64,
        step_time: f64,
    ) -> Result<(State, State), Stop> {
        let guided = self.batch.evaluation(t, step_time);
        let (z, x) = (self.input(z, &guided), self.input(x, &guided));
        let of = |network: &HiDiT| {
            let network = network.clone();
            move |Inputs { mut streams, times, labels, .. }: Inputs| {
                let (image, latent) = (streams.remove(1), streams.remove(0));
                let streams = network.forward(latent, image, times, labels);
                vec![streams.velocity, streams.image]
            }
        };
        let pipeline = self.batch.pipeline;
        let inputs = self.batch.inputs(vec![z, x], t, &guided);
        let guide = self.guide.as_ref().map(of);
        let gate = Some(self.network.tau());
        let mut streams = self.batch.evaluate(inputs, gate, of(self.network), guide).await?;
        let image = self.batch.guide(streams.remove(1), &guided);
        let velocity = streams.remove(0);
        self.batch.compare(|| velocity.clone(), &guided).await?;
        let velocity = self.batch.guide(velocity, &guided);
        Ok((pipeline.to_state(velocity), pipeline.to_state(image)))
    }

    async fn decode(&mut self, z: State) -> Result<State, Stop> {
        let pipeline = self.batch.pipeline;
        Ok(pipeline.to_state(pipeline.decode(z)))
    }

    fn noise(&mut self, draw: Draw) -> State {
        let latent = self.batch.pipeline.state_shape();
        match draw {
            Draw::Latent(step) => self.batch.noise(Stream::Step, step, latent),
            Draw::Pixel(step) => self.batch.noise(Stream::PixelStep, step, self.image),
            Draw::PixelStart => self.batch.noise(Stream::PixelStart, 0, self.image),
        }
    }

    async fn on_step(&mut self, step: Step<'_>, pixels: Option<Pixels<'_>>) -> Result<(), Stop> {
        let pixels = pixels.map(|pixels| pixels.clean.clone().cast(FloatDType::F32));
        self.batch.tell(step, pixels.as_ref()).await
    }
}
