//! What encoder and decoder are made of.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::nn::attention::attention;
use crate::nn::conv::Conv2d;
use crate::nn::norm::GroupNorm;

/// Residual blocks, each followed by attention where the level has it.
pub(super) fn run_level(blocks: &[ResBlock], attn: &[AttnBlock], mut h: Tensor<4>) -> Tensor<4> {
    for (i, block) in blocks.iter().enumerate() {
        h = block.forward(h);
        if let Some(attn) = attn.get(i) {
            h = attn.forward(h);
        }
    }
    h
}

#[derive(Module, Debug)]
pub(super) struct Mid {
    block_1: ResBlock,
    attn_1: AttnBlock,
    block_2: ResBlock,
}

impl Mid {
    pub(super) fn new(width: usize, groups: usize, device: &Device) -> Self {
        Self {
            block_1: ResBlock::new(width, width, groups, device),
            attn_1: AttnBlock::new(width, groups, device),
            block_2: ResBlock::new(width, width, groups, device),
        }
    }

    pub(super) fn forward(&self, h: Tensor<4>) -> Tensor<4> {
        self.block_2.forward(self.attn_1.forward(self.block_1.forward(h)))
    }
}

#[derive(Module, Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

impl ResBlock {
    pub(super) fn new(c_in: usize, c_out: usize, groups: usize, device: &Device) -> Self {
        Self {
            norm1: GroupNorm::new(groups, c_in, device),
            conv1: Conv2d::same(c_in, c_out, 3, device),
            norm2: GroupNorm::new(groups, c_out, device),
            conv2: Conv2d::same(c_out, c_out, 3, device),
            nin_shortcut: (c_in != c_out).then(|| Conv2d::same(c_in, c_out, 1, device)),
        }
    }

    /// `[B, in, H, W]` → `[B, out, H, W]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv1.forward(self.norm1.silu(x.clone()));
        let shortcut = match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        self.conv2.forward_residual(shortcut, self.norm2.silu(h))
    }
}

#[derive(Module, Debug)]
pub(super) struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    pub(super) fn new(c: usize, groups: usize, device: &Device) -> Self {
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
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
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
