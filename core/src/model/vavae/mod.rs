//! VA-VAE: the vision-aligned autoencoder of LightningDiT (Yao et al., CVPR 2025,
//! arXiv 2501.01423), CompVis' KL autoencoder by construction; REPA-E's f16d32 and f8d4 networks
//! are the same with other numbers.
//!
//! Images are in −1…1. Encoder and decoder load separately, since sampling needs only one.

mod blocks;
mod config;
mod diffusers;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use config::VaeConfig;
pub(super) use diffusers::is_diffusers;

use self::blocks::{AttnBlock, Mid, ResBlock, run_level};
use super::InvalidConfig;
use crate::nn::conv::Conv2d;
use crate::nn::norm::GroupNorm;

impl VaeConfig {
    /// The untrained encoder.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init_encoder(&self, device: &Device) -> Result<VaeEncoder, InvalidConfig> {
        self.validate()?;
        let levels = self.ch_mult.len();
        let mut width = self.ch;
        let down = (0..levels)
            .map(|level| {
                let blocks = self.blocks(&mut width, level, self.num_res_blocks, device);
                let downsample = (level + 1 < levels)
                    .then(|| Resample { conv: Conv2d::downsample(width, device) });
                DownLevel { block: blocks.0, attn: blocks.1, downsample }
            })
            .collect();
        let z = self.z_channels;
        Ok(VaeEncoder {
            encoder: Encoder {
                conv_in: Conv2d::same(self.in_channels, self.ch, 3, device),
                down,
                mid: Mid::new(width, self.num_groups, device),
                norm_out: GroupNorm::new(self.num_groups, width, device),
                conv_out: Conv2d::same(width, 2 * z, 3, device),
            },
            quant_conv: Conv2d::same(2 * z, 2 * self.latent_channels(), 1, device),
        })
    }

    /// The untrained decoder.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](Self::validate) fails.
    pub fn init_decoder(&self, device: &Device) -> Result<VaeDecoder, InvalidConfig> {
        self.validate()?;
        let last = self.ch_mult.len() - 1;
        let inner = self.width(last);
        let mut width = inner;
        let mut up: Vec<_> = (0..=last)
            .rev()
            .map(|level| {
                let blocks = self.blocks(&mut width, level, self.num_res_blocks + 1, device);
                let upsample =
                    (level > 0).then(|| Resample { conv: Conv2d::same(width, width, 3, device) });
                UpLevel { block: blocks.0, attn: blocks.1, upsample }
            })
            .collect();
        up.reverse();
        let z = self.z_channels;
        Ok(VaeDecoder {
            post_quant_conv: Conv2d::same(self.latent_channels(), z, 1, device),
            decoder: Decoder {
                conv_in: Conv2d::same(z, inner, 3, device),
                mid: Mid::new(inner, self.num_groups, device),
                up,
                norm_out: GroupNorm::new(self.num_groups, width, device),
                conv_out: Conv2d::same(width, self.out_ch, 3, device),
            },
        })
    }

    /// The residual and attention blocks of a level; the first one changes the width.
    fn blocks(
        &self,
        width: &mut usize,
        level: usize,
        count: usize,
        device: &Device,
    ) -> (Vec<ResBlock>, Vec<AttnBlock>) {
        let (out, groups) = (self.width(level), self.num_groups);
        let block = |_| ResBlock::new(std::mem::replace(width, out), out, groups, device);
        let blocks = (0..count).map(block).collect();
        let attention = if self.has_attention(level) { count } else { 0 };
        (blocks, (0..attention).map(|_| AttnBlock::new(out, groups, device)).collect())
    }
}

/// Image → moments of the posterior.
#[derive(Module, Debug)]
pub struct VaeEncoder {
    encoder: Encoder,
    quant_conv: Conv2d,
}

impl VaeEncoder {
    /// The posterior of images in −1…1; f is [`VaeConfig::downsampling`].
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`
    /// * returns a posterior over `[B, C, H/f, W/f]`
    ///
    /// # Panics
    ///
    /// If the image does not have three channels.
    pub fn encode(&self, x: Tensor<4>) -> Posterior {
        Posterior::from_moments(self.moments(x))
    }

    /// Mean and log-variance side by side.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]` in −1…1
    /// * returns `[B, 2·C, H/f, W/f]`
    ///
    /// # Panics
    ///
    /// If the image does not have three channels.
    pub fn moments(&self, x: Tensor<4>) -> Tensor<4> {
        self.moments_observed(x, &mut |_, _| ())
    }

    /// [`moments`](Self::moments) that shows `conv_in`, every `after_level{l}` and `encoder_out`.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]` in −1…1
    /// * returns `[B, 2·C, H/f, W/f]`
    ///
    /// # Panics
    ///
    /// If the image does not have three channels.
    pub fn moments_observed(
        &self,
        x: Tensor<4>,
        observe: &mut dyn FnMut(String, &Tensor<4>),
    ) -> Tensor<4> {
        let h = self.features_observed(x, observe); // [B, c, H/f, W/f]
        let h = self.encoder.conv_out.forward(h); // [B, 2·z, H/f, W/f]
        observe("encoder_out".into(), &h);
        self.quant_conv.forward(h) // [B, 2·C, H/f, W/f]
    }

