//! The run of networks of average velocities: iMF and pMF.

use std::sync::Arc;

use burn::tensor::FloatDType;

use super::GenerateError;
use super::batch::Batch;
use super::observer::Observer;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use crate::diffusion::guidance::Guidance;
use crate::model::meanflow::{Condition, MeanFlow};
use crate::sampler::mean_flow::{MeanFlowModel, sample, times};
use crate::sampler::{State, Step, Stop};

/// The final states `[B, C, H, W]`.
pub(super) async fn generate(
    pipeline: &Pipeline,
    network: Arc<dyn MeanFlow>,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<State, GenerateError> {
    // Without guidance there is no interval: the networks were trained with all times then.
    let guidance = match request.settings.guidance {
        guidance if guidance.scale == 1.0 => Guidance::NONE,
        guidance => guidance,
    };
    let mut run = Run { batch: Batch::new(pipeline, request, observer), network, guidance };
    let start = run.batch.start();
    Ok(sample(&mut run, start, &times(request.settings.steps)).await?)
}

struct Run<'a> {
    batch: Batch<'a>,
    network: Arc<dyn MeanFlow>,
    guidance: Guidance,
}

impl MeanFlowModel for Run<'_> {
    async fn u(&mut self, z: State, t: f64, h: f64) -> Result<State, Stop> {
        let pipeline = self.batch.pipeline;
        let z = self.batch.input(z, FloatDType::F32, &[]);
        let Guidance { scale, low, high, .. } = self.guidance;
        let conditions = [h, scale, low, high].map(|value| self.batch.every(value));
        let inputs =
            Inputs { conditions: conditions.to_vec(), ..self.batch.inputs(vec![z], t, &[]) };
        let network = self.network.clone();
        let evaluate = move |Inputs { mut streams, times, conditions, labels }: Inputs| {
            let [h, omega, t_min, t_max] = [0, 1, 2, 3].map(|i| conditions[i].clone());
            let condition = Condition { h, omega, t_min, t_max, y: labels };
            vec![network.u(streams.remove(0), times, condition)]
        };
        let u = pipeline.evaluate(inputs, None, evaluate)?.remove(0);
        Ok(pipeline.to_state(u))
    }

    async fn on_step(&mut self, step: Step<'_>) -> Result<(), Stop> {
        self.batch.tell(step, None).await
    }
}
