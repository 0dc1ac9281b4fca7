//! DINOv2 (Oquab et al., arXiv 2304.07193), S to g, with and without registers (Darcet et al., arXiv
//! 2309.16588): RAE's encoder, a teacher and a feature extractor, always frozen.

mod checkpoint;
mod positions;

use burn::module::{Initializer, Module, Param, ParamId};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

pub use checkpoint::is_dinov2;
pub use positions::{Interpolation, resample_positions};

use super::{InvalidConfig, MAX_DEPTH, MAX_SIDE, MAX_WIDTH, bounded, ensure};
use crate::nn::activation::gelu_erf;
use crate::nn::attention::SelfAttention;
use crate::nn::feed_forward::SwiGlu;
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::{LayerNorm, layer_norm};
use crate::nn::patch::PatchEmbed;
use crate::weights::{Report, Weights, WeightsError, compare, load};

/// Features of a head in every published size.
const HEAD: usize = 64;
/// Added to the variance of every norm.
const EPS: f64 = 1e-6;

/// Shape of a DINOv2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DinoConfig {
    /// Width D, divisible by `num_heads`.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the MLP over the width.
    pub mlp_ratio: usize,
    /// Image side in pixels that the position table was trained for.
    pub img_size: usize,
    /// Register tokens: 4 in the `reg4` checkpoints, else 0.
    #[serde(default)]
    pub registers: usize,
    /// SwiGLU instead of the GELU MLP (g).
    #[serde(default)]
    pub swiglu: bool,
}

impl DinoConfig {
    /// DINOv2-B/14 with registers, RAE's encoder.
    pub fn base_with_registers() -> Self {
        Self {
            embed_dim: 768,
            depth: 12,
            num_heads: 12,
            patch_size: 14,
            mlp_ratio: 4,
            img_size: 518,
            registers: 4,
            swiglu: false,
        }
    }

    /// Multiply-adds of one image of `grid²` patches.
    pub fn macs(&self, grid: usize) -> f64 {
        let (d, n) = (self.embed_dim as f64, (grid * grid) as f64);
        let tokens = n + (1 + self.registers) as f64;
        let mlp = match self.swiglu {
            true => 3.0 * d * self.swiglu_width() as f64,
            false => 2.0 * d * (self.mlp_ratio * self.embed_dim) as f64,
        };
        let of_token = 4.0 * d * d + mlp + 2.0 * tokens * d;
        n * (3 * self.patch_size * self.patch_size) as f64 * d
            + self.depth as f64 * tokens * of_token
    }

    /// Two thirds of the MLP's width, rounded up to a multiple of eight.
    fn swiglu_width(&self) -> usize {
        (self.mlp_ratio * self.embed_dim * 2 / 3).div_ceil(8) * 8
    }

