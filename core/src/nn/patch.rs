//! Images to patches and back.
//!
//! Three orders exist in this field and all occur here: convolution patches, patches whose
//! values run **channel fastest** (DiT's unpatchify, HDiT's merges), and PyTorch's PixelShuffle,
//! **channel slowest**.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use super::constant;

/// Patch embedding by a convolution with kernel = stride = patch, computed as a product.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    proj: Projection,
}

#[derive(Module, Debug)]
struct Projection {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    fn new(channels: usize, hidden: usize, patch: usize, device: &Device) -> Self {
        let bias = Some(constant([hidden], 0.0, device));
        Self { bias, ..Self::without_bias(channels, hidden, patch, device) }
    }

    fn without_bias(channels: usize, hidden: usize, patch: usize, device: &Device) -> Self {
        let fan_in = channels * patch * patch;
        let weight = Initializer::XavierUniform { gain: 1.0 }.init_with(
            [hidden, channels, patch, patch],
            Some(fan_in),
            Some(hidden),
            device,
        );
        Self { weight, bias: None }
    }

    /// Side of a patch in pixels.
    fn patch(&self) -> usize {
        self.weight.dims()[3]
    }

    /// The convolution on patches that are cut: `[B, N, C·p·p]` → `[B, N, D]`
    fn forward(&self, patches: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        let [d, c, p, _] = weight.dims();
        let weight = weight.reshape([d, c * p * p]);
        let bias = self.bias.as_ref().map(|bias| bias.val());
        tintype_shaders::linear(patches, weight, bias) // [B, N, D]
    }
}

/// Patches as a convolution takes them, channel slowest: `[B, C, H, W]` → `[B, H/p·W/p, C·p·p]`
fn cut(x: Tensor<4>, p: usize) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h / p, p, w / p, p])
        .permute([0, 2, 4, 1, 3, 5]) // [B, H/p, W/p, C, p, p]
        .reshape([b, (h / p) * (w / p), c * p * p])
}

impl PatchEmbed {
    /// From `channels` to `hidden` features in square patches of side `patch`.
    pub fn new(channels: usize, hidden: usize, patch: usize, device: &Device) -> Self {
        Self { proj: Projection::new(channels, hidden, patch, device) }
    }

    /// Side of a patch in pixels.
    pub fn patch(&self) -> usize {
        self.proj.patch()
    }

    /// Cuts into patches and projects them, tokens row-major.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`
    /// * returns `[B, H/p·W/p, D]`
    ///
    /// # Panics
    ///
    /// If C is not the number of channels, or H or W is not divisible by p.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        self.proj.forward(cut(x, self.patch())) // [B, N, D]
    }
}

/// Patch embedding through a bottleneck: a convolution with kernel = stride = patch, then one of 1×1 without an
/// activation between (JiT, pMF).
#[derive(Module, Debug)]
pub struct BottleneckEmbed {
    proj1: Projection,
    proj2: Projection,
}

impl BottleneckEmbed {
    /// From `channels` through `bottleneck` to `hidden` features in square patches of side `patch`.
    pub fn new(
        channels: usize,
        bottleneck: usize,
        hidden: usize,
        patch: usize,
        device: &Device,
    ) -> Self {
        Self {
            proj1: Projection::new(channels, bottleneck, patch, device),
            proj2: Projection::new(bottleneck, hidden, 1, device),
        }
    }

    /// The same whose first convolution has no bias (JiT).
    pub fn without_bias(
        channels: usize,
        bottleneck: usize,
        hidden: usize,
        patch: usize,
        device: &Device,
    ) -> Self {
        Self {
            proj1: Projection::without_bias(channels, bottleneck, patch, device),
            proj2: Projection::new(bottleneck, hidden, 1, device),
        }
    }

    /// Cuts into patches and projects them twice, tokens row-major.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`
    /// * returns `[B, H/p·W/p, D]`
    ///
    /// # Panics
    ///
    /// If C is not the number of channels, or H or W is not divisible by p.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let narrow = self.proj1.forward(cut(x, self.proj1.patch())); // [B, N, bottleneck]
        self.proj2.forward(narrow) // [B, N, D]
    }
}

/// Cuts an image into patches, values (row in patch, column in patch, **channel fastest**).
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns `[B, H/p·W/p, p²·C]`
///
/// # Panics
///
/// If `p` is 0 or does not divide H and W.
pub fn patchify(x: Tensor<4>, p: usize) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h / p, p, w / p, p])
        .permute([0, 2, 4, 3, 5, 1]) // [B, H/p, W/p, p, p, C]
        .reshape([b, (h / p) * (w / p), p * p * c])
}

/// The inverse of [`patchify`] on a square grid.
///
/// # Shapes
///
/// * `x`: `[B, N, p²·C]`
/// * returns `[B, C, √N·p, √N·p]`
///
/// # Panics
///
/// If `p` is 0, N is not a square or p² does not divide the last axis.
pub fn unpatchify(x: Tensor<3>, p: usize) -> Tensor<4> {
    let [b, n, values] = x.dims();
    let (grid, c) = (n.isqrt(), values / (p * p));
    x.reshape([b, grid, grid, p, p, c])
        .permute([0, 5, 1, 3, 2, 4]) // [B, C, grid, p, grid, p]
        .reshape([b, c, grid * p, grid * p])
}

/// PyTorch's PixelShuffle, channel slowest.
///
/// # Shapes
///
/// * `x`: `[B, C·r², H, W]`
/// * returns `[B, C, H·r, W·r]`
///
/// # Panics
///
/// If `r` is 0 or r² does not divide the channels.
pub fn pixel_shuffle(x: Tensor<4>, r: usize) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c / (r * r), r, r, h, w])
        .permute([0, 1, 4, 2, 5, 3]) // [B, C, H, r, W, r]
        .reshape([b, c / (r * r), h * r, w * r])
}

/// Channels-last cells of `ph × pw` folded into channels, channel fastest (HDiT §4).
///
/// # Shapes
///
/// * `x`: `[B, H, W, C]`
/// * returns `[B, H/ph, W/pw, ph·pw·C]`
///
/// # Panics
///
/// If a side of the cell is 0, or ph does not divide H or pw W.
pub fn space_to_depth(x: Tensor<4>, [ph, pw]: [usize; 2]) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.reshape([b, h / ph, ph, w / pw, pw, c])
        .permute([0, 1, 3, 2, 4, 5]) // [B, H/ph, W/pw, ph, pw, C]
        .reshape([b, h / ph, w / pw, ph * pw * c])
}

/// The inverse of [`space_to_depth`].
///
/// # Shapes
///
/// * `x`: `[B, H, W, ph·pw·C]`
/// * returns `[B, H·ph, W·pw, C]`
///
/// # Panics
///
/// If a side of the cell is 0, or ph·pw does not divide the last axis.
pub fn depth_to_space(x: Tensor<4>, [ph, pw]: [usize; 2]) -> Tensor<4> {
    let [b, h, w, values] = x.dims();
    let c = values / (ph * pw);
    x.reshape([b, h, w, ph, pw, c])
        .permute([0, 1, 3, 2, 4, 5]) // [B, H, ph, W, pw, C]
        .reshape([b, h * ph, w * pw, c])
}
