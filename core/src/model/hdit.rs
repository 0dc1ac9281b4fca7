//! HDiT: Hourglass Diffusion Transformer (Crowson et al., ICML 2024, arXiv 2401.11605), as
//! k-diffusion's `image_transformer_v2` computes it.
//!
//! A transformer on pixels, without an autoencoder, linear in the pixel count: the outer levels
//! attend to neighborhoods (or shifted windows), the innermost to everything; levels are joined by
//! 2×2 token merges and splits with learned lerps. Conditions act through AdaRMSNorm.
//! Where paper and code differ, this follows the code.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{InvalidConfig, ensure};
use crate::nn::activation::gelu_erf;
use crate::nn::attention::attention;
use crate::nn::linear::{Init, Linear};
use crate::nn::neighborhood::neighborhood_attention;
use crate::nn::norm::{rms_norm, rms_norm_scaled};
use crate::nn::patch::{fold_cells, unfold_cells};
use crate::nn::rope::HeadRope;
use crate::nn::{constant, in_f32, normal};

/// Length of the augmentation condition.
pub const AUGMENT_FEATURES: usize = 9;

/// The attention of one level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LevelAttention {
    /// Every token attends to every token.
    Global {
        /// Width of a head.
        #[serde(default = "default_d_head")]
        d_head: usize,
    },
    /// K×K neighborhoods with NATTEN's border handling.
    Neighborhood {
        /// Width of a head.
        #[serde(default = "default_d_head")]
        d_head: usize,
        /// Odd side K of the neighborhood.
        #[serde(default = "default_kernel")]
        kernel_size: usize,
    },
    /// Swin's windows, every other layer shifted by half a window.
    ShiftedWindow {
        /// Width of a head.
        #[serde(default = "default_d_head")]
        d_head: usize,
        /// Side of a window.
        window_size: usize,
    },
    /// Feed-forward only.
    None,
}

fn default_d_head() -> usize {
    64
}
fn default_kernel() -> usize {
    7
}

/// A value for every level, or one for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    All(f64),
    /// Outermost first.
    Each(Vec<f64>),
}

/// The `model` section of a k-diffusion configuration; levels are listed outermost first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HDiTConfig {
    /// Image channels.
    pub input_channels: usize,
    /// Image height and width in pixels.
    pub input_size: [usize; 2],
    /// Patch height and width.
    pub patch_size: [usize; 2],
    /// Layers of each level; every level but the innermost has them twice, down and up.
    pub depths: Vec<usize>,
    /// Width of each level.
    pub widths: Vec<usize>,
    /// Feed-forward width of each level; three times the width if absent.
    #[serde(default)]
    pub d_ffs: Option<Vec<usize>>,
    /// Attention of each level; neighborhoods of 7 and a global innermost level if absent.
    #[serde(default)]
    pub self_attns: Option<Vec<LevelAttention>>,
    /// Width of the mapping network.
    #[serde(default = "default_mapping_width")]
    pub mapping_width: usize,
    /// Blocks of the mapping network.
    #[serde(default = "default_mapping_depth")]
    pub mapping_depth: usize,
    /// Feed-forward width of the mapping network; three times its width if absent.
    #[serde(default)]
    pub mapping_d_ff: Option<usize>,
    /// Length of an extra condition vector; 0 for none.
    #[serde(default)]
    pub mapping_cond_dim: usize,
    /// Dropout of the mapping network in training.
    #[serde(default)]
    pub mapping_dropout_rate: f64,
    /// Dropout of the levels in training.
    #[serde(default = "default_dropout")]
    pub dropout_rate: PerLevel,
    /// Standard deviation of the data.
    #[serde(default = "default_sigma_data")]
    pub sigma_data: f64,
    /// Smallest noise level of sampling.
    #[serde(default = "default_sigma_min")]
    pub sigma_min: f64,
    /// Largest noise level of sampling.
    #[serde(default = "default_sigma_max")]
    pub sigma_max: f64,
    /// Classes; lives in the `dataset` section of the file.
    #[serde(default)]
    pub num_classes: usize,
}

