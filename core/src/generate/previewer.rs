//! What can be seen of a picture while it develops.
//!
//! Pixels are shown as they are. Latents are decoded every few steps; in between, the change since
//! then is added in colours that a linear map makes of it, so that the picture moves at every step and
//! keeps its detail. Latents of too many channels for such a map stand still in between.

use std::time::Duration;

use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{FloatDType, Tensor, TensorData, module};
use web_time::Instant;

use super::latent_map::LatentMap;
use super::{Pipeline, Preview};
use crate::sampler::{State, Stop, read_finite, wait_for};

/// The share of time that decoding may take from the sampler is one in this many.
const DECODE_SHARE: u32 = 9;

/// The latest decoded latents of a batch.
#[derive(Debug)]
struct Decoded {
    /// As the map takes them; empty where that does not learn.
    latents: Vec<f32>,
    images: Tensor<4>,
    /// When that was done, and how long it took.
    at: Instant,
    took: Duration,
}

/// Makes images of the clean estimates of one batch.
#[derive(Debug)]
pub struct Previewer<'a> {
    pipeline: &'a Pipeline,
    map: &'a mut LatentMap,
    decoded: Option<Decoded>,
}

impl<'a> Previewer<'a> {
    /// For the pictures that a pipeline makes together; the map serves every batch of the pipeline.
    pub fn new(pipeline: &'a Pipeline, map: &'a mut LatentMap) -> Self {
        Self { pipeline, map, decoded: None }
    }

    /// What a step shows, in −1…1 and float32. All previews are of the same batch.
    ///
    /// # Shapes
    ///
    /// * returns `[B, 3, H, W]`; of pixel models `[B, C, H, W]`
    ///
    /// # Errors
    ///
    /// * [`Stop::Device`] where the device cannot be read
    /// * [`Stop::NotFinite`] where a value that is read is NaN or infinite
    ///
    /// # Panics
    ///
    /// If the batch has another shape than that of an earlier preview.
    pub async fn images(&mut self, preview: Preview<'_>) -> Result<Tensor<4>, Stop> {
        match (preview.pixels, self.pipeline.latent_channels()) {
            (Some(pixels), _) => Ok(pixels.clone()),
            (None, Some(_)) => self.latents(preview.clean).await,
            (None, None) => Ok(preview.clean.clone().cast(FloatDType::F32)),
        }
    }

    /// Images `[B, 3, H, W]` of latents `[B, C, h, w]`.
    async fn latents(&mut self, clean: &State) -> Result<Tensor<4>, Stop> {
        match &self.decoded {
            Some(last) if last.at.elapsed() < last.took * DECODE_SHARE => {
                self.moved(last, clean).await
            }
            _ => self.decode(clean).await,
        }
    }

    /// The latest decoded images, moved by the change since then.
    async fn moved(&self, last: &Decoded, clean: &State) -> Result<Tensor<4>, Stop> {
        if !self.map.learns() {
            return Ok(last.images.clone());
        }
        let [batch, _, h, w] = clean.dims();
        let latents = values(clean.clone()).await?;
        let change: Vec<f32> =
            latents.iter().zip(&last.latents).map(|(now, then)| now - then).collect();
        let colours = self.map.colours(&change, h * w);
        let colours = TensorData::new(colours, [batch, 3, h, w]);
        let colours = Tensor::<4>::from_data(colours, self.pipeline.device());
        let [_, _, height, width] = last.images.dims();
        let smooth = InterpolateOptions::new(InterpolateMode::Bilinear);
        Ok(last.images.clone() + module::interpolate(colours, [height, width], smooth))
    }

    async fn decode(&mut self, clean: &State) -> Result<Tensor<4>, Stop> {
        let latents = match self.map.learns() {
            true => values(clean.clone()).await?,
            // What the device still has to do for them is not the decoder's time.
            false => wait_for(clean).await.map(|()| Vec::new())?,
        };
        let started = Instant::now();
        let images = self.pipeline.decode(clean.clone());
        match self.map.learns() {
            true => {
                let [_, _, h, w] = clean.dims();
                let [_, _, height, width] = images.dims();
                let means = module::adaptive_avg_pool2d(images.clone(), [h, w]); // [B, 3, h, w]
                debug_assert!(height % h == 0 && width % w == 0);
                self.map.observe(&latents, h * w, &values(means).await?);
            }
            false => wait_for(&images).await?,
        }
        let (at, took) = (Instant::now(), started.elapsed());
        self.decoded = Some(Decoded { latents, images: images.clone(), at, took });
        Ok(images)
    }
}

async fn values(x: Tensor<4>) -> Result<Vec<f32>, Stop> {
    read_finite(x).await?.try_to_vec().map_err(|e| Stop::Device(format!("{e:?}")))
}
