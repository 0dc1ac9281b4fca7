//! Pictures to show while they develop: in a texture of the device that draws the window, or in memory.

use std::time::{Duration, Instant};

use eframe::{egui, wgpu};
use tintype::burn::tensor::Tensor;
use tintype::generate::{LatentMap, Pipeline, Preview, Previewer};
use tintype::image::{Rgb, Rounding};
use tintype::sampler::Stop;
use tintype_shaders::present::Presenter;

/// A picture to show.
#[derive(Debug)]
pub enum Frame {
    /// In memory.
    Host(egui::ColorImage),
    /// On the device that draws the window.
    Gpu(wgpu::Texture),
}

/// Nobody sees more pictures than the screen shows.
const SHORTEST: Duration = Duration::from_millis(15);

/// Makes frames of the clean estimates of one batch.
pub struct Frames<'a> {
    pipeline: &'a Pipeline,
    previewer: Previewer<'a>,
    /// Draws tensors without reading them back, where network and window share a device.
    presenter: Option<&'a Presenter>,
    shown: Option<Instant>,
}

impl<'a> Frames<'a> {
    /// For the pictures that a pipeline makes together.
    pub fn new(
        pipeline: &'a Pipeline,
        presenter: Option<&'a Presenter>,
        map: &'a mut LatentMap,
    ) -> Self {
        Self { pipeline, previewer: Previewer::new(pipeline, map), presenter, shown: None }
    }

    /// A frame of each picture of the batch; none where the last ones are still fresh.
    ///
    /// # Errors
    ///
    /// * [`Stop::Device`] if the device fails
    /// * [`Stop::NotFinite`] if a value that is read back is NaN or infinite
    pub async fn of(&mut self, preview: Preview<'_>) -> Result<Option<Vec<Frame>>, Stop> {
        if self.shown.is_some_and(|at| at.elapsed() < SHORTEST) {
            return Ok(None);
        }
        let images = self.previewer.images(preview).await?;
        let frames = self.show(images).await?;
        self.shown = Some(Instant::now());
        Ok(Some(frames))
    }

    async fn show(&self, images: Tensor<4>) -> Result<Vec<Frame>, Stop> {
        if let Some(presenter) = self.presenter {
            let grey = match self.pipeline.rounding() {
                Rounding::Half => 127.5,
                // Of two levels that a value lies between, a fraction that is cut off takes the upper one.
                Rounding::Up | Rounding::Even => 128.0,
            };
            let drawn: Option<Vec<_>> = (0..images.dims()[0])
                .map(|index| presenter.draw(&images, index, grey).map(Frame::Gpu))
                .collect();
            if let Some(drawn) = drawn {
                return Ok(drawn);
            }
        }
        let pictures = self.pipeline.pictures(images).await?;
        Ok(pictures.iter().map(|rgb| Frame::Host(colour_image(rgb))).collect())
    }
}

/// A picture as egui wants it.
pub fn colour_image(rgb: &Rgb) -> egui::ColorImage {
    egui::ColorImage::from_rgb([rgb.width, rgb.height], &rgb.pixels)
}