fn default_mapping_width() -> usize {
    256
}
fn default_mapping_depth() -> usize {
    2
}
fn default_dropout() -> PerLevel {
    PerLevel::All(0.0)
}
fn default_sigma_data() -> f64 {
    1.0
}
fn default_sigma_min() -> f64 {
    0.01
}
fn default_sigma_max() -> f64 {
    80.0
}

impl HDiTConfig {
    /// Reads a k-diffusion JSON file (`model` and `dataset` sections).
    pub fn from_json(text: &str) -> Result<Self, InvalidConfig> {
        let invalid = |e: &dyn std::fmt::Display| InvalidConfig(format!("JSON: {e}"));
        let file: serde_json::Value = serde_json::from_str(text).map_err(|e| invalid(&e))?;
        let model = file.get("model").ok_or_else(|| invalid(&"there is no \"model\" section"))?;
        if let Some(kind) = model.get("type").filter(|kind| *kind != "image_transformer_v2") {
            return Err(InvalidConfig(format!(
                "model type {kind} is not supported, only \"image_transformer_v2\""
            )));
        }
        let mut config: Self = serde_json::from_value(model.clone()).map_err(|e| invalid(&e))?;
        if let Some(classes) = file.pointer("/dataset/num_classes").and_then(|v| v.as_u64()) {
            config.num_classes = classes as usize;
        }
        config.validate()?;
        Ok(config)
    }

    /// Feed-forward width of a level.
    fn d_ff(&self, level: usize) -> usize {
        self.d_ffs.as_ref().map_or(3 * self.widths[level], |d_ffs| d_ffs[level])
    }

    /// Attention of a level.
    pub fn attention(&self, level: usize) -> LevelAttention {
        match &self.self_attns {
            Some(levels) => levels[level],
            None if level + 1 == self.depths.len() => LevelAttention::Global { d_head: 64 },
            None => LevelAttention::Neighborhood { d_head: 64, kernel_size: 7 },
        }
    }

