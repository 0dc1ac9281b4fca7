//! HDiT: Hourglass Diffusion Transformer (Crowson et al., ICML 2024, arXiv 2401.11605), as
//! k-diffusion's `image_transformer_v2` computes it.
//!
//! A transformer on pixels, without an autoencoder, linear in the pixel count: the outer levels
//! attend to neighborhoods (or shifted windows), the innermost to everything; levels are joined by
//! 2×2 token merges and splits with learned lerps. Conditions act through AdaRMSNorm.
//! Where paper and code differ, this follows the code.
//!
//! **It has no clock: it is told the noise level σ** (as `ln σ / 4`, see [`c_noise`]), which sampling
//! takes from `sigma_max` (noise) down to 0 (data). Images are in −1…1.

mod blocks;
mod config;
mod denoiser;
mod mapping;
mod tokens;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor};

pub use blocks::{
    AttentionBlock, FeedForwardBlock, Layer, cosine_similarity_scale, geglu, shifted_window_mask,
};
pub use config::{FAMILY, HDiTConfig, LevelAttention, PerLevel};
pub use tokens::{TokenMerge, TokenSplit, TokenUnpatch};

use super::InvalidConfig;
use crate::nn::linear::{Init, Linear};
use crate::nn::normal;
use mapping::{ClassEmbedding, FourierFeatures, Mapping, RmsNorm};

/// Length of the augmentation condition.
pub const AUGMENT_FEATURES: usize = 9;

