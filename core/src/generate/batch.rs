//! What runs of one and of two streams share: the images of a request, their noise, guidance, and who is told.
//!
//! Guidance is an image's own: where it ends when both velocities agree, a batch goes on with a smaller second
//! half. The rows of an evaluation are all images conditionally, and then the guided ones unconditionally, or by the
//! guide. Another worker may compute the unconditional ones at the same time.

use burn::tensor::{FloatDType, Int, Tensor};

use super::guide::Guide;
use super::observer::Observer;
use super::pipeline::Pipeline;
use super::replay::Inputs;
use super::request::Request;
use super::second_half::tensors;
use super::{Event, Preview};
use crate::diffusion::guidance::Guidance;
use crate::noise::{self, ImageKey, Stream};
use crate::sampler::{State, Step, Stop, read_finite, wait_for};

/// A device is waited for at every so many steps.
const STEPS_AHEAD: usize = 2;

/// A batch of images.
pub(super) struct Batch<'a> {
    pub pipeline: &'a Pipeline,
    guidance: Guidance,
    classes: Vec<Option<usize>>,
    keys: Vec<ImageKey>,
    /// The cosine at which guidance of an image ends, and of which images it did.
    agreement: Option<f64>,
    agreed: Vec<bool>,
    /// Rows that each image was evaluated in.
    evaluations: Vec<usize>,
    /// The labels of the latest evaluation, and its guided images.
    labels: Option<(Vec<usize>, Tensor<1, Int>)>,
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
                .map(|i| ImageKey { seed: i.seed, image: i.index, blend: i.blend })
                .collect(),
            agreement: request.settings.agreement,
            agreed: vec![false; request.images.len()],
            evaluations: vec![0; request.images.len()],
            labels: None,
            observer,
        }
    }

    /// Standard normal noise of a state, `[B, C, H, W]`.
    pub(super) fn noise(&self, stream: Stream, draw: usize, shape: [usize; 3]) -> State {
        noise::batch(&self.keys, stream, draw as u32, shape, &self.pipeline.device)
    }

    /// The state that a flow starts from; a denoiser's before its scale.
    pub(super) fn start(&self) -> State {
        let noise = self.noise(Stream::Start, 0, self.pipeline.state_shape());
        match self.pipeline.architecture.noise_scale() {
            1.0 => noise,
            scale => noise * scale,
        }
    }

    /// An evaluation at a time begins, of a step that began at another: the images that need the second half of
    /// guidance, too.
    pub(super) fn evaluation(&mut self, time: f64, step_time: f64) -> Vec<usize> {
        let interval = self.pipeline.architecture.interval();
        let active = interval.is_guided(&self.guidance, time, step_time);
        let needs = |&image: &usize| active && !self.agreed[image];
        let guided: Vec<usize> = (0..self.keys.len()).filter(needs).collect();
        self.evaluations.iter_mut().for_each(|rows| *rows += 1);
        guided.iter().for_each(|&image| self.evaluations[image] += 1);
        guided
    }

    /// How often the network was evaluated for each image; a guided evaluation is two.
    pub(super) fn evaluations(&self) -> &[usize] {
        &self.evaluations
    }

    /// A state in the network's precision, `[B, …]`, with the guided images once more, `[B + G, …]`.
    pub(super) fn input(&self, x: State, precision: FloatDType, guided: &[usize]) -> Tensor<4> {
        let x = x.cast(precision);
        match guided.is_empty() {
            true => x,
            false => Tensor::cat(vec![x.clone(), rows(x, guided)], 0),
        }
    }

    /// States as the network takes them, with their times and labels.
    pub(super) fn inputs(
        &mut self,
        streams: Vec<Tensor<4>>,
        time: f64,
        guided: &[usize],
    ) -> Inputs {
        let times = self.pipeline.times(time, streams[0].dims()[0]);
        Inputs { streams, times, conditions: Vec::new(), labels: self.labels(guided) }
    }

    /// Labels of all rows, `[B + G]`, uploaded where other images are guided than before.
    fn labels(&mut self, guided: &[usize]) -> Tensor<1, Int> {
        if let Some((known, labels)) = &self.labels
            && known == guided
        {
            return labels.clone();
        }
        let labels = self.pipeline.labels_tensor(&self.classes, guided);
        self.labels = Some((guided.to_vec(), labels.clone()));
        labels
    }

    /// The inputs of the network and, where there is a guide, those of the guide: the rows behind the images.
    pub(super) fn halves(&self, inputs: Inputs) -> (Inputs, Option<(&Guide, Inputs)>) {
        let (images, [rows]) = (self.keys.len(), inputs.times.dims());
        match &self.pipeline.guide {
            Some(guide) if rows > images => {
                let second = inputs.rows(images, rows - images);
                (inputs.rows(0, images), Some((guide, second)))
            }
            _ => (inputs, None),
        }
    }

    /// What the network makes of all rows; with a guide, this one makes those behind the images.
    ///
    /// * returns each of the network's results, `[B + G, …]`
    pub(super) async fn evaluate<F: Fn(Inputs) -> Vec<Tensor<4>> + Clone + Send + 'static>(
        &self,
        inputs: Inputs,
        gate: Option<f64>,
        network: F,
        guide: Option<F>,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        let (images, second) = self.halves(inputs);
        let here = |inputs: Inputs| self.pipeline.evaluate(inputs, gate, network.clone());
        let first = self.shared(images, gate, here).await?;
        let (Some((other, inputs)), Some(guide)) = (second, guide) else { return Ok(first) };
        let second = self.pipeline.evaluate_guide(other, inputs, gate, guide)?;
        Ok(joined(first, second))
    }

    /// What a network without a guide makes of all rows. Those behind the images are computed by another worker where
    /// there is one, and here where nothing comes of it.
    ///
    /// * `here`: the network of this pipeline
    /// * returns each of the network's results, `[B + G, …]`
    pub(super) async fn shared(
        &self,
        inputs: Inputs,
        gate: Option<f64>,
        here: impl Fn(Inputs) -> Result<Vec<Tensor<4>>, Stop>,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        let (images, [rows]) = (self.keys.len(), inputs.times.dims());
        let other = self.pipeline.second_half.as_ref().filter(|_| rows > images);
        let Some(other) = other else { return here(inputs) };
        let count = rows - images;
        let second = inputs.rows(images, count);
        let Some(answer) = other.ask(&second, gate).await else { return here(inputs) };
        let first = here(inputs.rows(0, images))?;
        let answer = answer.await.and_then(|answer| tensors(answer, &first, count));
        let second = match answer {
            Some(second) => second,
            None => here(second)?,
        };
        Ok(joined(first, second))
    }

    /// One number for every sample, `[B]` in float32.
    pub(super) fn every(&self, value: f64) -> Tensor<1> {
        self.pipeline.times(value, self.keys.len())
    }

    /// Ends the guidance of images whose two velocities agree, from the next evaluation on.
    ///
    /// * `velocity`: `[B + G, …]`; asked for where there is something to decide
    pub(super) async fn compare(
        &mut self,
        velocity: impl FnOnce() -> Tensor<4>,
        guided: &[usize],
    ) -> Result<(), Stop> {
        let Some(agreement) = self.agreement.filter(|_| !guided.is_empty()) else { return Ok(()) };
        let data = read_finite(velocity()).await?;
        let values = data.as_slice::<f32>().map_err(|error| Stop::Device(format!("{error:?}")))?;
        let size = values.len() / (self.keys.len() + guided.len());
        let (cond, uncond) = values.split_at(self.keys.len() * size);
        for (&image, uncond) in guided.iter().zip(uncond.chunks(size.max(1))) {
            let cond = &cond[image * size..(image + 1) * size];
            self.agreed[image] = cosine(cond, uncond) >= agreement;
        }
        Ok(())
    }

    /// The guided prediction in float32, `[B, …]` of `[B + G, …]`.
    pub(super) fn guide(&self, y: Tensor<4>, guided: &[usize]) -> Tensor<4> {
        let (b, g) = (self.keys.len(), guided.len());
        let y = y.cast(FloatDType::F32);
        if g == 0 {
            return y;
        }
        let (cond, uncond) = (y.clone().narrow(0, 0, b), y.narrow(0, b, g));
        let combined = self.guidance.combine(rows(cond.clone(), guided), uncond);
        if g == b {
            return combined;
        }
        let row = |image: usize| match guided.binary_search(&image) {
            Ok(place) => combined.clone().narrow(0, place, 1),
            Err(_) => cond.clone().narrow(0, image, 1),
        };
        Tensor::cat((0..b).map(row).collect(), 0)
    }

    /// Tells of a step; the observer may stop it.
    ///
    /// Nothing in a step waits for the device. A processor that is faster than its GPU would hand it all steps at
    /// once: progress would be at its end before the first picture is begun, and whoever cancels would wait for all of
    /// them. So no more than [`STEPS_AHEAD`] are under way. The first one is waited for, so that what it took can be
    /// measured. Waiting reads a number, as a browser can wait in no other way; it also tells of NaN long before the
    /// picture is read.
    pub(super) async fn tell(
        &mut self,
        step: Step<'_>,
        pixels: Option<&Tensor<4>>,
    ) -> Result<(), Stop> {
        let Step { index, total, time, clean, .. } = step;
        if index.is_multiple_of(STEPS_AHEAD) {
            wait_for(clean).await?;
        }
        let preview = Preview { clean, pixels };
        self.observer.tell(Event::Step { index, total, time, preview }).await
    }
}