    /// Checks that the numbers describe a network.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let levels = self.depths.len();
        ensure!(levels > 0, "depths is empty");
        let listed = |what: &str, n: Option<usize>| match n {
            Some(n) if n != levels => {
                Err(InvalidConfig(format!("{what} lists {n} levels, depths {levels}")))
            }
            _ => Ok(()),
        };
        listed("widths", Some(self.widths.len()))?;
        listed("d_ffs", self.d_ffs.as_ref().map(Vec::len))?;
        listed("self_attns", self.self_attns.as_ref().map(Vec::len))?;
        if let PerLevel::Each(rates) = &self.dropout_rate {
            listed("dropout_rate", Some(rates.len()))?;
        }
        ensure!(self.mapping_width.is_multiple_of(2), "mapping_width must be even");
        ensure!(self.sigma_data > 0.0, "sigma_data must be positive");
        ensure!(
            0.0 < self.sigma_min && self.sigma_min < self.sigma_max,
            "0 < sigma_min < sigma_max does not hold"
        );
        for (axis, name) in [(0, "height"), (1, "width")] {
            let cell = self.patch_size[axis] << (levels - 1);
            ensure!(cell > 0, "patch_size must be positive");
            ensure!(
                self.input_size[axis].is_multiple_of(cell) && self.input_size[axis] > 0,
                "the image {name} {} is not divisible by patch·2^(levels−1) = {cell}",
                self.input_size[axis]
            );
        }
        for level in 0..levels {
            let grid = [0, 1].map(|axis| (self.input_size[axis] / self.patch_size[axis]) >> level);
            let d_head = match self.attention(level) {
                LevelAttention::Global { d_head } => d_head,
                LevelAttention::Neighborhood { d_head, kernel_size } => {
                    ensure!(
                        kernel_size % 2 == 1 && grid[0].min(grid[1]) >= kernel_size,
                        "level {level}: kernel_size {kernel_size} must be odd and fit {grid:?}"
                    );
                    d_head
                }
                LevelAttention::ShiftedWindow { d_head, window_size } => {
                    ensure!(
                        window_size > 0 && grid.iter().all(|n| n.is_multiple_of(window_size)),
                        "level {level}: windows of {window_size} do not tile {grid:?}"
                    );
                    d_head
                }
                LevelAttention::None => continue,
            };
            ensure!(
                d_head > 0 && d_head.is_multiple_of(8) && self.widths[level].is_multiple_of(d_head),
                "level {level}: d_head {d_head} must be a multiple of 8 that divides the width {}",
                self.widths[level]
            );
        }
        Ok(())
    }

    /// The untrained network, whose output is exactly zero.
    pub fn init(&self, device: &Device) -> Result<HDiT, InvalidConfig> {
        self.validate()?;
        let (levels, m) = (self.depths.len(), self.mapping_width);
        let inner = levels - 1;
        // The layer index runs on through down and up path: it decides which windows are shifted.
        let layers = |level: usize, indices: std::ops::Range<usize>| -> Vec<Layer> {
            let (w, f) = (self.widths[level], self.d_ff(level));
            indices.map(|i| Layer::new(w, f, m, self.attention(level), i, device)).collect()
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
            out_norm: Gain::new(first, device),
            patch_out: TokenUnpatch {
                proj: Linear::without_bias(first, patch, Init::Zero, device),
                cell: kernel,
            },
            num_classes: self.num_classes,
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
    out_norm: Gain,
    patch_out: TokenUnpatch,
    num_classes: usize,
}

/// What the network is told besides image and noise level.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Augmentation vector `[B, 9]`; absent means "not augmented" (zeros, whose branch counts).
    pub augmentation: Option<Tensor<2>>,
    /// Class `[B]`; needed iff the network has classes. The null class is `num_classes`.
    pub class: Option<Tensor<1, Int>>,
    /// Extra condition `[B, k]`; needed iff `mapping_cond_dim = k > 0`.
    pub mapping: Option<Tensor<2>>,
}

