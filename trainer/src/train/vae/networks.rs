//! The trainable networks but the discriminator: the autoencoder and its projection onto a teacher's features.

use std::collections::BTreeMap;

use anyhow::Result;
use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, Gradients, Tensor};
use tintype::model::vavae::{VaeConfig, VaeDecoder, VaeEncoder};
use tintype::shaders::convolution;
use tintype::weights::{Flat, TensorView, Which, flat, flat_gradients, snapshot, with_flat};

use crate::train::diffusion::fresh;

/// The 1×1 convolution, without bias, from latents to the teacher's features.
#[derive(Module, Debug)]
pub struct LinearProj {
    linear_proj: Projection,
}

#[derive(Module, Debug)]
struct Projection {
    /// `[features, C, 1, 1]`
    weight: Param<Tensor<4>>,
}

impl LinearProj {
    /// From `channels` to `features`, with PyTorch's default initialization.
    pub fn new(channels: usize, features: usize, device: &Device) -> Self {
        let a = 1.0 / (channels as f64).sqrt();
        let weight = Initializer::Uniform { min: -a, max: a };
        Self { linear_proj: Projection { weight: weight.init([features, channels, 1, 1], device) } }
    }

    /// `[B, C, h, w]` → `[B, features, h, w]`
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, features, h, w]`
    ///
    /// # Panics
    ///
    /// If `z` has another number of channels.
    pub fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        convolution(z, self.linear_proj.weight.val(), None, None, 1, [0, 0])
    }
}

/// The trainable networks but the discriminator.
#[derive(Clone, Debug)]
pub struct Networks {
    /// Image to moments.
    pub encoder: VaeEncoder,
    /// Latent to image.
    pub decoder: VaeDecoder,
    /// Latent to the teacher's features, if there is a teacher.
    pub proj: Option<LinearProj>,
}

impl Networks {
    /// Initializes the networks from a seed.
    ///
    /// # Errors
    ///
    /// If the configuration does not describe an autoencoder.
    pub fn fresh(
        config: &VaeConfig,
        features: Option<usize>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        type Never = std::convert::Infallible;
        let c = config.latent_channels();
        Ok(Self {
            encoder: fresh(|d| config.init_encoder(d), seed, device)?,
            decoder: fresh(|d| config.init_decoder(d), seed.wrapping_add(1), device)?,
            proj: match features {
                Some(f) => {
                    let init = |d: &Device| Ok::<_, Never>(LinearProj::new(c, f, d));
                    Some(fresh(init, seed.wrapping_add(2), device)?)
                }
                None => None,
            },
        })
    }

    /// The tensors of the autoencoder and the projection.
    pub fn autoencoder_values(&self, which: Which) -> Flat {
        let mut all = flat(&self.encoder, which);
        all.extend(flat(&self.decoder, which));
        all.extend(self.proj.iter().flat_map(|proj| flat(proj, which)));
        all
    }

    /// The networks with new values of those.
    pub fn with_autoencoder(self, values: &Flat) -> Self {
        Self {
            encoder: with_flat(self.encoder, values),
            decoder: with_flat(self.decoder, values),
            proj: self.proj.map(|proj| with_flat(proj, values)),
        }
    }

    /// Their gradients.
    pub fn autoencoder_gradients(&self, gradients: &Gradients) -> Flat {
        let mut all = flat_gradients(&self.encoder, gradients);
        all.extend(flat_gradients(&self.decoder, gradients));
        all.extend(self.proj.iter().flat_map(|proj| flat_gradients(proj, gradients)));
        all
    }

    /// Their values under their shapes, read back.
    pub fn autoencoder_tensors(&self) -> BTreeMap<String, TensorView> {
        let mut all = snapshot(&self.encoder);
        all.extend(snapshot(&self.decoder));
        all.extend(self.proj.iter().flat_map(snapshot));
        all
    }
}
