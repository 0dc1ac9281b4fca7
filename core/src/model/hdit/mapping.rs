//! The mapping network and what feeds it.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::blocks::geglu;
use crate::nn::dropout::dropout;
use crate::nn::linear::{Init, Linear};
use crate::nn::norm::rms_norm_scaled;
use crate::nn::{constant, normal};

/// RMSNorm with a learned gain.
#[derive(Module, Debug)]
pub(super) struct RmsNorm {
    scale: Param<Tensor<1>>,
}

impl RmsNorm {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        Self { scale: constant([width], 1.0, device) }
    }

    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        rms_norm_scaled(x, self.scale.val())
    }
}

/// `[cos, sin](2π·u·Wᵀ)` with a frozen random W.
#[derive(Module, Debug)]
pub(super) struct FourierFeatures {
    weight: Param<Tensor<2>>,
}

impl FourierFeatures {
    pub(super) fn new(d_in: usize, width: usize, device: &Device) -> Self {
        Self { weight: normal([width / 2, d_in], 1.0, device).set_require_grad(false) }
    }

    /// `[B, in]` → `[B, m]`, float32
    pub(super) fn forward(&self, u: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().cast(FloatDType::F32);
        let z = u.cast(FloatDType::F32).matmul(weight.transpose()) * std::f64::consts::TAU;
        Tensor::cat(vec![z.clone().cos(), z.sin()], 1)
    }
}

#[derive(Module, Debug)]
pub(super) struct ClassEmbedding {
    pub(super) weight: Param<Tensor<2>>,
}

/// The mapping network: conditions to the vector that every AdaRMSNorm reads.
#[derive(Module, Debug)]
pub(super) struct Mapping {
    in_norm: RmsNorm,
    blocks: Vec<MappingBlock>,
    out_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct MappingBlock {
    norm: RmsNorm,
    up_proj: Linear,
    down_proj: Linear,
    dropout: f64,
}

impl Mapping {
    pub(super) fn new(m: usize, depth: usize, d_ff: usize, dropout: f64, device: &Device) -> Self {
        let block = |_| MappingBlock {
            norm: RmsNorm::new(m, device),
            up_proj: Linear::without_bias(m, 2 * d_ff, Init::FanIn, device),
            down_proj: Linear::without_bias(d_ff, m, Init::Zero, device),
            dropout,
        };
        Self {
            in_norm: RmsNorm::new(m, device),
            blocks: (0..depth).map(block).collect(),
            out_norm: RmsNorm::new(m, device),
        }
    }

    /// What the network computes in.
    pub(super) fn dtype(&self) -> DType {
        self.in_norm.scale.val().dtype()
    }

    /// `[B, m]` → `[B, m]`; `seed` of a training step's dropout
    pub(super) fn forward(&self, e: Tensor<2>, seed: Option<u64>) -> Tensor<2> {
        let mut e = self.in_norm.forward(e);
        for (number, block) in self.blocks.iter().enumerate() {
            let h = geglu(block.norm.forward(e.clone()), &block.up_proj); // [B, f]
            // Counted from the top, so that no layer has the same mask.
            let seed = seed.map(|s| s.wrapping_sub(1 + number as u64));
            let h = dropout(h, block.dropout, seed);
            e = e + block.down_proj.forward(h);
        }
        self.out_norm.forward(e)
    }
}
