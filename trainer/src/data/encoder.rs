//! What makes latents of images: the encoder of a VA-VAE or of a RAE, frozen.

use anyhow::{Context, Result, bail, ensure};
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::model::rae::{self, RaeDecoderConfig, RaeEncoder};
use tintype::model::vae_config;
use tintype::model::vavae::VaeEncoder;
use tintype::weights::{Weights, load};

/// Side in pixels of a patch of RAE's images, where no decoder says it.
pub const RAE_PATCH: usize = 16;
/// The same of what its encoder sees: DINOv2's. Both have the same tokens.
const DINO_PATCH: usize = 14;

/// An encoder of images.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a process has one
pub enum ImageEncoder {
    /// Of a VA-VAE, whose latents are drawn from a posterior.
    Vae(VaeEncoder),
    /// Of a RAE, whose latents are tokens.
    Rae(RaeEncoder),
}

impl ImageEncoder {
    /// Loads the encoder of an autoencoder's weights in float32, for images of this side. A RAE's are those of DINOv2
    /// with registers, or a checkpoint of its training.
    ///
    /// # Errors
    ///
    /// If the weights hold no encoder or do not fit it, or the side of the images does not.
    pub fn load(weights: &Weights, side: usize, device: &Device) -> Result<Self> {
        if is_rae(weights) {
            return Self::of_rae(weights, side, device).map(Self::Rae);
        }
        let config = vae_config(weights)?;
        check_side(side, config.downsampling())?;
        let half = weights
            .clone()
            .filtered(|name| name.starts_with("encoder.") || name.starts_with("quant_conv."));
        if half.tensors.is_empty() {
            bail!("{} holds no encoder, only a decoder; use the whole autoencoder", weights.file);
        }
        let network = config.init_encoder(device).context("the autoencoder's configuration")?;
        Ok(Self::Vae(load(network, &half, FloatDType::F32, device)?.network))
    }

    fn of_rae(weights: &Weights, side: usize, device: &Device) -> Result<RaeEncoder> {
        let half = rae::encoder_part(weights.clone());
        ensure!(
            !half.tensors.is_empty(),
            "{} holds a RAE's decoder alone; its encoder is DINOv2 with registers (dinov2-b-reg)",
            weights.file
        );
        let patch = match rae::is_decoder(weights) {
            true => RaeDecoderConfig::of(weights)?.patch_size,
            false => RAE_PATCH,
        };
        check_side(side, patch)?;
        Ok(RaeEncoder::from_weights(half, side / patch * DINO_PATCH, device)?)
    }

    /// Whether a latent is drawn from a posterior; else it is the same every time.
    pub fn has_posterior(&self) -> bool {
        matches!(self, Self::Vae(_))
    }

    /// Latents of images in −1…1. Those of a posterior are samples of it, with the standard-normal `noise` for the
    /// shape of a latent.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, side, side]`
    /// * `noise`: is given `[C, h, w]` and returns `B·C·h·w` values; not called without a posterior
    /// * returns `[B, C, h, w]`
    ///
    /// # Panics
    ///
    /// If the images have another shape, or there are not as many values.
    pub fn latents(
        &self,
        images: Tensor<4>,
        noise: impl FnOnce([usize; 3]) -> Vec<f32>,
    ) -> Tensor<4> {
        match self {
            Self::Vae(network) => {
                let device = images.device();
                let posterior = network.encode(images);
                let [b, c, h, w] = posterior.mean.dims();
                let eps = TensorData::new(noise([c, h, w]), [b, c, h, w]);
                posterior.sample(Tensor::from_data(eps, &device))
            }
            Self::Rae(network) => network.forward(images * 0.5 + 0.5),
        }
    }
}

/// Whether weights are a half of a RAE, or both.
pub fn is_rae(weights: &Weights) -> bool {
    rae::is_decoder(weights) || rae::is_encoder(weights)
}

fn check_side(side: usize, downsampling: usize) -> Result<()> {
    ensure!(
        side.is_multiple_of(downsampling),
        "the image resolution {side} is not a multiple of the autoencoder's downsampling factor {downsampling}"
    );
    Ok(())
}
