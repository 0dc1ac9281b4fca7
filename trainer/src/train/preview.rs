//! Preview images during training, from the pipeline of `generate`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{Event, ImageSpec, LatentStats, Parts, Pipeline, Request};
use tintype::image::Rgb;
use tintype::weights::{TensorView, Weights, open_autoencoder};

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
    imager: Imager,
}

impl Previewer {
    /// Opens the autoencoder.
    ///
    /// # Errors
    ///
    /// If the autoencoder cannot be read.
    pub fn open(config: PreviewConfig, stats: Option<&LatentStats>) -> Result<Self> {
        let imager = Imager::open(config.vae.as_deref(), stats)?;
        Ok(Self { config, imager })
    }

    /// A grid of samples of a network.
    ///
    /// # Errors
    ///
    /// As [`Imager::generate`].
    pub fn draw(&self, model: &Weights, device: &Device) -> Result<Rgb> {
        let PreviewConfig { count, steps, cfg, .. } = self.config;
        let spec = |i: usize, class| ImageSpec::new(class, i as u64, 0);
        let wish = Wish { count, batch: 8, steps, cfg, spec: &spec };
        let mut previews = Vec::new();
        self.imager.generate(model, device, &wish, &mut |mut images| {
            previews.append(&mut images);
            Ok(true)
        })?;
        Ok(Rgb::grid(&previews, 8, 2))
    }
}

/// Makes images of a network in training.
#[derive(Debug)]
pub struct Imager {
    vae: Option<Weights>,
    stats: Option<Weights>,
}

/// Which images.
pub struct Wish<'a> {
    /// Number of images, spread over the classes.
    pub count: usize,
    /// Images at a time.
    pub batch: usize,
    /// Sampling steps; default: as in `generate`.
    pub steps: Option<usize>,
    /// Guidance scale; default: as in `generate`.
    pub cfg: Option<f64>,
    /// The image of a number and a class.
    pub spec: &'a dyn Fn(usize, Option<usize>) -> ImageSpec,
}

impl Imager {
    /// Opens the autoencoder.
    ///
    /// # Errors
    ///
    /// If the autoencoder cannot be read.
    pub fn open(vae: Option<&Path>, stats: Option<&LatentStats>) -> Result<Self> {
        let vae = vae.map(open_autoencoder).transpose()?;
        Ok(Self { vae, stats: stats.map(as_weights).transpose()? })
    }

    /// Gives the images of a network to `take`, batch by batch, until that returns false.
    ///
    /// # Errors
    ///
    /// * The network, the autoencoder or the statistics cannot be loaded together, or the settings do not
    ///   fit the network.
    /// * The device or `take` fails.
    pub fn generate(
        &self,
        model: &Weights,
        device: &Device,
        wish: &Wish<'_>,
        take: &mut dyn FnMut(Vec<Rgb>) -> Result<bool>,
    ) -> Result<()> {
        let parts =
            Parts { model, vae: self.vae.as_ref(), stats: self.stats.as_ref(), guide: None };
        let pipeline = Pipeline::load(parts, FloatDType::F32, device)?;
        let mut settings = pipeline.architecture().default_settings();
        settings.steps = wish.steps.unwrap_or(settings.steps);
        settings.guidance.scale = wish.cfg.unwrap_or(settings.guidance.scale);
        let classes = pipeline.architecture().num_classes();
        let image = |i: usize| {
            (wish.spec)(i, (classes > 0).then(|| i * classes / wish.count.max(1) % classes))
        };
        let images: Vec<ImageSpec> = (0..wish.count).map(image).collect();
        for images in images.chunks(wish.batch.max(1)) {
            let request = Request { settings, images: images.to_vec() };
            let mut pictures = Vec::new();
            pollster::block_on(pipeline.generate(&request, &mut async |event: Event<'_>| {
                if let Event::Image(picture) = event {
                    pictures.push(picture.image);
                }
                Ok(())
            }))?;
            if !take(pictures)? {
                break;
            }
        }
        Ok(())
    }
}

fn as_weights(stats: &LatentStats) -> Result<Weights> {
    let view =
        |v: &[f32]| TensorView::from_f32(stats.shape.to_vec(), v).map_err(anyhow::Error::msg);
    let tensors =
        [("mean".to_string(), view(&stats.mean)?), ("std".to_string(), view(&stats.std)?)];
    Ok(Weights {
        file: "the latents' statistics".into(),
        tensors: tensors.into(),
        ..Weights::default()
    })
}