impl HDiT {
    /// The network F of the Karras preconditioner.
    ///
    /// * `x`: image times `c_in`, `[B, C, H, W]`
    /// * `sigma`: raw noise level, `[B]`, positive
    ///
    /// Returns `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, sigma: Tensor<1>, conditions: Conditions) -> Tensor<4> {
        self.forward_observed(x, sigma, conditions, &mut |_, _| ())
    }

    /// [`forward`](Self::forward) that shows its channels-last activations to `observe`: after
    /// `patch_in`, every `down{l}`, `merge{l}`, `mid`, `split{l}`, `up{l}` and `out_norm`.
    pub fn forward_observed(
        &self,
        x: Tensor<4>,
        sigma: Tensor<1>,
        conditions: Conditions,
        observe: &mut dyn FnMut(String, &Tensor<4>),
    ) -> Tensor<4> {
        let cond = self.mapping.forward(self.embed_conditions(sigma, conditions)); // [B, m]
        let run = |layers: &[Layer], h: Tensor<4>| {
            layers.iter().fold(h, |h, layer| layer.forward(h, cond.clone()))
        };
        let mut h = self.patch_in.forward(x.permute([0, 2, 3, 1])); // [B, H/p, W/p, w₀]
        observe("patch_in".into(), &h);
        let mut skips = Vec::new();
        for (l, (layers, merge)) in self.down_levels.iter().zip(&self.merges).enumerate() {
            h = run(layers, h);
            observe(format!("down{l}"), &h);
            skips.push(h.clone());
            h = merge.forward(h); // [B, H/2, W/2, w_{l+1}]
            observe(format!("merge{l}"), &h);
        }
        h = run(&self.mid_level, h);
        observe("mid".into(), &h);
        for (l, layers) in self.up_levels.iter().enumerate().rev() {
            let skip = skips.pop().expect("one skip was pushed for every level");
            h = self.splits[l].forward(h, skip); // [B, 2H, 2W, w_l]
            observe(format!("split{l}"), &h);
            h = run(layers, h);
            observe(format!("up{l}"), &h);
        }
        h = self.out_norm.forward(h);
        observe("out_norm".into(), &h);
        self.patch_out.forward(h).permute([0, 3, 1, 2]) // [B, C, H, W]
    }

    /// The sum of all conditions before the mapping network, `[B, m]`.
    pub fn embed_conditions(&self, sigma: Tensor<1>, conditions: Conditions) -> Tensor<2> {
        let (time, augmentation) = self.fourier_features(sigma, conditions.augmentation);
        let mut e = self.time_in_proj.forward(time) + self.aug_in_proj.forward(augmentation);
        if let (Some(table), Some(class)) = (&self.class_emb, conditions.class) {
            e = e + table.weight.val().select(0, class);
        }
        if let (Some(proj), Some(mapping)) = (&self.mapping_cond_in_proj, conditions.mapping) {
            e = e + proj.forward(mapping);
        }
        e
    }

    /// Fourier features of `ln σ / 4` and of the augmentation vector, `[B, m]` each.
    pub fn fourier_features(
        &self,
        sigma: Tensor<1>,
        augmentation: Option<Tensor<2>>,
    ) -> (Tensor<2>, Tensor<2>) {
        let dtype = self.time_in_proj.weight.val().dtype();
        let c_noise = c_noise(sigma).unsqueeze_dim(1); // [B, 1]
        let b = c_noise.dims()[0];
        let augmentation = augmentation.unwrap_or_else(|| {
            Tensor::zeros([b, AUGMENT_FEATURES], (&c_noise.device(), burn::tensor::DType::F32))
        });
        (self.time_emb.forward(c_noise).cast(dtype), self.aug_emb.forward(augmentation).cast(dtype))
    }

    /// The mapping network: `[B, m]` → `[B, m]`
    pub fn map(&self, embedded: Tensor<2>) -> Tensor<2> {
        self.mapping.forward(embedded)
    }

    /// The label that stands for "no class", where the network has classes.
    pub fn null_class(&self) -> Option<usize> {
        (self.num_classes > 0).then_some(self.num_classes)
    }
}

/// `ln σ / 4`, how the network is told the noise level.
pub fn c_noise(sigma: Tensor<1>) -> Tensor<1> {
    sigma.cast(FloatDType::F32).log() / 4.0
}

/// One layer: attention (where the level has any) and feed-forward, both residual.
#[derive(Module, Debug)]
pub struct Layer {
    self_attn: Option<AttentionBlock>,
    ff: FeedForwardBlock,
}

impl Layer {
    fn new(
        width: usize,
        d_ff: usize,
        cond: usize,
        attention: LevelAttention,
        index: usize,
        device: &Device,
    ) -> Self {
        Self {
            self_attn: AttentionBlock::new(width, cond, attention, index, device),
            ff: FeedForwardBlock::new(width, d_ff, cond, device),
        }
    }

