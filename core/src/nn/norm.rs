//! Normalisations. Statistics are computed in float32 whatever the activations are.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use tintype_shaders::{Normalization, modulated_norm};

use super::constant;

/// LayerNorm over the last axis without affine parameters.
///
/// # Shapes
///
/// * `x`: `[…, d]`
/// * returns the same
pub fn layer_norm<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    modulated_norm(x, Normalization::LayerNorm, None, None, None, eps)
}

/// LayerNorm over the last axis with weight and bias.
///
/// # Shapes
///
/// * `x`: `[…, d]`
/// * `weight`, `bias`: `[d]`
/// * returns `x`'s shape
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn layer_norm_affine<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let rows: Tensor<3> = x.reshape([1, -1, shape[D - 1] as i32]); // one group of all rows
    let shift = Some(bias.unsqueeze());
    modulated_norm(rows, Normalization::LayerNorm, Some(weight), None, shift, eps).reshape(shape)
}

/// `x / max(‖x‖, eps)` over an axis.
///
/// # Shapes
///
/// * `x`: any shape
/// * returns the same
///
/// # Panics
///
/// If there is no axis `dim`.
pub fn l2_normalize<const D: usize>(x: Tensor<D>, dim: usize, eps: f64) -> Tensor<D> {
    // The square is clamped, not its root: at zero, where a fresh head's output lies, the root has no gradient.
    let norm = x.clone().square().sum_dim(dim).clamp_min(eps * eps).sqrt();
    x / norm
}

/// Cosine of two tensors over an axis, each norm clamped at `eps`; the axis stays with size 1.
///
/// # Shapes
///
/// * `a`, `b`: any shape, the same
/// * returns that shape with size 1 at `dim`
///
/// # Panics
///
/// If the shapes differ, or there is no axis `dim`.
pub fn cosine_similarity<const D: usize>(
    a: Tensor<D>,
    b: Tensor<D>,
    dim: usize,
    eps: f64,
) -> Tensor<D> {
    (l2_normalize(a, dim, eps) * l2_normalize(b, dim, eps)).sum_dim(dim)
}

/// RMSNorm with a learned gain, eps 1e-6. `gain` is called `weight` in LightningDiT and `scale`
/// in k-diffusion; the field is named by the owner.
///
/// # Shapes
///
/// * `x`: `[…, d]`
/// * `gain`: `[d]`
/// * returns `x`'s shape
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn rms_norm_scaled<const D: usize>(x: Tensor<D>, gain: Tensor<1>) -> Tensor<D> {
    modulated_norm(x, Normalization::RmsNorm, Some(gain), None, None, 1e-6)
}

/// The norms a DiT block chooses from.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[d]`; absent in LayerNorm without affine parameters.
    pub weight: Option<Param<Tensor<1>>>,
    /// `[d]`; only LayerNorm with affine parameters has one.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: NormKind,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// LayerNorm, eps 1e-6, no parameters (DiT, SiT).
    LayerNorm,
    /// LayerNorm, eps 1e-5, weight and bias (timm's q/k norm).
    LayerNormAffine,
    /// RMSNorm, eps 1e-6, weight (LightningDiT).
    RmsNorm,
}

impl NormKind {
    /// The statistic, and what is added to the mean square.
    fn normalization(self) -> (Normalization, f64) {
        match self {
            Self::LayerNorm => (Normalization::LayerNorm, 1e-6),
            Self::LayerNormAffine => (Normalization::LayerNorm, 1e-5),
            Self::RmsNorm => (Normalization::RmsNorm, 1e-6),
        }
    }
}

impl Norm {
    /// A norm over `d` features.
    pub fn new(kind: NormKind, d: usize, device: &Device) -> Self {
        Self {
            weight: (kind != NormKind::LayerNorm).then(|| constant([d], 1.0, device)),
            bias: (kind == NormKind::LayerNormAffine).then(|| constant([d], 0.0, device)),
            kind,
        }
    }

    /// Normalises the last axis.
    ///
    /// # Shapes
    ///
    /// * `x`: `[…, d]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (kind, eps) = self.kind.normalization();
        let weight = self.weight.as_ref().map(|w| w.val());
        match (weight, &self.bias) {
            (Some(weight), Some(bias)) => layer_norm_affine(x, weight, bias.val(), eps),
            (weight, _) => modulated_norm(x, kind, weight, None, None, eps),
        }
    }

    /// `norm(x)·(1 + scale) + shift`, the adaLN of DiT; the shift may be absent (`wo_shift`). Not
    /// for [`NormKind::LayerNormAffine`], whose bias would be left out.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * `shift`, `scale`: `[B, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn modulated(&self, x: Tensor<3>, shift: Option<Tensor<2>>, scale: Tensor<2>) -> Tensor<3> {
        debug_assert!(self.bias.is_none(), "no model modulates an affine LayerNorm");
        let (kind, eps) = self.kind.normalization();
        let weight = self.weight.as_ref().map(|w| w.val());
        modulated_norm(x, kind, weight, Some(scale), shift, eps)
    }
}

/// LayerNorm with weight and bias, of the eps that its owner has.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    /// `[d]`
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// A norm over `d` features; `eps` is added to their variance.
    pub fn new(d: usize, eps: f64, device: &Device) -> Self {
        Self { weight: constant([d], 1.0, device), bias: constant([d], 0.0, device), eps }
    }

    /// Normalises the last axis.
    ///
    /// # Shapes
    ///
    /// * `x`: `[…, d]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm_affine(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// GroupNorm, eps 1e-6, affine (VA-VAE §2).
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    groups: usize,
}

