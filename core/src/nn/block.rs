//! The adaLN-Zero transformer block of DiT, SiT and LightningDiT, with its final layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::SelfAttention;
use super::dropout::Dropout;
use super::feed_forward::{Mlp, SwiGlu};
use super::linear::{Init, Linear};
use super::norm::{Norm, NormKind};
use super::rope::RotaryTable;

/// What distinguishes the blocks of the family.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Width D.
    pub hidden: usize,
    /// Attention heads; D is divisible by it.
    pub heads: usize,
    /// Width of the plain MLP, D·mlp_ratio; SwiGLU has two thirds of it.
    pub mlp_width: usize,
    /// norm1, norm2 and the final norm.
    pub norm: NormKind,
    /// Norm of queries and keys over the head.
    pub qk_norm: Option<NormKind>,
    /// SwiGLU instead of the GELU MLP.
    pub swiglu: bool,
    /// Whether the modulation has a shift (LightningDiT's `wo_shift` is its negation).
    pub shift: bool,
}

/// Runs a row of blocks from tokens `[B, N, D]` and condition `[B, D]` or `[B·N, D]` (after its SiLU), and gives
/// both back: the place where training chooses between keeping activations and computing them again.
pub type RunBlocks<'a> = &'a mut dyn FnMut(
    &[DitBlock],
    Option<&RotaryTable>,
    Tensor<3>,
    Tensor<2>,
) -> (Tensor<3>, Tensor<2>);

/// The plain [`RunBlocks`].
///
/// # Shapes
///
/// * `h`: tokens `[B, N, D]`
/// * `c`: SiLU of the condition, `[B, D]`, or `[B·N, D]` where each token has its own
/// * returns both, of the same shapes
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn run_blocks(
    blocks: &[DitBlock],
    rope: Option<&RotaryTable>,
    h: Tensor<3>,
    c: Tensor<2>,
) -> (Tensor<3>, Tensor<2>) {
    (blocks.iter().fold(h, |h, block| block.forward(h, c.clone(), rope)), c)
}

/// One transformer block modulated by the condition.
#[derive(Module, Debug)]
pub struct DitBlock {
    norm1: Norm,
    attn: SelfAttention,
    norm2: Norm,
    mlp: FeedForward,
    ada_ln_modulation: Linear,
    shift: bool,
}

/// The block's feed-forward network.
#[derive(Module, Debug)]
pub enum FeedForward {
    /// GELU MLP.
    Mlp(Mlp),
    /// SwiGLU.
    SwiGlu(SwiGlu),
}

impl DitBlock {
    /// A block that starts as the identity (zero modulation).
    pub fn new(config: BlockConfig, device: &Device) -> Self {
        Self::with_init(config, Init::Xavier, device)
    }

    /// The same whose layers but the modulation start in another way.
    pub fn with_init(config: BlockConfig, init: Init, device: &Device) -> Self {
        let BlockConfig { hidden, heads, mlp_width, norm, qk_norm, swiglu, shift } = config;
        let mlp = if swiglu {
            // Two thirds of the plain MLP's width, truncated (LightningDiT §2).
            let inner = (2.0 / 3.0 * mlp_width as f64) as usize;
            FeedForward::SwiGlu(SwiGlu::with_init(hidden, inner, init, device))
        } else {
            FeedForward::Mlp(Mlp::with_init(hidden, mlp_width, init, device))
        };
        let chunks = if shift { 6 } else { 4 };
        Self {
            norm1: Norm::new(norm, hidden, device),
            attn: SelfAttention::with_init(hidden, heads, qk_norm, init, device),
            norm2: Norm::new(norm, hidden, device),
            mlp,
            ada_ln_modulation: Linear::new(hidden, chunks * hidden, Init::Zero, device),
            shift,
        }
    }

