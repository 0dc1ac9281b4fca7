//! The layers: attention of every kind and the feed-forward block, both under AdaRMSNorm.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Tensor, TensorData};
pub use tintype_shaders::plain::cosine_similarity_scale;
use tintype_shaders::{Normalization, QkTransform, modulated_norm, qkv_attention};

use super::config::LevelAttention;
use crate::nn::attention::attention;
use crate::nn::constant;
use crate::nn::dropout::Dropout;
use crate::nn::linear::{Init, Linear};
use crate::nn::rope::{HeadRope, rotate_halves};

/// One layer: attention (where the level has any) and feed-forward, both residual.
#[derive(Module, Debug)]
pub struct Layer {
    self_attn: Option<AttentionBlock>,
    ff: FeedForwardBlock,
    /// Dropout in training.
    dropout: f64,
    /// Number of the layer in the network; keeps the masks of layers apart.
    number: u64,
}

impl Layer {
    pub(super) fn new(
        width: usize,
        d_ff: usize,
        cond: usize,
        attention: LevelAttention,
        index: usize,
        dropout: f64,
        number: u64,
        device: &Device,
    ) -> Self {
        Self {
            self_attn: AttentionBlock::new(width, cond, attention, index, device),
            ff: FeedForwardBlock::new(width, d_ff, cond, device),
            dropout,
            number,
        }
    }

    /// Attention, where the level has any, and feed-forward; `seed` is that of a training step's
    /// dropout.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, w]`
    /// * `cond`: `[B, m]`
    /// * returns `[B, H, W, w]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>, cond: Tensor<2>, seed: Option<u64>) -> Tensor<4> {
        let mask = |site: u64| Dropout {
            rate: self.dropout,
            seed: seed.map(|s| s.wrapping_add(2 * self.number + site)),
        };
        let x = match &self.self_attn {
            Some(attn) => attn.forward(x, cond.clone(), mask(0)),
            None => x,
        };
        self.ff.forward(x, cond, mask(1))
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
enum AttentionKind {
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
    reach: AttentionKind,
}

impl AttentionBlock {
    /// The block of a level's `index`-th layer (down and up path counted through) with conditions
    /// of `cond` features; `None` for a level without attention.
    ///
    /// # Panics
    ///
    /// If the attention's `d_head` is 0.
    pub fn new(
        width: usize,
        cond: usize,
        attention: LevelAttention,
        index: usize,
        device: &Device,
    ) -> Option<Self> {
        let (d_head, reach) = match attention {
            LevelAttention::Global { d_head } => (d_head, AttentionKind::Global),
            LevelAttention::Neighborhood { d_head, kernel_size } => {
                (d_head, AttentionKind::Neighborhood { kernel: kernel_size })
            }
            LevelAttention::ShiftedWindow { d_head, window_size } => {
                let shift = if index % 2 == 1 { window_size / 2 } else { 0 };
                (d_head, AttentionKind::Window { size: window_size, shift })
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

    /// Attention over the level's grid, residual.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, w]`
    /// * `cond`: `[B, m]`
    /// * returns `[B, H, W, w]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape, or the grid does not fit the attention: windows
    /// that do not tile it, a neighborhood larger than it.
    pub fn forward(&self, x: Tensor<4>, cond: Tensor<2>, dropout: Dropout) -> Tensor<4> {
        let [b, h, w, width] = x.dims();
        let heads = self.scale.lazy_shape()[0];
        let d = width / heads;
        let qkv = self.qkv_proj.forward(self.norm.forward(x.clone(), cond)); // [B, H, W, 3·w]
        let (scale, freqs) = (self.scale.val(), self.pos_emb.freqs.val());
        let attend = |reach: tintype_shaders::AttentionKind| {
            let preparation = QkTransform::Cosine {
                scale: scale.clone(),
                freqs: freqs.clone(),
                height: h,
                width: w,
            };
            let tokens = qkv.clone().reshape([b, h * w, 3 * width]); // [B, N, 3·w]
            qkv_attention(tokens, heads, 1.0, preparation, reach).reshape([b, h, w, width])
        };
        let out = match self.reach {
            AttentionKind::Global => attend(tintype_shaders::AttentionKind::Global),
            AttentionKind::Neighborhood { kernel } => {
                attend(tintype_shaders::AttentionKind::Neighborhood { height: h, width: w, kernel })
            }
            AttentionKind::Window { size, shift } => {
                let part = |i: usize| -> Tensor<5> {
                    qkv.clone().narrow(3, i * width, width).reshape([b, h, w, heads, d])
                };
                let [q, k, v] = [part(0), part(1), part(2)]; // [B, H, W, heads, d]
                let (q, k) = cosine_similarity_scale(q, k, scale);
                let angles = self.pos_emb.angles(h, w); // [H, W, heads, d/4]
                let (q, k) = (rotate_halves(q, angles.clone()), rotate_halves(k, angles));
                window_attention(q, k, v, size, shift)
            }
        };
        x + self.out_proj.forward(dropout.apply(out))
    }
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

/// Which keys a query of a shifted window may look at (true: may), of `nh × nw` windows of side
/// `size`.
///
/// # Shapes
///
/// * returns `[nh, nw, s², s²]`
///
/// # Panics
///
/// If `size` is 0.
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
    /// From `width` to `d_ff` features and back, with conditions of `cond` features.
    pub fn new(width: usize, d_ff: usize, cond: usize, device: &Device) -> Self {
        Self {
            norm: AdaRmsNorm::new(width, cond, device),
            up_proj: Linear::without_bias(width, 2 * d_ff, Init::FanIn, device),
            down_proj: Linear::without_bias(d_ff, width, Init::Zero, device),
        }
    }

    /// The network, over the last axis, residual.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, w]`
    /// * `cond`: `[B, m]`
    /// * returns `[B, H, W, w]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>, cond: Tensor<2>, dropout: Dropout) -> Tensor<4> {
        let h = geglu(self.norm.forward(x.clone(), cond), &self.up_proj); // [B, H, W, f]
        x + self.down_proj.forward(dropout.apply(h))
    }
}

/// `value ⊙ gelu(gate)` with `[value, gate] = x Wᵀ` and the exact GELU.
///
/// # Shapes
///
/// * `x`: `[…, in]`
/// * returns `[…, f]`, where `up_proj` gives 2·f features
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn geglu<const D: usize>(x: Tensor<D>, up_proj: &Linear) -> Tensor<D> {
    tintype_shaders::geglu(up_proj.forward(x)) // […, 2·f] → […, f]
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
        let scale = self.linear.forward(cond); // [B, w]
        modulated_norm(x, Normalization::RmsNorm, None, Some(scale), None, 1e-6)
    }
}