impl GroupNorm {
    /// A norm of `channels` in `groups`; `channels` is divisible by `groups`.
    pub fn new(groups: usize, channels: usize, device: &Device) -> Self {
        Self {
            weight: constant([channels], 1.0, device),
            bias: constant([channels], 0.0, device),
            groups,
        }
    }

    /// The norm without an activation.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If C is not the number of channels, or `groups` does not divide it.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let y = x.reshape([b, self.groups, c / self.groups * h * w]); // [B, G, C/G·H·W]
        let y = layer_norm(y, 1e-6).reshape([b, c, h, w]);
        y * self.weight.val().reshape([1, c, 1, 1]) + self.bias.val().reshape([1, c, 1, 1])
    }

    /// GroupNorm followed by SiLU, as every convolution of the VAE wants it.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If C is not the number of channels, or `groups` does not divide it.
    pub fn silu(&self, x: Tensor<4>) -> Tensor<4> {
        tintype_shaders::group_norm_silu(x, self.weight.val(), self.bias.val(), self.groups, 1e-6)
    }
}

/// The affine-free batch norm inside REPA-E's SiT that normalises latents (`sit_repa` §1):
/// running statistics only, eps 1e-4 on the way in and **none** on the way out.
#[derive(Module, Debug)]
pub struct LatentNorm {
    /// `[C]`
    pub running_mean: Param<Tensor<1>>,
    /// `[C]`
    pub running_var: Param<Tensor<1>>,
}

impl LatentNorm {
    const EPS: f64 = 1e-4;

    /// Mean 0 and variance 1 until statistics are set.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self {
            running_mean: constant([channels], 0.0, device).set_require_grad(false),
            running_var: constant([channels], 1.0, device).set_require_grad(false),
        }
    }

    /// The norm with the statistics of a data set's latents: means and standard deviations.
    ///
    /// Both have one value for each channel.
    pub fn with_stats(self, mean: &[f32], std: &[f32]) -> Self {
        let row = |values: Vec<f32>, device: &Device| {
            let n = values.len();
            Tensor::from_data(burn::tensor::TensorData::new(values, [n]), device)
        };
        Self {
            running_mean: self.running_mean.map(|old| row(mean.to_vec(), &old.device())),
            running_var: self
                .running_var
                .map(|old| row(std.iter().map(|s| s * s).collect(), &old.device())),
        }
    }

    /// `(z − mean) / √(var + 1e-4)`
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If C is not the number of channels.
    pub fn normalize(&self, z: Tensor<4>) -> Tensor<4> {
        let c = z.dims()[1];
        let mean = self.running_mean.val().reshape([1, c, 1, 1]);
        let var = self.running_var.val().reshape([1, c, 1, 1]);
        (z - mean) / (var + Self::EPS).sqrt()
    }

    /// `z · √var + mean`: the inverse that the samplers use, without the 1e-4.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If C is not the number of channels.
    pub fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        let c = z.dims()[1];
        let mean = self.running_mean.val().reshape([1, c, 1, 1]);
        let var = self.running_var.val().reshape([1, c, 1, 1]);
        z * var.sqrt() + mean
    }

    /// Training-mode normalisation by the batch's own (biased) statistics; the running ones move by
    /// `momentum`, in 0…1, towards them, with the unbiased variance.
    ///
    /// Returns the normalised latents and the updated norm. Of a single value a channel (B·H·W = 1)
    /// the unbiased variance is not finite.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, H, W]`
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If C is not the number of channels.
    pub fn train_step(self, z: Tensor<4>, momentum: f64) -> (Tensor<4>, Self) {
        let [b, c, h, w] = z.dims();
        let n = (b * h * w) as f64;
        let mean = z.clone().mean_dims(&[0, 2, 3]); // [1, C, 1, 1]
        let centred = z - mean.clone();
        let var = centred.clone().square().mean_dims(&[0, 2, 3]);
        let y = centred / (var.clone() + Self::EPS).sqrt();
        let blend = |old: Tensor<1>, new: Tensor<1>| old * (1.0 - momentum) + new * momentum;
        let unbiased = var.reshape([c]) * (n / (n - 1.0));
        let this = Self {
            running_mean: self.running_mean.map(|old| blend(old, mean.reshape([c]).detach())),
            running_var: self.running_var.map(|old| blend(old, unbiased.detach())),
        };
        (y, this)
    }
}

#[cfg(all(test, feature = "cpu", feature = "autodiff"))]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_has_a_gradient_where_a_tensor_is_zero() {
        let device = Device::flex().autodiff();
        let a = Tensor::<2>::zeros([2, 3], &device).require_grad();
        let b = Tensor::<2>::from_data([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]], &device);
        let gradients = cosine_similarity(a.clone(), b, 1, 1e-8).sum().backward();
        let gradient = a.grad(&gradients).expect("it has one").into_data().convert::<f32>();
        let values: Vec<f32> = gradient.iter::<f32>().collect();
        // b/‖b‖ over eps, and zero if both are zero.
        for (found, expected) in values.iter().zip([1e8 / 3.0, 2e8 / 3.0, 2e8 / 3.0, 0.0, 0.0, 0.0])
        {
            assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{values:?}");
        }
    }
}
