//! The run of a network with one stream: latents of SiT, LightningDiT and DiT-DH, pixels of HDiT and JiT. Networks of
//! average velocities have a run of their own.

use std::sync::Arc;

use burn::tensor::{FloatDType, Tensor};

use super::GenerateError;
use super::batch::Batch;
use super::grid::flow_times;
use super::observer::Observer;
use super::one_by_one::OneByOne;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use crate::diffusion::flow::Interpolant;
use crate::diffusion::karras::flow_velocity;
use crate::model::{Clock, Network, Process};
use crate::noise::Stream;
use crate::sampler::{
    Model, State, Step, Stop, dpm_solver, flow, flow_multistep, karras, schedules,
};
use crate::settings::{Sampler, Settings};

/// The final states `[B, C, H, W]`, and how often the network was evaluated for each image.
pub(super) async fn generate(
    pipeline: &Pipeline,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<(State, Vec<usize>), GenerateError> {
    let count = request.images.len();
    if count <= 1 || !request.settings.sampler.is_adaptive() {
        return together(pipeline, request, observer).await;
    }
    let mut batch = OneByOne::new(observer, count);
    let mut evaluations = Vec::with_capacity(count);
    for &image in &request.images {
        let alone = Request { settings: request.settings, images: vec![image] };
        let (state, rows) = together(pipeline, &alone, &mut batch).await?;
        batch.add(state);
        evaluations.extend(rows);
    }
    Ok((batch.all(), evaluations))
}

/// The same of images that take the same steps.
async fn together(
    pipeline: &Pipeline,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<(State, Vec<usize>), GenerateError> {
    let mut run = Run(Batch::new(pipeline, request, observer));
    let start = run.0.start();
    let (process, settings) = (pipeline.architecture.process(), request.settings);
    let state = match process {
        Process::Denoiser { .. } => {
            let [sigma_min, sigma_max] = settings.karras.levels(process);
            let start = start * sigma_max;
            denoise(&mut run, start, settings, [sigma_min, sigma_max]).await?
        }
        // Also of a mean flow that is asked for its velocities alone.
        Process::Flow(_) | Process::Hybrid { .. } | Process::MeanFlow => {
            let times = flow_times(&settings, &pipeline.architecture);
            flow_down(&mut run, start, settings.sampler, &times).await?
        }
    };
    Ok((state, run.0.evaluations().to_vec()))
}

async fn flow_down<M: Model>(
    run: &mut M,
    x: State,
    sampler: Sampler,
    times: &[f64],
) -> Result<State, Stop> {
    let path = Interpolant::Linear;
    match sampler {
        Sampler::EulerMaruyama => flow::euler_maruyama(run, x, times, path).await,
        Sampler::Heun => flow::heun(run, x, times, path).await,
        Sampler::DpmPp2m => flow_multistep::dpmpp_2m(run, x, times).await,
        Sampler::DpmPp3m => flow_multistep::dpmpp_3m(run, x, times).await,
        Sampler::DpmPp2s => flow_multistep::dpmpp_2s(run, x, times).await,
        Sampler::UniPc => flow_multistep::unipc(run, x, times, 3).await,
        Sampler::Dopri5 => {
            let tolerance = flow::Tolerance { relative: 1e-3, absolute: 1e-6 };
            let ends = [times[0], times[times.len() - 1]];
            let mut states = flow::dopri5(run, x, &ends, tolerance).await?;
            Ok(states.remove(1))
        }
        _ => flow::euler(run, x, times, path).await,
    }
}

async fn denoise<M: Model>(
    run: &mut M,
    x: State,
    settings: Settings,
    [min, max]: [f64; 2],
) -> Result<State, Stop> {
    let options = settings.karras;
    let sigmas = schedules::karras(settings.steps, min, max, options.rho());
    let s = &sigmas;
    let (churn, noise) = (options.churn(), options.stochastic(1.0));
    match settings.sampler {
        Sampler::Heun => karras::heun(run, x, s, churn).await,
        Sampler::Dpm2 => karras::dpm_2(run, x, s, churn).await,
        Sampler::EulerAncestral => karras::euler_ancestral(run, x, s, noise).await,
        Sampler::Dpm2Ancestral => karras::dpm_2_ancestral(run, x, s, noise).await,
        Sampler::Lms => karras::lms(run, x, s, 4).await,
        Sampler::DpmPp2sAncestral => karras::dpmpp_2s_ancestral(run, x, s, noise).await,
        Sampler::DpmPpSde => karras::dpmpp_sde(run, x, s, noise).await,
        Sampler::DpmPp2m => karras::dpmpp_2m(run, x, s).await,
        Sampler::DpmPp2mSde => {
            karras::dpmpp_2m_sde(run, x, s, noise, karras::SdeSolver::Midpoint).await
        }
        Sampler::DpmPp3mSde => karras::dpmpp_3m_sde(run, x, s, noise).await,
        Sampler::DpmFast => {
            let noise = options.stochastic(0.0);
            dpm_solver::dpm_fast(run, x, min, max, settings.steps, noise).await
        }
        Sampler::DpmAdaptive => {
            let noise = options.stochastic(0.0);
            let adaptive = dpm_solver::Adaptive { noise, ..Default::default() };
            Ok(dpm_solver::dpm_adaptive(run, x, min, max, adaptive).await?.0)
        }
        _ => karras::euler(run, x, s, churn).await,
    }
}

struct Run<'a>(Batch<'a>);

impl Run<'_> {
    /// The network's prediction: a velocity on this library's clock, or a denoised image.
    ///
    /// * `x`: `[B + G, C, H, W]` in float32 for G guided images; returns the same shape
    async fn evaluate(
        &mut self,
        x: Tensor<4>,
        time: f64,
        guided: &[usize],
    ) -> Result<Tensor<4>, Stop> {
        Ok(match self.0.pipeline.architecture.process() {
            Process::Flow(Clock::NoiseAtOne) | Process::Hybrid { .. } | Process::MeanFlow => {
                self.velocity(x, time, guided).await?
            }
            Process::Flow(Clock::NoiseAtZero) => -self.velocity(x, 1.0 - time, guided).await?,
            Process::Denoiser { .. } => {
                let inputs = self.0.inputs(vec![x], time, guided);
                let (images, second) = self.0.halves(inputs);
                let network = &*self.0.pipeline.network;
                let here = |inputs: Inputs| Ok(vec![predict(network, inputs)]);
                let first = self.0.shared(images, None, here).await?.remove(0);
                match second {
                    Some((guide, inputs)) => {
                        Tensor::cat(vec![first, predict(&*guide.network, inputs)], 0)
                    }
                    None => first,
                }
            }
        })
    }

    /// The velocity at one time on the network's clock.
    async fn velocity(
        &mut self,
        x: Tensor<4>,
        time: f64,
        guided: &[usize],
    ) -> Result<Tensor<4>, Stop> {
        let pipeline = self.0.pipeline;
        // A velocity to an estimate of the image is a difference to the state, which is not rounded for it.
        let is_of_estimate = pipeline.architecture.time_floor() > 0.0;
        let x = if is_of_estimate { x } else { x.cast(pipeline.precision) };
        let inputs = self.0.inputs(vec![x], time, guided);
        let of = |network: &Arc<dyn Network>| {
            let network = network.clone();
            move |inputs: Inputs| vec![predict(&*network, inputs)]
        };
        let guide = pipeline.guide.as_ref().map(|guide| of(&guide.network));
        Ok(self.0.evaluate(inputs, None, of(&pipeline.network), guide).await?.remove(0))
    }
}