    /// Attention and feed-forward network, each gated and residual.
    ///
    /// # Shapes
    ///
    /// * `x`: tokens `[B, N, D]`
    /// * `c`: **SiLU of** the condition `[B, D]`, computed once for all blocks; `[B·N, D]` where each token has its own
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<3>, c: Tensor<2>, rope: Option<&RotaryTable>) -> Tensor<3> {
        self.forward_dropping(x, c, rope, Dropout::default())
    }

    /// [`forward`](Self::forward) in training, with dropout of what attention adds and of the hidden vector of the
    /// feed-forward network, each with a mask of its own: of the seed and of the one after it.
    ///
    /// # Shapes
    ///
    /// * `x`: tokens `[B, N, D]`
    /// * `c`: SiLU of the condition, `[B, D]` or `[B·N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_dropping(
        &self,
        x: Tensor<3>,
        c: Tensor<2>,
        rope: Option<&RotaryTable>,
        dropout: Dropout,
    ) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let [groups, _] = c.dims();
        let m = modulation(&self.ada_ln_modulation, c, b); // [B, 6·D], or [B, 4·D] without shifts
        let chunk = |i: usize| m.clone().narrow(1, i * d, d);
        let [shift1, scale1, gate1, shift2, scale2, gate2] = if self.shift {
            [0, 1, 2, 3, 4, 5].map(|i| Some(chunk(i)))
        } else {
            [None, Some(chunk(0)), Some(chunk(1)), None, Some(chunk(2)), Some(chunk(3))]
        };
        let (Some(scale1), Some(gate1), Some(scale2), Some(gate2)) = (scale1, gate1, scale2, gate2)
        else {
            unreachable!("scales and gates are always present")
        };
        // Tokens that share a row of the condition are modulated as those of one image.
        let grouped = |x: Tensor<3>| x.reshape([groups, b * n / groups, d]);
        let tokens = |x: Tensor<3>| x.reshape([b, n, d]);
        let x = grouped(x);
        let a = tokens(self.norm1.modulated(x.clone(), shift1, scale1));
        let a = dropout.apply(self.attn.forward(a, rope));
        let x = tintype_shaders::gated_residual(x, grouped(a), gate1);
        let h = tokens(self.norm2.modulated(x.clone(), shift2, scale2));
        let f = match &self.mlp {
            FeedForward::Mlp(mlp) => mlp.forward_dropping(h, dropout.at(1)),
            FeedForward::SwiGlu(swiglu) => swiglu.forward_dropping(h, dropout.at(1)),
        };
        tokens(tintype_shaders::gated_residual(x, grouped(f), gate2))
    }
}

/// The layer of a condition, `[B, D]` or `[B·N, D]`, of so many images. Rows of tokens lie along an axis of their own
/// meanwhile: kernels take a matrix for a few conditions, whatever the number of its rows.
fn modulation(layer: &Linear, c: Tensor<2>, images: usize) -> Tensor<2> {
    let [rows, d] = c.dims();
    if rows == images {
        return layer.forward(c); // [B, out]
    }
    let m = layer.forward::<3>(c.reshape([images, rows / images, d])); // [B, N, out]
    let out = m.dims()[2];
    m.reshape([rows, out]) // [B·N, out]
}

/// Norm, modulation and the linear head onto patches.
#[derive(Module, Debug)]
pub struct FinalLayer {
    norm_final: Norm,
    linear: Linear,
    ada_ln_modulation: Linear,
}

impl FinalLayer {
    /// A head from `hidden` to `out` values a token, starting at zero.
    pub fn new(hidden: usize, out: usize, norm: NormKind, device: &Device) -> Self {
        Self {
            norm_final: Norm::new(norm, hidden, device),
            linear: Linear::new(hidden, out, Init::Zero, device),
            ada_ln_modulation: Linear::new(hidden, 2 * hidden, Init::Zero, device),
        }
    }

    /// The normalised and modulated tokens, which Hi-DiT's two heads share.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * `c`: SiLU of the condition, `[B, D]`, or `[B·N, D]` where each token has its own
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn modulate(&self, x: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let [groups, _] = c.dims();
        let m = modulation(&self.ada_ln_modulation, c, b); // [B, 2·D]
        let (shift, scale) = (m.clone().narrow(1, 0, d), m.narrow(1, d, d));
        let x = x.reshape([groups, b * n / groups, d]);
        self.norm_final.modulated(x, Some(shift), scale).reshape([b, n, d])
    }

    /// The linear head, from modulated tokens to the values of their patches.
    ///
    /// # Shapes
    ///
    /// * `tokens`: `[B, N, D]`
    /// * returns `[B, N, out]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn head(&self, tokens: Tensor<3>) -> Tensor<3> {
        self.linear.forward(tokens)
    }
}
