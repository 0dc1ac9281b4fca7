//! VA-VAE: the vision-aligned autoencoder of LightningDiT (Yao et al., CVPR 2025,
//! arXiv 2501.01423), CompVis' KL autoencoder by construction; REPA-E's f16d32 and f8d4 networks
//! are the same with other numbers.
//!
//! Images are in −1…1. Encoder and decoder load separately, since sampling needs only one.

use burn::module::Module;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{InvalidConfig, ensure};
use crate::nn::attention::attention;
use crate::nn::conv::Conv2d;
use crate::nn::norm::GroupNorm;

/// Shape of the autoencoder; keys are the `ddconfig` of its YAML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Base width, divisible by `num_groups`.
    pub ch: usize,
    /// Width of each level over `ch`, finest first; the latent is 2^(levels−1) times smaller.
    pub ch_mult: Vec<usize>,
    /// Residual blocks a level; the decoder has one more.
    pub num_res_blocks: usize,
    /// Channels of the latent inside the quant convolutions.
    pub z_channels: usize,
    /// Channels of the latent; `z_channels` if absent.
    #[serde(default)]
    pub embed_dim: Option<usize>,
    /// Image channels in.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Image channels out.
    #[serde(default = "three")]
    pub out_ch: usize,
    /// The image side that decides which levels have attention (not the actual input's).
    #[serde(default = "default_resolution")]
    pub resolution: usize,
    /// Level sides, in pixels of that level, with attention after every residual block.
    #[serde(default = "default_attn_resolutions")]
    pub attn_resolutions: Vec<usize>,
    /// Groups of every GroupNorm.
    #[serde(default = "default_groups")]
    pub num_groups: usize,
}

fn three() -> usize {
    3
}
fn default_resolution() -> usize {
    256
}
fn default_attn_resolutions() -> Vec<usize> {
    vec![16]
}
fn default_groups() -> usize {
    32
}

impl VaeConfig {
    /// VA-VAE f16d32, the autoencoder of LightningDiT, REPA-E and Hi-DiT.
    pub fn f16d32() -> Self {
        Self {
            ch: 128,
            ch_mult: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            z_channels: 32,
            embed_dim: None,
            in_channels: 3,
            out_ch: 3,
            resolution: 256,
            attn_resolutions: vec![16],
            num_groups: 32,
        }
    }

    /// The f8d4 autoencoder of Stable Diffusion.
    pub fn f8d4() -> Self {
        Self { ch_mult: vec![1, 2, 4, 4], z_channels: 4, ..Self::f16d32() }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        self.embed_dim.unwrap_or(self.z_channels)
    }

    /// How many times smaller than the image the latent is.
    ///
    /// # Panics
    ///
    /// If `ch_mult` is empty.
    pub fn downsampling(&self) -> usize {
        1 << (self.ch_mult.len() - 1)
    }

    fn width(&self, level: usize) -> usize {
        self.ch * self.ch_mult[level]
    }

    fn has_attention(&self, level: usize) -> bool {
        self.attn_resolutions.contains(&(self.resolution >> level))
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        ensure!(!self.ch_mult.is_empty() && self.ch_mult.len() < 16, "ch_mult has no sane length");
        ensure!(self.num_groups > 0, "num_groups must be positive");
        for level in 0..self.ch_mult.len() {
            ensure!(
                self.width(level) > 0 && self.width(level).is_multiple_of(self.num_groups),
                "level {level}: {} channels do not split into {} groups",
                self.width(level),
                self.num_groups
            );
        }
        ensure!(
            self.ch.is_multiple_of(self.num_groups),
            "ch {} does not split into {} groups",
            self.ch,
            self.num_groups
        );
        ensure!(self.num_res_blocks > 0, "num_res_blocks must be positive");
        ensure!(self.z_channels > 0 && self.latent_channels() > 0, "z_channels must be positive");
        Ok(())
    }

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
                let [_, _, height, width] = h.dims();
                let nearest = InterpolateOptions::new(InterpolateMode::Nearest);
                h = upsample.conv.forward(interpolate(h, [2 * height, 2 * width], nearest));
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

/// Residual blocks, each followed by attention where the level has it.
fn run_level(blocks: &[ResBlock], attn: &[AttnBlock], mut h: Tensor<4>) -> Tensor<4> {
    for (i, block) in blocks.iter().enumerate() {
        h = block.forward(h);
        if let Some(attn) = attn.get(i) {
            h = attn.forward(h);
        }
    }
    h
}

#[derive(Module, Debug)]
struct Mid {
    block_1: ResBlock,
    attn_1: AttnBlock,
    block_2: ResBlock,
}

impl Mid {
    fn new(width: usize, groups: usize, device: &Device) -> Self {
        Self {
            block_1: ResBlock::new(width, width, groups, device),
            attn_1: AttnBlock::new(width, groups, device),
            block_2: ResBlock::new(width, width, groups, device),
        }
    }

    fn forward(&self, h: Tensor<4>) -> Tensor<4> {
        self.block_2.forward(self.attn_1.forward(self.block_1.forward(h)))
    }
}

#[derive(Module, Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(c_in: usize, c_out: usize, groups: usize, device: &Device) -> Self {
        Self {
            norm1: GroupNorm::new(groups, c_in, device),
            conv1: Conv2d::same(c_in, c_out, 3, device),
            norm2: GroupNorm::new(groups, c_out, device),
            conv2: Conv2d::same(c_out, c_out, 3, device),
            nin_shortcut: (c_in != c_out).then(|| Conv2d::same(c_in, c_out, 1, device)),
        }
    }

    /// `[B, in, H, W]` → `[B, out, H, W]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv1.forward(self.norm1.silu(x.clone()));
        let shortcut = match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        self.conv2.forward_residual(shortcut, self.norm2.silu(h))
    }
}

#[derive(Module, Debug)]
struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    fn new(c: usize, groups: usize, device: &Device) -> Self {
        let conv = || Conv2d::same(c, c, 1, device);
        Self {
            norm: GroupNorm::new(groups, c, device),
            q: conv(),
            k: conv(),
            v: conv(),
            proj_out: conv(),
        }
    }

    /// One head over all positions, `[B, C, H, W]` → the same
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let y = self.norm.forward(x.clone());
        let tokens = |conv: &Conv2d| -> Tensor<4> {
            conv.forward(y.clone()).reshape([b, 1, c, h * w]).swap_dims(2, 3) // [B, 1, H·W, C]
        };
        let scale = 1.0 / (c as f64).sqrt();
        let out = attention(tokens(&self.q), tokens(&self.k), tokens(&self.v), scale, None);
        self.proj_out.forward_residual(x, out.swap_dims(2, 3).reshape([b, c, h, w]))
    }
}