    /// The size of a checkpoint under the authors' names, from its shapes; `None` where it has not the tensors of a DINOv2.
    ///
    /// * `heads`: where they are not 64 wide
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`] where the width does not divide into heads of 64 and their number is not given.
    pub fn of(weights: &Weights, heads: Option<usize>) -> Result<Option<Self>, WeightsError> {
        let Some(config) = Self::of_shapes(weights) else { return Ok(None) };
        let width = config.embed_dim;
        if heads.is_none() && !width.is_multiple_of(HEAD) {
            let problem = format!(
                "its width {width} is not a multiple of {HEAD}, the width of a head, and does not tell their number"
            );
            return Err(WeightsError::Format { file: weights.file.clone(), problem });
        }
        let num_heads = heads.unwrap_or(config.num_heads);
        Ok(Some(Self { num_heads, ..config }))
    }

    /// With heads of 64.
    fn of_shapes(weights: &Weights) -> Option<Self> {
        let shape = |name: &str| weights.tensors.get(name).map(|view| view.shape.clone());
        let embed_dim = *shape("cls_token")?.last()?;
        let rows = *shape("pos_embed")?.get(1)?;
        let patch_size = *shape("patch_embed.proj.weight")?.last()?;
        let depth = (0..).take_while(|i| shape(&format!("blocks.{i}.norm1.weight")).is_some());
        Some(Self {
            embed_dim,
            depth: depth.count(),
            num_heads: embed_dim / HEAD,
            patch_size,
            mlp_ratio: 4,
            img_size: rows.checked_sub(1)?.isqrt().saturating_mul(patch_size),
            registers: shape("register_tokens").and_then(|s| s.get(1).copied()).unwrap_or(0),
            swiglu: shape("blocks.0.mlp.w12.weight").is_some(),
        })
    }

    /// The untrained network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if there are no blocks, the width does not divide into heads, an image has no patch, or a size
    /// is absurd.
    pub fn init(&self, device: &Device) -> Result<DinoV2, InvalidConfig> {
        let d = self.embed_dim;
        ensure!(
            self.num_heads > 0 && d.is_multiple_of(self.num_heads),
            "embed_dim {d} is not divisible by num_heads {}",
            self.num_heads
        );
        ensure!((1..=MAX_WIDTH).contains(&d), "embed_dim {d} is not in 1…{MAX_WIDTH}");
        bounded([
            ("depth", self.depth, MAX_DEPTH),
            ("patch_size", self.patch_size, MAX_SIDE),
            ("img_size", self.img_size, MAX_SIDE),
            ("registers", self.registers, MAX_WIDTH),
            ("embed_dim · mlp_ratio", d.saturating_mul(self.mlp_ratio), MAX_WIDTH),
        ])?;
        ensure!(self.depth > 0, "it has no blocks");
        ensure!(
            self.patch_size > 0 && self.img_size >= self.patch_size,
            "an image of {} pixels has no patch of {}",
            self.img_size,
            self.patch_size
        );
        let rows = 1 + (self.img_size / self.patch_size).pow(2);
        let registers =
            (self.registers > 0).then(|| Initializer::Zeros.init([1, self.registers, d], device));
        Ok(DinoV2 {
            cls_token: Initializer::Zeros.init([1, 1, d], device),
            register_tokens: registers,
            pos_embed: Initializer::Zeros.init([1, rows, d], device),
            patch_embed: PatchEmbed::new(3, d, self.patch_size, device),
            blocks: (0..self.depth).map(|_| DinoBlock::new(self, device)).collect(),
            norm: Some(LayerNorm::new(d, EPS, device)),
        })
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct DinoV2 {
    cls_token: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<DinoBlock>,
    /// `None` where the final norm has neither weight nor bias (RAE).
    norm: Option<LayerNorm>,
}

/// The normalised tokens.
#[derive(Debug)]
pub struct Tokens {
    /// `[B, D]`
    pub class: Tensor<2>,
    /// `[B, R, D]`, where there are registers.
    pub registers: Option<Tensor<3>>,
    /// `[B, N, D]`, row-major.
    pub patches: Tensor<3>,
}

impl DinoV2 {
    /// The network of a published checkpoint: the authors' `dinov2_vit*14*_pretrain.pth`, or the
    /// same weights as transformers and timm name them. `heads` where they are not 64 wide.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`]: the weights are not DINOv2's, or their width does not divide
    ///   into heads.
    /// * [`WeightsError::Mismatch`]: a tensor is missing or has another shape.
    /// * [`WeightsError::NotFinite`]: a weight is not finite.
    pub fn from_weights(
        weights: Weights,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        Self::read(weights, heads, true, device)
    }

    /// [`from_weights`](Self::from_weights) with a final norm that has neither weight nor bias: a file's are not read,
    /// and need not be there.
    ///
    /// # Errors
    ///
    /// As of [`from_weights`](Self::from_weights).
    pub fn without_final_affine(
        weights: Weights,
        heads: Option<usize>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        Self::read(weights, heads, false, device)
    }

    fn read(
        weights: Weights,
        heads: Option<usize>,
        is_affine: bool,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let weights = checkpoint::official(weights)?;
        let wrong = |problem: String| WeightsError::Format { file: weights.file.clone(), problem };
        let config = DinoConfig::of(&weights, heads)?.ok_or_else(|| {
            wrong("not a DINOv2: it lacks cls_token, pos_embed or patch_embed".into())
        })?;
        let mut network = config.init(device).map_err(|e| wrong(e.to_string()))?;
        network.norm = network.norm.filter(|_| is_affine);
        Ok(load(network, &weights, FloatDType::F32, device)?.network.no_grad())
    }

    /// What a checkpoint's shapes say of its network, and how its tensors fit it, whatever tool named them; `None` where
    /// it is no DINOv2. Of the tensors only those are read that the authors keep stacked.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`]: a part of a stacked tensor is missing, or the width does not divide into heads of 64.
    /// * [`WeightsError::Config`]: there are no blocks, or an image has no patch.
    pub fn inspect(
        weights: Weights,
        device: &Device,
    ) -> Result<Option<(DinoConfig, Report)>, WeightsError> {
        if !is_dinov2(&weights) {
            return Ok(None);
        }
        let weights = checkpoint::official(weights)?;
        let Some(config) = DinoConfig::of(&weights, None)? else { return Ok(None) };
        let mut network = config.init(device)?;
        // A checkpoint of RAE's training has none.
        network.norm = network.norm.filter(|_| weights.contains("norm.weight"));
        let report = compare(&network, &weights);
        Ok(Some((config, report)))
    }

    /// Features a token.
    pub fn width(&self) -> usize {
        self.pos_embed.dims()[2]
    }

    /// Side of a patch in pixels.
    pub fn patch(&self) -> usize {
        self.patch_embed.patch()
    }

    /// Register tokens.
    pub fn registers(&self) -> usize {
        self.register_tokens.as_ref().map_or(0, |tokens| tokens.dims()[1])
    }

    /// The position table, `[1, 1 + N, D]`.
    pub fn positions(&self) -> Tensor<3> {
        self.pos_embed.val()
    }

    /// Resamples the position table once, for images of `grid` patches (rows, columns).
    pub fn with_grid(mut self, grid: [usize; 2], how: Interpolation) -> Self {
        let side = (self.pos_embed.dims()[1] - 1).isqrt();
        if grid != [side; 2] {
            let method = how.method(self.register_tokens.is_some());
            let table = resample_positions(self.positions(), grid, method).detach();
            self.pos_embed = Param::initialized(ParamId::new(), table);
        }
        self
    }

    /// `[B, 3, rows·patch, columns·patch]` of the table's grid, ImageNet-normalised → tokens after
    /// the final norm
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, rows·patch, columns·patch]`
    /// * returns the shapes that [`Tokens`] states
    ///
    /// # Panics
    ///
    /// If `x` has another shape than that of the table's grid.
    pub fn forward(&self, x: Tensor<4>) -> Tokens {
        self.forward_observed(x, &mut |_, _| ())
    }

    /// [`forward`](Self::forward) that shows all tokens `[B, 1+R+N, D]` as they enter the blocks
    /// (stage 0) and as each block leaves them (stages 1, 2, …).
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, rows·patch, columns·patch]`
    /// * `observe`: is given `[B, 1 + R + N, D]`
    /// * returns the shapes that [`Tokens`] states
    ///
    /// # Panics
    ///
    /// If `x` has another shape than that of the table's grid.
    pub fn forward_observed(
        &self,
        x: Tensor<4>,
        observe: &mut dyn FnMut(usize, &Tensor<3>),
    ) -> Tokens {
        let b = x.dims()[0];
        let patches = self.patch_embed.forward(x); // [B, N, D]
        let [_, n, d] = patches.dims();
        let class = self.cls_token.val().expand([b, 1, d]);
        let mut h = Tensor::cat(vec![class, patches], 1) + self.pos_embed.val(); // [B, 1+N, D]
        let mut r = 0;
        if let Some(registers) = &self.register_tokens {
            // Behind the class token, without a position.
            r = registers.dims()[1];
            let registers = registers.val().expand([b, r, d]);
            let (class, patches) = (h.clone().narrow(1, 0, 1), h.narrow(1, 1, n));
            h = Tensor::cat(vec![class, registers, patches], 1); // [B, 1+R+N, D]
        }
        observe(0, &h);
        for (i, block) in self.blocks.iter().enumerate() {
            h = block.forward(h);
            observe(i + 1, &h);
        }
        let h = match &self.norm {
            Some(norm) => norm.forward(h),
            None => layer_norm(h, EPS),
        };
        Tokens {
            class: h.clone().narrow(1, 0, 1).reshape([b, d]),
            registers: (r > 0).then(|| h.clone().narrow(1, 1, r)),
            patches: h.narrow(1, 1 + r, n),
        }
    }
}