    fn forward(&self, x: Tensor<4>, cond: Tensor<2>) -> Tensor<4> {
        let x = match &self.self_attn {
            Some(attn) => attn.forward(x, cond.clone()),
            None => x,
        };
        self.ff.forward(x, cond)
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
enum Reach {
    Global,
    Neighborhood { kernel: usize },
    Window { size: usize, shift: usize },
}

/// Scaled cosine-similarity attention with axial RoPE, residual.
#[derive(Module, Debug)]
pub struct AttentionBlock {
    scale: Param<Tensor<1>>,
    norm: AdaRmsNorm,
    qkv_proj: Linear,
    pos_emb: HeadRope,
    out_proj: Linear,
    #[module(skip)]
    reach: Reach,
}

impl AttentionBlock {
    /// The block of a level's `index`-th layer (down and up path counted through); nothing for a
    /// level without attention.
    pub fn new(
        width: usize,
        cond: usize,
        attention: LevelAttention,
        index: usize,
        device: &Device,
    ) -> Option<Self> {
        let (d_head, reach) = match attention {
            LevelAttention::Global { d_head } => (d_head, Reach::Global),
            LevelAttention::Neighborhood { d_head, kernel_size } => {
                (d_head, Reach::Neighborhood { kernel: kernel_size })
            }
            LevelAttention::ShiftedWindow { d_head, window_size } => {
                let shift = if index % 2 == 1 { window_size / 2 } else { 0 };
                (d_head, Reach::Window { size: window_size, shift })
            }
            LevelAttention::None => return None,
        };
        let heads = width / d_head;
        Some(Self {
            scale: constant([heads], 10.0, device),
            norm: AdaRmsNorm::new(width, cond, device),
            qkv_proj: Linear::without_bias(width, 3 * width, Init::FanIn, device),
            pos_emb: HeadRope::new(heads, d_head, device),
            out_proj: Linear::without_bias(width, width, Init::Zero, device),
            reach,
        })
    }

    /// `x`: `[B, H, W, w]`, `cond`: `[B, m]`; returns `[B, H, W, w]`
    pub fn forward(&self, x: Tensor<4>, cond: Tensor<2>) -> Tensor<4> {
        let [b, h, w, width] = x.dims();
        let heads = self.scale.lazy_shape()[0];
        let d = width / heads;
        let qkv = self.qkv_proj.forward(self.norm.forward(x.clone(), cond)); // [B, H, W, 3·w]
        let part = |i: usize| -> Tensor<5> {
            qkv.clone().narrow(3, i * width, width).reshape([b, h, w, heads, d])
        };
        let [q, k, v] = [part(0), part(1), part(2)]; // [B, H, W, heads, d]
        let (q, k) = cosine_similarity_scale(q, k, self.scale.val());
        let angles = self.pos_emb.angles(h, w); // [H, W, heads, d/4]
        let (q, k) = (HeadRope::rotate(q, angles.clone()), HeadRope::rotate(k, angles));
        let out = match self.reach {
            Reach::Global => {
                let tokens = |x: Tensor<5>| x.reshape([b, h * w, heads, d]).swap_dims(1, 2);
                attention(tokens(q), tokens(k), tokens(v), 1.0, None) // [B, heads, N, d]
                    .swap_dims(1, 2)
                    .reshape([b, h, w, width])
            }
            Reach::Neighborhood { kernel } => {
                neighborhood_attention(q, k, v, kernel, 1.0).reshape([b, h, w, width])
            }
            Reach::Window { size, shift } => window_attention(q, k, v, size, shift),
        };
        x + self.out_proj.forward(out)
    }
}

/// `q̂ = q·√scale / √(Σq² + 1e-6)`, likewise k: their product is `scale` times the cosine.
///
/// * `q`, `k`: `[…, heads, d]` with five axes
/// * `scale`: `[heads]`
pub fn cosine_similarity_scale(
    q: Tensor<5>,
    k: Tensor<5>,
    scale: Tensor<1>,
) -> (Tensor<5>, Tensor<5>) {
    let heads = scale.dims()[0];
    let root = scale.sqrt().reshape([1, 1, 1, heads, 1]);
    let unit = |x: Tensor<5>| {
        let unit = in_f32(x, |x| {
            let norm = (x.clone().square().sum_dim(4) + 1e-6).sqrt();
            x / norm
        });
        unit * root.clone()
    };
    (unit(q), unit(k))
}

/// Attention inside shifted windows: content rolls by `+shift`, wrapped tokens see only wrapped
/// ones. `[B, H, W, heads, d]` → `[B, H, W, heads·d]`
fn window_attention(
    q: Tensor<5>,
    k: Tensor<5>,
    v: Tensor<5>,
    size: usize,
    shift: usize,
) -> Tensor<4> {
    let [b, h, w, heads, d] = q.dims();
    let (nh, nw) = (h / size, w / size);
    let cut = |x: Tensor<5>| -> Tensor<4> {
        roll(x, shift, shift)
            .reshape([b, nh, size, nw, size, heads * d])
            .permute([0, 1, 3, 2, 4, 5]) // [B, nh, nw, s, s, heads·d]
            .reshape([b * nh * nw, size * size, heads, d])
            .swap_dims(1, 2) // [B·nh·nw, heads, s², d]
    };
    let mask = (shift > 0).then(|| {
        let n = size * size;
        shifted_window_mask([nh, nw], size, shift, &q.device())
            .bool_not()
            .reshape([1, nh * nw, n * n])
            .expand([b, nh * nw, n * n])
            .reshape([b * nh * nw, 1, n, n])
    });
    let out = attention(cut(q), cut(k), cut(v), 1.0, mask); // [B·nh·nw, heads, s², d]
    let out = out
        .swap_dims(1, 2)
        .reshape([b, nh, nw, size, size, heads * d])
        .permute([0, 1, 3, 2, 4, 5]) // [B, nh, s, nw, s, heads·d]
        .reshape([b, h, w, heads, d]);
    roll(out, h - shift, w - shift).reshape([b, h, w, heads * d])
}

/// Moves content down by `dy` and right by `dx`, wrapping around (Burn's own `roll` goes up and
/// left). `[B, H, W, heads, d]`
fn roll(x: Tensor<5>, dy: usize, dx: usize) -> Tensor<5> {
    [(1, dy), (2, dx)].into_iter().fold(x, |x, (axis, by)| {
        let n = x.dims()[axis];
        match by % n {
            0 => x,
            by => Tensor::cat(
                vec![x.clone().narrow(axis, n - by, by), x.narrow(axis, 0, n - by)],
                axis,
            ),
        }
    })
}

/// Which keys a query of a shifted window may look at, `[nh, nw, s², s²]` (true: may).
pub fn shifted_window_mask(
    [nh, nw]: [usize; 2],
    size: usize,
    shift: usize,
    device: &Device,
) -> Tensor<4, Bool> {
    let n = size * size;
    let mut mask = Vec::with_capacity(nh * nw * n * n);
    for (wy, wx) in (0..nh).flat_map(|wy| (0..nw).map(move |wx| (wy, wx))) {
        // Only the first row and column of windows contain tokens that wrapped around.
        let wrapped = |i: usize| (wy == 0 && i / size < shift, wx == 0 && i % size < shift);
        for query in 0..n {
            mask.extend((0..n).map(|key| wrapped(query) == wrapped(key)));
        }
    }
    Tensor::from_data(TensorData::new(mask, [nh, nw, n, n]), device)
}

/// GEGLU feed-forward, residual.
#[derive(Module, Debug)]
pub struct FeedForwardBlock {
    norm: AdaRmsNorm,
    up_proj: Linear,
    down_proj: Linear,
}

impl FeedForwardBlock {
    /// From `width` to `d_ff` features and back.
    pub fn new(width: usize, d_ff: usize, cond: usize, device: &Device) -> Self {
        Self {
            norm: AdaRmsNorm::new(width, cond, device),
            up_proj: Linear::without_bias(width, 2 * d_ff, Init::FanIn, device),
            down_proj: Linear::without_bias(d_ff, width, Init::Zero, device),
        }
    }

    /// `x`: `[B, H, W, w]`, `cond`: `[B, m]`; returns `[B, H, W, w]`
    pub fn forward(&self, x: Tensor<4>, cond: Tensor<2>) -> Tensor<4> {
        let h = geglu(self.norm.forward(x.clone(), cond), &self.up_proj); // [B, H, W, f]
        x + self.down_proj.forward(h)
    }
}

/// `value ⊙ gelu(gate)` with `[value, gate] = x Wᵀ` and the exact GELU.
pub fn geglu<const D: usize>(x: Tensor<D>, up_proj: &Linear) -> Tensor<D> {
    let h = up_proj.forward(x); // […, 2·f]
    let f = h.dims()[D - 1] / 2;
    h.clone().narrow(D - 1, 0, f) * gelu_erf(h.narrow(D - 1, f, f))
}

/// RMSNorm whose gain is `1 + linear(cond)`; there is no other gain.
#[derive(Module, Debug)]
pub struct AdaRmsNorm {
    linear: Linear,
}

impl AdaRmsNorm {
    fn new(width: usize, cond: usize, device: &Device) -> Self {
        Self { linear: Linear::without_bias(cond, width, Init::Zero, device) }
    }

    fn forward(&self, x: Tensor<4>, cond: Tensor<2>) -> Tensor<4> {
        let [b, width] = [x.dims()[0], x.dims()[3]];
        let gain = (self.linear.forward(cond) + 1.0).reshape([b, 1, 1, width]);
        rms_norm(x, 1e-6) * gain
    }
}

/// RMSNorm with a learned gain.
#[derive(Module, Debug)]
struct Gain {
    scale: Param<Tensor<1>>,
}

impl Gain {
    fn new(width: usize, device: &Device) -> Self {
        Self { scale: constant([width], 1.0, device) }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        rms_norm_scaled(x, self.scale.val())
    }
}

/// `[cos, sin](2π·u·Wᵀ)` with a frozen random W.
#[derive(Module, Debug)]
struct FourierFeatures {
    weight: Param<Tensor<2>>,
}

impl FourierFeatures {
    fn new(d_in: usize, width: usize, device: &Device) -> Self {
        Self { weight: normal([width / 2, d_in], 1.0, device).set_require_grad(false) }
    }

    /// `[B, in]` → `[B, m]`, float32
    fn forward(&self, u: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().cast(FloatDType::F32);
        let z = u.cast(FloatDType::F32).matmul(weight.transpose()) * std::f64::consts::TAU;
        Tensor::cat(vec![z.clone().cos(), z.sin()], 1)
    }
}

#[derive(Module, Debug)]
struct ClassEmbedding {
    weight: Param<Tensor<2>>,
}

/// The mapping network: conditions to the vector that every AdaRMSNorm reads.
#[derive(Module, Debug)]
struct Mapping {
    in_norm: Gain,
    blocks: Vec<MappingBlock>,
    out_norm: Gain,
}

#[derive(Module, Debug)]
struct MappingBlock {
    norm: Gain,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mapping {
    fn new(m: usize, depth: usize, d_ff: usize, device: &Device) -> Self {
        let block = |_| MappingBlock {
            norm: Gain::new(m, device),
            up_proj: Linear::without_bias(m, 2 * d_ff, Init::FanIn, device),
            down_proj: Linear::without_bias(d_ff, m, Init::Zero, device),
        };
        Self {
            in_norm: Gain::new(m, device),
            blocks: (0..depth).map(block).collect(),
            out_norm: Gain::new(m, device),
        }
    }

    /// `[B, m]` → `[B, m]`
    fn forward(&self, e: Tensor<2>) -> Tensor<2> {
        let mut e = self.in_norm.forward(e);
        for block in &self.blocks {
            let h = geglu(block.norm.forward(e.clone()), &block.up_proj); // [B, f]
            e = e + block.down_proj.forward(h);
        }
        self.out_norm.forward(e)
    }
}

/// Folds cells of tokens into one and projects it.
#[derive(Module, Debug)]
pub struct TokenMerge {
    proj: Linear,
    cell: [usize; 2],
}

impl TokenMerge {
    /// `d_in` counts the values of a whole cell.
    pub fn new(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self { proj: Linear::without_bias(d_in, d_out, Init::FanIn, device), cell }
    }

    /// `[B, H, W, C]` → `[B, H/ph, W/pw, out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.proj.forward(fold_cells(x, self.cell))
    }
}

/// Projects tokens onto cells: `[B, H, W, w]` → `[B, H·ph, W·pw, C]`
#[derive(Module, Debug)]
pub struct TokenUnpatch {
    proj: Linear,
    cell: [usize; 2],
}

impl TokenUnpatch {
    /// `d_out` counts the values of a whole cell.
    pub fn new(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self { proj: Linear::without_bias(d_in, d_out, Init::Zero, device), cell }
    }

    /// `[B, H, W, in]` → `[B, H·ph, W·pw, C]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        unfold_cells(self.proj.forward(x), self.cell)
    }
}

/// The 2×2 inverse of a merge, lerped with the skip: `skip + fac·(upsampled − skip)`.
#[derive(Module, Debug)]
pub struct TokenSplit {
    proj: Linear,
    fac: Param<Tensor<1>>,
    cell: [usize; 2],
}

impl TokenSplit {
    /// `d_out` counts the values of a whole 2×2 cell.
    pub fn new(d_in: usize, d_out: usize, device: &Device) -> Self {
        Self::with_cell(d_in, d_out, [2, 2], device)
    }