/// Each of a network's results, `[B + G, …]` of `[B, …]` and `[G, …]`.
fn joined(first: Vec<Tensor<4>>, second: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
    first.into_iter().zip(second).map(|(a, b)| Tensor::cat(vec![a, b], 0)).collect()
}

/// Some images of a batch, `[G, …]` of `[B, …]`, in rising order.
fn rows(x: Tensor<4>, images: &[usize]) -> Tensor<4> {
    if images.len() == x.dims()[0] {
        return x;
    }
    Tensor::cat(images.iter().map(|&image| x.clone().narrow(0, image, 1)).collect(), 0)
}

/// The cosine of two velocities. Computed here, as a device's sums may depend on the batch.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::diffusion::karras::flow_velocity;

    #[test]
    fn velocities_agree_where_they_point_the_same_way() {
        assert!((cosine(&[1.0, 2.0, -3.0], &[2.0, 4.0, -6.0]) - 1.0).abs() < 1e-15);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-7);
        assert!(cosine(&[0.0, 0.0], &[1.0, 1.0]).is_nan(), "no direction agrees with none");
    }

    /// At a high noise level all estimates of the noise agree, whatever the class; velocities do not.
    #[test]
    fn a_denoisers_velocity_decides_and_not_its_noise() {
        let row = |values: [f32; 4]| Tensor::<4>::from_floats([[[values]]], &Device::default());
        let values = |x: Tensor<4>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let sigma = 80.0;
        let x = row([1.0, -1.0, 1.0, -1.0]) * sigma;
        let noise = |denoised: f32| values((x.clone() - row([denoised; 4])) / sigma);
        let velocity = |denoised: f32| values(flow_velocity(x.clone(), row([denoised; 4]), sigma));
        assert!(cosine(&noise(0.5), &noise(-0.5)) > 0.9999);
        assert!(cosine(&velocity(0.5), &velocity(-0.5)) < 0.9);
    }
}