    /// What enters the encoder's last convolution. Training weighs its losses by their gradients
    /// there.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]` in −1…1
    /// * returns `[B, c, H/f, W/f]`
    ///
    /// # Panics
    ///
    /// If the image does not have three channels.
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        self.features_observed(x, &mut |_, _| ())
    }

    /// The moments from [`features`](Self::features).
    ///
    /// # Shapes
    ///
    /// * `h`: `[B, c, h, w]`
    /// * returns `[B, 2·C, h, w]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn moments_of_features(&self, h: Tensor<4>) -> Tensor<4> {
        self.quant_conv.forward(self.encoder.conv_out.forward(h))
    }

    fn features_observed(
        &self,
        x: Tensor<4>,
        observe: &mut dyn FnMut(String, &Tensor<4>),
    ) -> Tensor<4> {
        let mut h = self.encoder.conv_in.forward(x); // [B, ch, H, W]
        observe("conv_in".into(), &h);
        for (l, level) in self.encoder.down.iter().enumerate() {
            h = run_level(&level.block, &level.attn, h);
            if let Some(downsample) = &level.downsample {
                h = downsample.conv.forward(h); // [B, c, H/2, W/2]
            }
            observe(format!("after_level{l}"), &h);
        }
        self.encoder.norm_out.silu(self.encoder.mid.forward(h)) // [B, c, H/f, W/f]
    }
}

/// Latent → image.
#[derive(Module, Debug)]
pub struct VaeDecoder {
    post_quant_conv: Conv2d,
    decoder: Decoder,
}

impl VaeDecoder {
    /// The image, about −1…1 (neither squashed nor clamped).
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 3, h·f, w·f]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.image_of_features(self.features(z))
    }

    /// The image from [`features`](Self::features).
    ///
    /// # Shapes
    ///
    /// * `h`: `[B, c, H, W]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn image_of_features(&self, h: Tensor<4>) -> Tensor<4> {
        self.decoder.conv_out.forward(h)
    }

    /// What enters the decoder's last convolution. Training weighs its losses by their gradients
    /// there.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, c, h·f, w·f]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn features(&self, z: Tensor<4>) -> Tensor<4> {
        let decoder = &self.decoder;
        let mut h = decoder.conv_in.forward(self.post_quant_conv.forward(z)); // [B, c, h, w]
        h = decoder.mid.forward(h);
        for level in decoder.up.iter().rev() {
            h = run_level(&level.block, &level.attn, h);
            if let Some(upsample) = &level.upsample {
                h = upsample.conv.forward_upsampled(h); // [B, c, 2·h, 2·w]
            }
        }
        decoder.norm_out.silu(h)
    }
}

/// The diagonal Gaussian of an encoded image.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// `[B, C, h, w]`
    pub mean: Tensor<4>,
    /// Clamped to −30…20, `[B, C, h, w]`
    pub logvar: Tensor<4>,
}

impl Posterior {
    /// From moments, the means first.
    ///
    /// # Shapes
    ///
    /// * `moments`: `[B, 2·C, h, w]`
    /// * returns a posterior over `[B, C, h, w]`
    pub fn from_moments(moments: Tensor<4>) -> Self {
        let c = moments.dims()[1] / 2;
        Self {
            mean: moments.clone().narrow(1, 0, c),
            logvar: moments.narrow(1, c, c).clamp(-30.0, 20.0),
        }
    }

    /// Standard deviation, `[B, C, h, w]`.
    pub fn std(&self) -> Tensor<4> {
        (self.logvar.clone() * 0.5).exp()
    }

    /// `mean + std·eps` for standard-normal `eps`; the mode is `mean`.
    ///
    /// # Shapes
    ///
    /// * `eps`: `[B, C, h, w]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn sample(&self, eps: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.std() * eps
    }

    /// Divergence from N(0, 1), summed over each sample: `[B]`.
    pub fn kl(&self) -> Tensor<1> {
        let b = self.mean.dims()[0];
        let terms =
            self.mean.clone().square() + self.logvar.clone().exp() - 1.0 - self.logvar.clone();
        terms.sum_dims(&[1, 2, 3]).reshape([b]) * 0.5
    }
}

#[derive(Module, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down: Vec<DownLevel>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Module, Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    up: Vec<UpLevel>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Module, Debug)]
struct DownLevel {
    block: Vec<ResBlock>,
    attn: Vec<AttnBlock>,
    downsample: Option<Resample>,
}

#[derive(Module, Debug)]
struct UpLevel {
    block: Vec<ResBlock>,
    attn: Vec<AttnBlock>,
    upsample: Option<Resample>,
}

#[derive(Module, Debug)]
struct Resample {
    conv: Conv2d,
}