#[derive(Module, Debug)]
struct DinoBlock {
    norm1: LayerNorm,
    attn: SelfAttention,
    ls1: LayerScale,
    norm2: LayerNorm,
    mlp: FeedForward,
    ls2: LayerScale,
}

impl DinoBlock {
    fn new(config: &DinoConfig, device: &Device) -> Self {
        let d = config.embed_dim;
        let inner = config.mlp_ratio * d;
        let mlp = match config.swiglu {
            true => FeedForward::SwiGlu(SwiGlu::new(d, config.swiglu_width(), device)),
            false => FeedForward::Mlp(ErfMlp {
                fc1: Linear::new(d, inner, Init::Xavier, device),
                fc2: Linear::new(inner, d, Init::Xavier, device),
            }),
        };
        Self {
            norm1: LayerNorm::new(d, EPS, device),
            attn: SelfAttention::new(d, config.num_heads, None, device),
            ls1: LayerScale { gamma: Initializer::Ones.init([d], device) },
            norm2: LayerNorm::new(d, EPS, device),
            mlp,
            ls2: LayerScale { gamma: Initializer::Ones.init([d], device) },
        }
    }

    /// `[B, 1+R+N, D]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let a = self.attn.forward(self.norm1.forward(x.clone()), None);
        let x = x + a * self.ls1.gamma.val().unsqueeze();
        let f = self.norm2.forward(x.clone());
        let f = match &self.mlp {
            FeedForward::Mlp(mlp) => mlp.fc2.forward(gelu_erf(mlp.fc1.forward(f))),
            FeedForward::SwiGlu(mlp) => mlp.forward(f),
        };
        x + f * self.ls2.gamma.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct LayerScale {
    gamma: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
enum FeedForward {
    Mlp(ErfMlp),
    SwiGlu(SwiGlu),
}

#[derive(Module, Debug)]
struct ErfMlp {
    fc1: Linear,
    fc2: Linear,
}
