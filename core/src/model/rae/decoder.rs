//! RAE's decoder: transformers' ViT-MAE decoder with a class token of its own, under the authors' names.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::RaeDecoderConfig;
use crate::image::imagenet_statistics;
use crate::nn::activation::gelu_erf;
use crate::nn::attention::attention;
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::LayerNorm;
use crate::nn::patch::unpatchify;
use crate::nn::position::sin_cos_2d;
use crate::nn::{constant, learned_table};
use crate::resize::{Method, resize_tensor};

/// Tokens → image.
#[derive(Module, Debug)]
pub struct RaeDecoder {
    decoder_embed: Linear,
    trainable_cls_token: Param<Tensor<3>>,
    decoder_pos_embed: Param<Tensor<3>>,
    decoder_layers: Vec<Layer>,
    decoder_norm: LayerNorm,
    decoder_pred: Linear,
    patch_size: usize,
    grid: usize,
}

impl RaeDecoder {
    /// Of a valid configuration.
    pub(super) fn new(config: &RaeDecoderConfig, device: &Device) -> Self {
        let (d, grid, patch_size) = (config.decoder_hidden_size, config.grid, config.patch_size);
        let linear = |d_in, d_out| Linear::new(d_in, d_out, Init::FanIn, device);
        let positions = move || {
            let table = sin_cos_2d(d, grid);
            // Row 0 is that of the class token.
            vec![0.0; d].into_iter().chain(table.into_iter().map(|v| v as f32)).collect()
        };
        Self {
            decoder_embed: linear(config.latent_channels, d),
            trainable_cls_token: constant([1, 1, d], 0.0, device),
            decoder_pos_embed: learned_table([1, 1 + grid * grid, d], positions, device),
            decoder_layers: (0..config.decoder_num_hidden_layers)
                .map(|_| Layer::new(config, device))
                .collect(),
            decoder_norm: LayerNorm::new(d, config.layer_norm_eps, device),
            decoder_pred: linear(d, 3 * patch_size * patch_size),
            patch_size,
            grid,
        }
    }

    /// The image, about 0…1 (not clamped), of latents without normalisation, as the encoder gives them. On another grid than
    /// the decoder's the embedded tokens are resized bilinearly.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If C is not the number of latent channels, or a side is 0.
    pub fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        self.forward_observed(z, &mut |_, _| ())
    }

    /// [`forward`](Self::forward) that shows `decoder_embedded`, `decoder_entering_block0`, every `decoder_block{i}` and
    /// `decoder_pred_all_tokens`.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * `observe`: is given `[B, h·w, D]`, then `[B, 1 + N, D]`, at last `[B, 1 + N, 3·p²]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If C is not the number of latent channels, or a side is 0.
    pub fn forward_observed(
        &self,
        z: Tensor<4>,
        observe: &mut dyn FnMut(String, &Tensor<3>),
    ) -> Tensor<4> {
        let features = self.features_observed(z, observe); // [B, 1+N, D]
        let pixels = self.decoder_pred.forward(features); // [B, 1+N, 3·p²]
        observe("decoder_pred_all_tokens".into(), &pixels);
        self.image_of_pixels(pixels)
    }

    /// What enters the decoder's last layer, `decoder_pred`. Training weighs its losses by their gradients there.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 1 + N, D]`
    ///
    /// # Panics
    ///
    /// If C is not the number of latent channels, or a side is 0.
    pub fn features(&self, z: Tensor<4>) -> Tensor<3> {
        self.features_observed(z, &mut |_, _| ())
    }

    /// The image from [`features`](Self::features).
    ///
    /// # Shapes
    ///
    /// * `features`: `[B, 1 + N, D]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Panics
    ///
    /// If the tensor does not have the stated shape.
    pub fn image_of_features(&self, features: Tensor<3>) -> Tensor<4> {
        self.image_of_pixels(self.decoder_pred.forward(features))
    }

    fn features_observed(
        &self,
        z: Tensor<4>,
        observe: &mut dyn FnMut(String, &Tensor<3>),
    ) -> Tensor<3> {
        let [b, c, h, w] = z.dims();
        let tokens = z.reshape([b, c, h * w]).swap_dims(1, 2); // [B, h·w, C]
        let embedded = self.decoder_embed.forward(tokens); // [B, h·w, D]
        observe("decoder_embedded".into(), &embedded);
        let tokens = self.on_own_grid(embedded, [h, w]); // [B, N, D]
        let [_, _, d] = tokens.dims();
        let class = self.trainable_cls_token.val().expand([b, 1, d]);
        let mut x = Tensor::cat(vec![class, tokens], 1) + self.decoder_pos_embed.val(); // [B, 1+N, D]
        observe("decoder_entering_block0".into(), &x);
        for (i, layer) in self.decoder_layers.iter().enumerate() {
            x = layer.forward(x);
            observe(format!("decoder_block{i}"), &x);
        }
        self.decoder_norm.forward(x)
    }

    /// `[B, h·w, D]` → `[B, N, D]`
    fn on_own_grid(&self, tokens: Tensor<3>, [h, w]: [usize; 2]) -> Tensor<3> {
        let ([b, _, d], grid) = (tokens.dims(), self.grid);
        if [h, w] == [grid; 2] {
            return tokens;
        }
        let image = tokens.swap_dims(1, 2).reshape([b, d, h, w]);
        let image = resize_tensor(image, [grid; 2], Method::Bilinear); // [B, D, √N, √N]
        image.reshape([b, d, grid * grid]).swap_dims(1, 2)
    }

    /// `[B, 1+N, 3·p²]` → `[B, 3, H, W]`
    fn image_of_pixels(&self, pixels: Tensor<3>) -> Tensor<4> {
        let n = self.grid * self.grid;
        let image = unpatchify(pixels.narrow(1, 1, n), self.patch_size); // [B, 3, H, W]
        let [mean, std] = imagenet_statistics(&image);
        image * std + mean
    }
}

