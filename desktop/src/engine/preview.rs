//! What can be seen of a picture while it develops.
//!
//! Pixels are shown as they are. Latents are decoded every few steps; in between, the change since
//! then is added in colours that a linear map makes of it, so that the picture moves at every step and
//! keeps its detail.

use std::time::{Duration, Instant};

use eframe::{egui, wgpu};
use tintype::burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use tintype::burn::tensor::{FloatDType, Tensor, TensorData, module};
use tintype::generate::{Pipeline, Preview};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::sampler::{State, Stop};
use tintype_shaders::present::Presenter;

use super::latent_map::LatentMap;

/// A picture to show.
#[derive(Debug)]
pub enum Frame {
    /// In memory.
    Host(egui::ColorImage),
    /// On the device that draws the window.
    Gpu(wgpu::Texture),
}

/// The share of time that decoding may take from the sampler is one in this many.
const DECODE_SHARE: u32 = 9;

/// Nobody sees more pictures than the screen shows.
const SHORTEST: Duration = Duration::from_millis(15);

/// The latest decoded latents of a batch.
struct Decoded {
    latents: Vec<f32>,
    images: Tensor<4>,
    /// When that was done, and how long it took.
    at: Instant,
    took: Duration,
}

/// Makes frames of the clean estimates of one batch.
pub struct Previewer<'a> {
    pipeline: &'a Pipeline,
    /// Draws tensors without reading them back, where network and window share a device.
    presenter: Option<&'a Presenter>,
    map: &'a mut LatentMap,
    decoded: Option<Decoded>,
    shown: Option<Instant>,
}

impl<'a> Previewer<'a> {
    /// For the pictures that a pipeline makes together.
    pub fn new(
        pipeline: &'a Pipeline,
        presenter: Option<&'a Presenter>,
        map: &'a mut LatentMap,
    ) -> Self {
        Self { pipeline, presenter, map, decoded: None, shown: None }
    }

    /// A frame of each picture of the batch; none where the last ones are still fresh.
    pub fn frames(&mut self, preview: Preview<'_>) -> Result<Option<Vec<Frame>>, Stop> {
        if self.shown.is_some_and(|at| at.elapsed() < SHORTEST) {
            return Ok(None);
        }
        let images = match (preview.pixels, self.pipeline.latent_channels()) {
            (Some(pixels), _) => pixels.clone(),
            (None, Some(_)) => self.latents(preview.clean)?,
            (None, None) => preview.clean.clone().cast(FloatDType::F32),
        };
        let frames = self.show(&images)?;
        self.shown = Some(Instant::now());
        Ok(Some(frames))
    }

    /// Images `[B, 3, H, W]` of latents `[B, C, h, w]`.
    fn latents(&mut self, clean: &State) -> Result<Tensor<4>, Stop> {
        let latents = values(clean.clone())?;
        match &self.decoded {
            Some(last) if last.at.elapsed() < last.took * DECODE_SHARE => {
                let [batch, _, h, w] = clean.dims();
                let change: Vec<f32> =
                    latents.iter().zip(&last.latents).map(|(now, then)| now - then).collect();
                let colours = self.map.colours(&change, h * w);
                let colours = TensorData::new(colours, [batch, 3, h, w]);
                let colours = Tensor::<4>::from_data(colours, self.pipeline.device());
                let [_, _, height, width] = last.images.dims();
                let smooth = InterpolateOptions::new(InterpolateMode::Bilinear);
                Ok(last.images.clone() + module::interpolate(colours, [height, width], smooth))
            }
            _ => self.decode(clean, latents),
        }
    }

    fn decode(&mut self, clean: &State, latents: Vec<f32>) -> Result<Tensor<4>, Stop> {
        let started = Instant::now();
        let images = pollster::block_on(self.pipeline.decode(clean.clone()))?;
        let [_, _, h, w] = clean.dims();
        let [_, _, height, width] = images.dims();
        let means = module::adaptive_avg_pool2d(images.clone(), [h, w]); // [B, 3, h, w]
        debug_assert!(height % h == 0 && width % w == 0);
        self.map.observe(&latents, h * w, &values(means)?);
        let (at, took) = (Instant::now(), started.elapsed());
        self.decoded = Some(Decoded { latents, images: images.clone(), at, took });
        Ok(images)
    }

    fn show(&self, images: &Tensor<4>) -> Result<Vec<Frame>, Stop> {
        let rounding = self.pipeline.rounding();
        if let Some(presenter) = self.presenter {
            let grey = match rounding {
                Rounding::Half => 127.5,
                Rounding::Up => 128.0,
            };
            let drawn: Option<Vec<_>> = (0..images.dims()[0])
                .map(|index| presenter.draw(images, index, grey).map(Frame::Gpu))
                .collect();
            if let Some(drawn) = drawn {
                return Ok(drawn);
            }
        }
        let shape = images.dims();
        let data = TensorData::new(values(images.clone())?, shape);
        Ok(to_rgb(&data, rounding).iter().map(|rgb| Frame::Host(colour_image(rgb))).collect())
    }
}

/// A picture as egui wants it.
pub fn colour_image(rgb: &Rgb) -> egui::ColorImage {
    egui::ColorImage::from_rgb([rgb.width, rgb.height], &rgb.pixels)
}

fn values(x: Tensor<4>) -> Result<Vec<f32>, Stop> {
    let failed = |e: String| Stop::Device(e);
    let data = pollster::block_on(x.cast(FloatDType::F32).into_data_async())
        .map_err(|e| failed(format!("{e:?}")))?;
    data.convert::<f32>().try_to_vec().map_err(|e| failed(format!("{e:?}")))
}
