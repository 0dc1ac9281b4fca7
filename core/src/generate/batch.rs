//! What runs of one and of two streams share: the images of a request, their noise, guidance, and who is told.

use burn::tensor::{FloatDType, Tensor};

use super::observer::Observer;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use super::{Event, Preview};
use crate::diffusion::guidance::Guidance;
use crate::noise::{self, ImageKey, Stream};
use crate::sampler::{State, Step, Stop};

/// A batch of images.
pub(super) struct Batch<'a> {
    pub pipeline: &'a Pipeline,
    guidance: Guidance,
    classes: Vec<Option<usize>>,
    keys: Vec<ImageKey>,
    observer: &'a mut dyn Observer,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        pipeline: &'a Pipeline,
        request: &Request,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self {
            pipeline,
            guidance: request.settings.guidance,
            classes: request.images.iter().map(|i| i.class).collect(),
            keys: request
                .images
                .iter()
                .map(|i| ImageKey { seed: i.seed, image: i.index })
                .collect(),
            observer,
        }
    }

    /// Standard normal noise of a state, `[B, C, H, W]` in float64.
    pub(super) fn noise(&self, stream: Stream, draw: usize, shape: [usize; 3]) -> State {
        noise::batch(&self.keys, stream, draw as u32, shape, &self.pipeline.state_device)
    }

    /// The state that sampling starts from, before its scale.
    pub(super) fn start(&self) -> State {
        self.noise(Stream::Start, 0, self.pipeline.state_shape())
    }

    /// Whether a step at this time needs the unconditional prediction, too.
    pub(super) fn guided(&self, time: f64) -> bool {
        self.guidance.active(time)
    }

    /// A state on the network's device, `[B, …]`; twice where guidance wants both halves, `[2B, …]`.
    pub(super) async fn input(
        &self,
        x: State,
        precision: FloatDType,
        guided: bool,
    ) -> Result<Tensor<4>, Stop> {
        let x = self.pipeline.to_device(x, precision).await?;
        Ok(if guided { Tensor::cat(vec![x.clone(), x], 0) } else { x })
    }

    /// States as the network takes them, with their times and labels.
    pub(super) fn inputs(&self, streams: Vec<Tensor<4>>, time: f64, guided: bool) -> Inputs {
        let times = self.pipeline.times(time, streams[0].dims()[0]);
        let labels = self.pipeline.labels_tensor(&self.classes, guided);
        Inputs { streams, times, conditions: Vec::new(), labels }
    }

    /// One number for every sample, `[B]` in float32.
    pub(super) fn every(&self, value: f64) -> Tensor<1> {
        self.pipeline.times(value, self.keys.len())
    }

    /// The guided prediction in float32, `[B, …]` of `[B or 2B, …]`.
    pub(super) fn guide(&self, y: Tensor<4>, guided: bool) -> Tensor<4> {
        let b = self.keys.len();
        let y = y.cast(FloatDType::F32);
        match guided {
            true => self.guidance.combine(y.clone().narrow(0, 0, b), y.narrow(0, b, b)),
            false => y,
        }
    }

    /// Tells of a step; the observer may stop it.
    pub(super) async fn tell(
        &mut self,
        step: Step<'_>,
        pixels: Option<&Tensor<4>>,
    ) -> Result<(), Stop> {
        let preview = Preview { clean: step.clean, pixels };
        let Step { index, total, time, .. } = step;
        self.observer.tell(Event::Step { index, total, time, preview }).await
    }
}