/// A pre-norm block.
#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Dense,
    output: Dense,
    layernorm_before: LayerNorm,
    layernorm_after: LayerNorm,
}

impl Layer {
    fn new(config: &RaeDecoderConfig, device: &Device) -> Self {
        let (d, inner) = (config.decoder_hidden_size, config.decoder_intermediate_size);
        let norm = || LayerNorm::new(d, config.layer_norm_eps, device);
        Self {
            attention: Attention::new(d, config.decoder_num_attention_heads, device),
            intermediate: Dense::new(d, inner, device),
            output: Dense::new(inner, d, device),
            layernorm_before: norm(),
            layernorm_after: norm(),
        }
    }

    /// `[B, 1+N, D]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attention.forward(self.layernorm_before.forward(x));
        let inner = self.intermediate.dense.forward(self.layernorm_after.forward(x.clone()));
        x + self.output.dense.forward(gelu_erf(inner))
    }
}

#[derive(Module, Debug)]
struct Attention {
    attention: Projections,
    output: Dense,
    heads: usize,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

impl Attention {
    fn new(d: usize, heads: usize, device: &Device) -> Self {
        let linear = || Linear::new(d, d, Init::FanIn, device);
        let attention = Projections { query: linear(), key: linear(), value: linear() };
        Self { attention, output: Dense::new(d, d, device), heads }
    }

    /// `[B, 1+N, D]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let head = d / self.heads;
        let Projections { query, key, value } = &self.attention;
        let [q, k, v] = [query, key, value].map(|layer| -> Tensor<4> {
            layer.forward(x.clone()).reshape([b, n, self.heads, head]).swap_dims(1, 2)
        }); // [B, heads, 1+N, head]
        let out = attention(q, k, v, 1.0 / (head as f64).sqrt(), None);
        self.output.dense.forward(out.swap_dims(1, 2).reshape([b, n, d]))
    }
}

/// transformers' name around a linear layer.
#[derive(Module, Debug)]
struct Dense {
    dense: Linear,
}

impl Dense {
    fn new(d_in: usize, d_out: usize, device: &Device) -> Self {
        Self { dense: Linear::new(d_in, d_out, Init::FanIn, device) }
    }
}
