//! The second half of guidance, computed by another worker at the same time: in a browser, whose WebAssembly has one
//! thread, by another worker with the same model. What goes there and back are plain values in float32, which is what
//! the CPU computes in, so a picture does not depend on who computed.

use std::fmt;
use std::pin::Pin;

use burn::tensor::{DType, FloatDType, Tensor, TensorData};

use super::pipeline::Pipeline;
use super::replay::Inputs;
use crate::sampler::{Stop, read};

/// Samples of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// `[G, C, H, W]`
    pub shape: [usize; 4],
    /// Its values, the last axis innermost.
    pub values: Vec<f32>,
}

/// What the second half of guidance is evaluated at: the unconditional samples of G images.
#[derive(Clone, Debug, PartialEq)]
pub struct Half {
    /// The network's streams: one, or a Hi-DiT's latents and pixels.
    pub streams: Vec<Rows>,
    /// The network's time of each sample.
    pub times: Vec<f32>,
    /// The label of each sample.
    pub labels: Vec<i32>,
    /// The time of a Hi-DiT's gate, where there are pixels.
    pub gate: Option<f64>,
}

/// What a network makes of a [`Half`], of as many streams as it has; `None` where nothing came, or not all of it.
pub type Answer = Pin<Box<dyn Future<Output = Option<Vec<Rows>>>>>;

type Ask = dyn Fn(Half) -> Option<Answer> + Send + Sync;

/// Somebody who computes the second half of guidance.
pub struct SecondHalf(Box<Ask>);

/// Why a [`Half`] is not computed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HalfError {
    /// Its streams, times or labels are not those of the network.
    #[error("these samples are not of this network")]
    Unfit,
    /// The device failed.
    #[error(transparent)]
    Stopped(#[from] Stop),
}

impl SecondHalf {
    /// `ask` has the work begun when it comes back, for the answer is not awaited before the first half is computed;
    /// `None` where nobody is there to begin it.
    pub fn new(ask: impl Fn(Half) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self(Box::new(ask))
    }

    /// Has these samples computed.
    pub(super) async fn ask(&self, inputs: &Inputs, gate: Option<f64>) -> Option<Answer> {
        (self.0)(Half::of(inputs, gate).await?)
    }
}

impl fmt::Debug for SecondHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecondHalf")
    }
}

impl Half {
    /// `None` of states that are not in float32, or where the device cannot be read.
    async fn of(inputs: &Inputs, gate: Option<f64>) -> Option<Self> {
        let mut streams = Vec::new();
        for stream in &inputs.streams {
            streams.push(Rows::of(stream).await?);
        }
        let times = read(inputs.times.clone()).await.ok()?;
        // As floats, which hold their numbers exactly.
        let labels = read(inputs.labels.clone().float().cast(FloatDType::F32)).await.ok()?;
        Some(Self {
            streams,
            times: times.iter::<f32>().collect(),
            labels: labels.iter::<f32>().map(|label| label as i32).collect(),
            gate,
        })
    }
}

impl Rows {
    /// `None` where it is not in float32, or cannot be read.
    async fn of(x: &Tensor<4>) -> Option<Self> {
        if x.dtype() != DType::F32 {
            return None;
        }
        let data = read(x.clone()).await.ok()?;
        Some(Self { shape: x.dims(), values: data.iter::<f32>().collect() })
    }

    /// Whether they are so many samples of such a shape.
    fn is(&self, count: usize, [channels, height, width]: [usize; 3]) -> bool {
        self.shape == [count, channels, height, width]
            && self.values.len() == self.shape.iter().product::<usize>()
    }

    fn data(self) -> TensorData {
        TensorData::new(self.values, self.shape)
    }
}

/// The tensors of an answer; `None` where they cannot stand behind those of the first half.
pub(super) fn tensors(
    answer: Vec<Rows>,
    first: &[Tensor<4>],
    count: usize,
) -> Option<Vec<Tensor<4>>> {
    if answer.len() != first.len() {
        return None;
    }
    let tensor = |(rows, first): (Rows, &Tensor<4>)| {
        let [_, channels, height, width] = first.dims();
        let fits = first.dtype() == DType::F32 && rows.is(count, [channels, height, width]);
        fits.then(|| Tensor::from_data(rows.data(), (&first.device(), DType::F32)))
    };
    answer.into_iter().zip(first).map(tensor).collect()
}

impl Pipeline {
    /// Has the second half of guidance computed by another worker from now on, while this pipeline computes the first
    /// one. What does not come is computed here, too. A guide's half always is.
    pub fn share(&mut self, second_half: SecondHalf) {
        self.second_half = Some(second_half);
    }

    /// Computes the second half of guidance for another pipeline of the same model.
    ///
    /// # Errors
    ///
    /// * [`HalfError::Unfit`] where the samples are not of this network
    /// * [`HalfError::Stopped`] where the device cannot be read
    pub async fn second_half(&self, half: Half) -> Result<Vec<Rows>, HalfError> {
        if !self.fits(&half) {
            return Err(HalfError::Unfit);
        }
        let Half { streams, times, labels, gate } = half;
        let count = times.len();
        let options = (&self.device, DType::F32);
        let times = Tensor::from_data(TensorData::new(times, [count]), options);
        let labels = Tensor::from_data(TensorData::new(labels, [count]), &self.device);
        let tensor = |rows: Rows| Tensor::<4>::from_data(rows.data(), options);
        let mut streams: Vec<Tensor<4>> = streams.into_iter().map(tensor).collect();
        let latent = streams.remove(0);
        let results = match (streams.pop(), self.network.hybrid(), gate) {
            (Some(image), Some(network), Some(tau)) => {
                let network = network.clone().with_gate(tau);
                let streams = network.forward(latent, image, times, labels);
                vec![streams.velocity, streams.image]
            }
            _ => vec![self.network.predict(latent, times, labels)],
        };
        let mut rows = Vec::new();
        for result in results {
            let shape = result.dims();
            let data = read(result.cast(FloatDType::F32)).await?;
            rows.push(Rows { shape, values: data.iter::<f32>().collect() });
        }
        Ok(rows)
    }

    /// Whether the network can be evaluated at such samples.
    fn fits(&self, half: &Half) -> bool {
        let count = half.times.len();
        let [width, height] = self.image_size();
        let are_its_own = match &half.streams[..] {
            [state] => state.is(count, self.state_shape()),
            [latent, image] => {
                let is_hybrid = self.network.hybrid().is_some() && half.gate.is_some();
                is_hybrid
                    && latent.is(count, self.state_shape())
                    && image.is(count, [3, height, width])
            }
            _ => false,
        };
        let known = |&label: &i32| (0..=self.architecture.num_classes() as i32).contains(&label);
        let labelled = half.labels.len() == count && half.labels.iter().all(known);
        count > 0 && are_its_own && labelled
    }
}
