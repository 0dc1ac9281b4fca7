//! DiT-DH's embedding of time.

use std::f64::consts::TAU;

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};

use crate::nn::activation::silu;
use crate::nn::linear::{Init, Linear};
use crate::nn::normal;

/// Frequencies; each makes a sine and a cosine.
const FREQUENCIES: usize = 256;

/// Time → `[B, D]`: sines, then cosines of `2π·t·W` at 256 frequencies, and a two-layer MLP with SiLU. The frequencies
/// are parameters.
#[derive(Module, Debug)]
pub(super) struct FourierEmbedder {
    /// W, `[256]`, in float32 in networks of any precision.
    w: Param<Tensor<1>>,
    fc1: Linear,
    fc2: Linear,
}

impl FourierEmbedder {
    /// An embedder into `hidden` features, with frequencies from N(0, 1).
    pub(super) fn new(hidden: usize, device: &Device) -> Self {
        // Weights are drawn anew, biases start as PyTorch's.
        let layer = |d_in| {
            let bias = Linear::new(d_in, hidden, Init::FanIn, device).bias;
            Linear { bias, ..Linear::without_bias(d_in, hidden, Init::Normal, device) }
        };
        Self {
            w: normal([FREQUENCIES], 1.0, device),
            fc1: layer(2 * FREQUENCIES),
            fc2: layer(hidden),
        }
    }

    /// The embedding of times in 0…1.
    ///
    /// # Shapes
    ///
    /// * `t`: `[B]`
    /// * returns `[B, D]`
    pub(super) fn forward(&self, t: Tensor<1>) -> Tensor<2> {
        let b = t.dims()[0];
        let w = self.w.val().cast(FloatDType::F32).reshape([1, FREQUENCIES]);
        let angle = t.cast(FloatDType::F32).reshape([b, 1]) * w * TAU; // [B, 256]
        let features = Tensor::cat(vec![angle.clone().sin(), angle.cos()], 1); // [B, 512]
        let features = features.cast(self.fc1.dtype());
        self.fc2.forward(silu(self.fc1.forward(features))) // [B, D]
    }
}