impl HDiTConfig {
    /// The untrained network, whose output is exactly zero.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where [`validate`](HDiTConfig::validate) fails.
    pub fn init(&self, device: &Device) -> Result<HDiT, InvalidConfig> {
        self.validate()?;
        let (levels, m) = (self.depths.len(), self.mapping_width);
        let inner = levels - 1;
        // The layer index runs on through down and up path: it decides which windows are shifted.
        let mut number = 0;
        let mut layers = |level: usize, indices: std::ops::Range<usize>| -> Vec<Layer> {
            let (w, f, dropout) = (self.widths[level], self.d_ff(level), self.dropout(level));
            let layer = |i| {
                number += 1;
                Layer::new(w, f, m, self.attention(level), i, dropout, number, device)
            };
            indices.map(layer).collect()
        };
        let patch = self.patch_size[0] * self.patch_size[1] * self.input_channels;
        let (first, kernel) = (self.widths[0], self.patch_size);
        let fan_in = Init::FanIn;
        Ok(HDiT {
            patch_in: TokenMerge::new(patch, first, kernel, device),
            time_emb: FourierFeatures::new(1, m, device),
            time_in_proj: Linear::without_bias(m, m, fan_in, device),
            aug_emb: FourierFeatures::new(AUGMENT_FEATURES, m, device),
            aug_in_proj: Linear::without_bias(m, m, fan_in, device),
            class_emb: (self.num_classes > 0)
                .then(|| ClassEmbedding { weight: normal([self.num_classes + 1, m], 1.0, device) }),
            mapping_cond_in_proj: (self.mapping_cond_dim > 0)
                .then(|| Linear::without_bias(self.mapping_cond_dim, m, fan_in, device)),
            mapping: Mapping::new(
                m,
                self.mapping_depth,
                self.mapping_d_ff.unwrap_or(3 * m),
                self.mapping_dropout_rate,
                device,
            ),
            down_levels: (0..inner).map(|l| layers(l, 0..self.depths[l])).collect(),
            mid_level: layers(inner, 0..self.depths[inner]),
            up_levels: (0..inner).map(|l| layers(l, self.depths[l]..2 * self.depths[l])).collect(),
            merges: (0..inner)
                .map(|l| TokenMerge::new(4 * self.widths[l], self.widths[l + 1], [2, 2], device))
                .collect(),
            splits: (0..inner)
                .map(|l| TokenSplit::new(self.widths[l + 1], 4 * self.widths[l], device))
                .collect(),
            out_norm: RmsNorm::new(first, device),
            patch_out: TokenUnpatch::new(first, patch, kernel, device),
            num_classes: self.num_classes,
            sigma_data: self.sigma_data,
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct HDiT {
    patch_in: TokenMerge,
    time_emb: FourierFeatures,
    time_in_proj: Linear,
    aug_emb: FourierFeatures,
    aug_in_proj: Linear,
    class_emb: Option<ClassEmbedding>,
    mapping_cond_in_proj: Option<Linear>,
    mapping: Mapping,
    down_levels: Vec<Vec<Layer>>,
    mid_level: Vec<Layer>,
    up_levels: Vec<Vec<Layer>>,
    merges: Vec<TokenMerge>,
    splits: Vec<TokenSplit>,
    out_norm: RmsNorm,
    patch_out: TokenUnpatch,
    num_classes: usize,
    sigma_data: f64,
}

/// What the network is told besides image and noise level.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Augmentation vector `[B, 9]`; absent means "not augmented" (zeros, whose branch counts).
    pub augmentation: Option<Tensor<2>>,
    /// Class `[B]`, of networks with classes; absent means the null class, which is `num_classes`.
    pub class: Option<Tensor<1, Int>>,
    /// Extra condition `[B, k]`; needed iff `mapping_cond_dim = k > 0`.
    pub mapping: Option<Tensor<2>>,
    /// Seed of the dropout of a training step; absent everywhere else.
    pub dropout: Option<u64>,
}

/// Runs a row of layers from the seed of a training step's dropout, tokens `[B, H, W, w]` and condition
/// `[B, m]`, and gives both tensors back: the place where training chooses between keeping activations
/// and computing them again.
pub type RunLayers<'a> =
    &'a mut dyn FnMut(&[Layer], Option<u64>, Tensor<4>, Tensor<2>) -> (Tensor<4>, Tensor<2>);

/// The plain [`RunLayers`].
///
/// # Shapes
///
/// * `h`: `[B, H, W, w]`
/// * `cond`: `[B, m]`
/// * returns both, of the same shapes
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn run_layers(
    layers: &[Layer],
    seed: Option<u64>,
    h: Tensor<4>,
    cond: Tensor<2>,
) -> (Tensor<4>, Tensor<2>) {
    (layers.iter().fold(h, |h, layer| layer.forward(h, cond.clone(), seed)), cond)
}

impl HDiT {
    /// The network F of the Karras preconditioner. Without a class it is the null class; an extra
    /// condition that the network has and `conditions` lacks adds nothing.
    ///
    /// # Shapes
    ///
    /// * `x`: image times `c_in`, `[B, C, H, W]`
    /// * `sigma`: raw noise level, `[B]`, positive
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn forward(&self, x: Tensor<4>, sigma: Tensor<1>, conditions: Conditions) -> Tensor<4> {
        self.pass(x, sigma, conditions, &mut |_, _| (), &mut run_layers)
    }

    /// [`forward`](Self::forward) with another way to run the layers.
    ///
    /// # Shapes
    ///
    /// * `x`: image times `c_in`, `[B, C, H, W]`
    /// * `sigma`: raw noise level, `[B]`, positive
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn forward_through(
        &self,
        x: Tensor<4>,
        sigma: Tensor<1>,
        conditions: Conditions,
        run: RunLayers<'_>,
    ) -> Tensor<4> {
        self.pass(x, sigma, conditions, &mut |_, _| (), run)
    }

    /// [`forward`](Self::forward) that shows its channels-last activations to `observe`: after
    /// `patch_in`, every `down{l}`, `merge{l}`, `mid`, `split{l}`, `up{l}` and `out_norm`.
    ///
    /// # Shapes
    ///
    /// * `x`: image times `c_in`, `[B, C, H, W]`
    /// * `sigma`: raw noise level, `[B]`, positive
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn forward_observed(
        &self,
        x: Tensor<4>,
        sigma: Tensor<1>,
        conditions: Conditions,
        observe: &mut dyn FnMut(String, &Tensor<4>),
    ) -> Tensor<4> {
        self.pass(x, sigma, conditions, observe, &mut run_layers)
    }

    fn pass(
        &self,
        x: Tensor<4>,
        sigma: Tensor<1>,
        conditions: Conditions,
        observe: &mut dyn FnMut(String, &Tensor<4>),
        run: RunLayers<'_>,
    ) -> Tensor<4> {
        let seed = conditions.dropout;
        let e = self.embed_conditions(sigma, conditions);
        let mut cond = self.mapping.forward(e, seed); // [B, m]
        let mut h = self.patch_in.forward(x.permute([0, 2, 3, 1])); // [B, H/p, W/p, w₀]
        observe("patch_in".into(), &h);
        let mut skips = Vec::new();
        for (l, (layers, merge)) in self.down_levels.iter().zip(&self.merges).enumerate() {
            (h, cond) = run(layers, seed, h, cond);
            observe(format!("down{l}"), &h);
            skips.push(h.clone());
            h = merge.forward(h); // [B, H/2, W/2, w_{l+1}]
            observe(format!("merge{l}"), &h);
        }
        (h, cond) = run(&self.mid_level, seed, h, cond);
        observe("mid".into(), &h);
        for (l, layers) in self.up_levels.iter().enumerate().rev() {
            let skip = skips.pop().expect("one skip was pushed for every level");
            h = self.splits[l].forward(h, skip); // [B, 2H, 2W, w_l]
            observe(format!("split{l}"), &h);
            (h, cond) = run(layers, seed, h, cond);
            observe(format!("up{l}"), &h);
        }
        h = self.out_norm.forward(h);
        observe("out_norm".into(), &h);
        self.patch_out.forward(h).permute([0, 3, 1, 2]) // [B, C, H, W]
    }

    /// The sum of all conditions before the mapping network.
    ///
    /// # Shapes
    ///
    /// * `sigma`: `[B]`
    /// * returns `[B, m]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or, on the CPU, a label is beyond the null
    /// class.
    pub fn embed_conditions(&self, sigma: Tensor<1>, conditions: Conditions) -> Tensor<2> {
        let (time, augmentation) = self.fourier_features(sigma, conditions.augmentation);
        let mut e = self.time_in_proj.forward(time) + self.aug_in_proj.forward(augmentation);
        if let Some(table) = &self.class_emb {
            let rows = table.weight.val(); // [classes + 1, m]
            e = e + match conditions.class {
                Some(class) => rows.select(0, class),        // [B, m]
                None => rows.narrow(0, self.num_classes, 1), // [1, m]
            };
        }
        if let (Some(proj), Some(mapping)) = (&self.mapping_cond_in_proj, conditions.mapping) {
            e = e + proj.forward(mapping);
        }
        e
    }

    /// Fourier features of `ln σ / 4` and of the augmentation vector.
    ///
    /// # Shapes
    ///
    /// * `sigma`: `[B]`
    /// * `augmentation`: `[B, 9]`
    /// * returns `[B, m]` each
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn fourier_features(
        &self,
        sigma: Tensor<1>,
        augmentation: Option<Tensor<2>>,
    ) -> (Tensor<2>, Tensor<2>) {
        let dtype = self.mapping.dtype();
        let c_noise = c_noise(sigma).unsqueeze_dim(1); // [B, 1]
        let b = c_noise.dims()[0];
        let augmentation = augmentation.unwrap_or_else(|| {
            Tensor::zeros([b, AUGMENT_FEATURES], (&c_noise.device(), burn::tensor::DType::F32))
        });
        (self.time_emb.forward(c_noise).cast(dtype), self.aug_emb.forward(augmentation).cast(dtype))
    }

    /// The mapping network, without dropout.
    ///
    /// # Shapes
    ///
    /// * `embedded`: `[B, m]`
    /// * returns `[B, m]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn map(&self, embedded: Tensor<2>) -> Tensor<2> {
        self.mapping.forward(embedded, None)
    }

    /// The row that stands for "no class", where the network has classes.
    pub fn null_class(&self) -> Option<usize> {
        (self.num_classes > 0).then_some(self.num_classes)
    }
}

/// `ln σ / 4`, how the network is told the noise level.
///
/// # Shapes
///
/// * `sigma`: `[B]`, positive
/// * returns `[B]` in float32
pub fn c_noise(sigma: Tensor<1>) -> Tensor<1> {
    sigma.cast(FloatDType::F32).log() / 4.0
}