    /// Likewise with other cells.
    pub fn with_cell(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self {
            proj: Linear::without_bias(d_in, d_out, Init::FanIn, device),
            fac: constant([1], 0.5, device),
            cell,
        }
    }

    /// `x`: `[B, H, W, in]`, `skip`: `[B, 2H, 2W, out]`; returns the skip's shape
    pub fn forward(&self, x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let upsampled = unfold_cells(self.proj.forward(x), self.cell);
        let fac = self.fac.val().reshape([1, 1, 1, 1]);
        skip.clone() + (upsampled - skip) * fac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_diffusion_files_are_read_with_their_defaults() {
        let text = r#"{
            "model": {
                "type": "image_transformer_v2", "input_channels": 3, "input_size": [256, 256],
                "patch_size": [4, 4], "depths": [2, 2, 4], "widths": [128, 256, 512],
                "loss_config": "karras", "loss_weighting": "soft-min-snr",
                "dropout_rate": [0.0, 0.0, 0.1], "mapping_dropout_rate": 0.0,
                "augment_prob": 0.0, "sigma_data": 0.5, "sigma_min": 1e-2, "sigma_max": 160,
                "sigma_sample_density": {"type": "cosine-interpolated"}
            },
            "dataset": {"type": "huggingface", "location": "nelorth/oxford-flowers"},
            "optimizer": {"type": "adamw", "lr": 5e-4}
        }"#;
        let config = HDiTConfig::from_json(text).expect("it parses");
        let preset = crate::preset::find("hdit-flowers-256").expect("a preset").architecture;
        assert_eq!(crate::weights::Architecture::HDiT(config), preset);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let flowers = match crate::preset::find("hdit-flowers-256").map(|p| p.architecture) {
            Some(crate::weights::Architecture::HDiT(config)) => config,
            other => panic!("{other:?}"),
        };
        let message = |change: fn(&mut HDiTConfig)| {
            let mut config = flowers.clone();
            change(&mut config);
            config.validate().expect_err("it does not fit").0
        };
        assert!(message(|c| c.input_size = [250, 256]).contains("height 250"));
        assert!(message(|c| c.widths = vec![128]).contains("widths lists 1"));
        assert!(message(|c| c.widths[1] = 250).contains("level 1"));
        assert!(message(|c| c.sigma_min = 1e3).contains("sigma_min"));
        assert!(HDiTConfig::from_json("{}").expect_err("empty").0.contains("model"));
        let other = r#"{"model": {"type": "image_v1"}}"#;
        assert!(HDiTConfig::from_json(other).expect_err("other").0.contains("image_v1"));
    }
}
