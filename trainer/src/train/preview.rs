//! Preview images during training, from the pipeline of `generate`.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{Event, ImageSpec, LatentStats, Parts, Pipeline, Request};
use tintype::image::Rgb;
use tintype::weights::{TensorView, Weights, open};

/// Preview settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviewConfig {
    /// Training steps between previews.
    pub every: u64,
    /// Number of images, spread over the classes.
    #[serde(default = "default_count")]
    pub count: usize,
    /// Sampling steps; default: as in `generate`.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Guidance scale; default: as in `generate`.
    #[serde(default)]
    pub cfg: Option<f64>,
    /// Autoencoder checkpoint, for latent diffusion.
    #[serde(default)]
    pub vae: Option<PathBuf>,
}

fn default_count() -> usize {
    8
}

/// Generates previews.
#[derive(Debug)]
pub struct Previewer {
    config: PreviewConfig,
    vae: Option<Weights>,
    stats: Option<Weights>,
}

impl Previewer {
    /// Opens the autoencoder.
    ///
    /// # Errors
    ///
    /// If the autoencoder cannot be read.
    pub fn open(config: PreviewConfig, stats: Option<&LatentStats>) -> Result<Self> {
        let vae = match &config.vae {
            Some(path) => Some(open(path)?),
            None => None,
        };
        Ok(Self { config, vae, stats: stats.map(as_weights).transpose()? })
    }

    /// A grid of samples of a network.
    ///
    /// # Errors
    ///
    /// If the network, the autoencoder or the statistics cannot be loaded together, or the settings
    /// do not fit the network, or the device fails.
    pub fn draw(&self, model: &Weights, device: &Device) -> Result<Rgb> {
        let parts = Parts { model, vae: self.vae.as_ref(), stats: self.stats.as_ref() };
        let pipeline = Pipeline::load(parts, FloatDType::F32, device)?;
        let mut settings = pipeline.architecture().default_settings();
        settings.steps = self.config.steps.unwrap_or(settings.steps);
        settings.guidance.scale = self.config.cfg.unwrap_or(settings.guidance.scale);
        let classes = pipeline.architecture().num_classes();
        let image = |i: usize| ImageSpec {
            class: (classes > 0).then(|| i * classes / self.config.count.max(1) % classes),
            seed: i as u64,
            index: 0,
        };
        let images: Vec<ImageSpec> = (0..self.config.count).map(image).collect();
        let mut previews = Vec::new();
        for images in images.chunks(8) {
            let request = Request { settings, images: images.to_vec() };
            pollster::block_on(pipeline.generate(&request, &mut async |event: Event<'_>| {
                if let Event::Image(picture) = event {
                    previews.push(picture.image);
                }
                Ok(())
            }))?;
        }
        Ok(Rgb::grid(&previews, 8, 2))
    }
}

fn as_weights(stats: &LatentStats) -> Result<Weights> {
    let view = |v: &[f32]| TensorView::from_f32(vec![v.len()], v).map_err(anyhow::Error::msg);
    let tensors =
        [("mean".to_string(), view(&stats.mean)?), ("std".to_string(), view(&stats.std)?)];
    Ok(Weights {
        file: "the latents' statistics".into(),
        tensors: tensors.into(),
        ..Weights::default()
    })
}