/// A network's prediction of one stream.
fn predict(network: &dyn Network, inputs: Inputs) -> Tensor<4> {
    let Inputs { mut streams, times, labels, .. } = inputs;
    network.predict(streams.remove(0), times, labels)
}

impl Model for Run<'_> {
    async fn predict(&mut self, x: State, time: f64, step_time: f64) -> Result<State, Stop> {
        let guided = self.0.evaluation(time, step_time);
        let x = self.0.input(x, FloatDType::F32, &guided);
        let y = self.evaluate(x.clone(), time, &guided).await?;
        let denoises = matches!(self.0.pipeline.architecture.process(), Process::Denoiser { .. });
        let velocity = || match denoises {
            true => flow_velocity(x, y.clone().cast(FloatDType::F32), time),
            false => y.clone(),
        };
        self.0.compare(velocity, &guided).await?;
        Ok(self.0.pipeline.to_state(self.0.guide(y, &guided)))
    }

    fn noise(&mut self, draw: usize) -> State {
        self.0.noise(Stream::Step, draw, self.0.pipeline.state_shape())
    }

    async fn on_step(&mut self, step: Step<'_>) -> Result<(), Stop> {
        // Below the floor the velocity `(z − x̂)/floor` does not lead to x̂, which is what the step shows.
        let floor = self.0.pipeline.architecture.time_floor();
        if step.time <= 0.0 || step.time >= floor {
            return self.0.tell(step, None).await;
        }
        let change = step.clean.clone() - step.state.clone();
        let clean = step.state.clone() + change * (floor / step.time);
        self.0.tell(Step { clean: &clean, ..step }, None).await
    }
}
