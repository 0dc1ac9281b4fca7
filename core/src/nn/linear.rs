//! Affine maps with PyTorch's weight layout.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{DType, Device, Tensor};

use super::{constant, normal};

/// How a linear layer starts before training.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// Xavier-uniform weight, zero bias (SiT §1, LightningDiT §7).
    Xavier,
    /// Uniform ±1/√fan_in, PyTorch's default (HDiT §6).
    FanIn,
    /// N(0, 0.02²) weight, zero bias (timestep and label embeddings).
    Normal,
    /// N(0, (s/√fan_in)²) weight of this s, zero bias (iMF, pMF).
    Scaled(f64),
    /// All zero: the layer starts without effect.
    Zero,
}

/// How Burn calls a [`Linear`] as the container of its parameters.
pub(crate) const CONTAINER: &str = "Struct:Linear";

/// `y = x Wᵀ + b`, weight `[out, in]`.
///
/// The weight of a layer that is loaded for inference may have 16 bits where the layer computes in float32
/// ([`load_for_inference`](crate::weights::load_for_inference)), so nothing but the layer itself computes with it. The
/// loader knows the layer by the name of this struct, which no other module may have.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer from `d_in` to `d_out` features with a bias.
    pub fn new(d_in: usize, d_out: usize, init: Init, device: &Device) -> Self {
        let bias = Some(match init {
            Init::FanIn => {
                let a = 1.0 / (d_in as f64).sqrt();
                Initializer::Uniform { min: -a, max: a }.init([d_out], device)
            }
            _ => constant([d_out], 0.0, device),
        });
        Self { bias, ..Self::without_bias(d_in, d_out, init, device) }
    }

    /// A layer from `d_in` to `d_out` features without a bias.
    pub fn without_bias(d_in: usize, d_out: usize, init: Init, device: &Device) -> Self {
        let shape = [d_out, d_in];
        let weight = match init {
            Init::Xavier => Initializer::XavierUniform { gain: 1.0 }.init_with(
                shape,
                Some(d_in),
                Some(d_out),
                device,
            ),
            Init::FanIn => {
                let a = 1.0 / (d_in as f64).sqrt();
                Initializer::Uniform { min: -a, max: a }.init(shape, device)
            }
            Init::Normal => normal(shape, 0.02, device),
            Init::Scaled(scale) => normal(shape, scale / (d_in as f64).sqrt(), device),
            Init::Zero => constant(shape, 0.0, device),
        };
        Self { weight, bias: None }
    }

    /// What a layer with a bias computes in, which its weight does not tell.
    pub(crate) fn dtype(&self) -> DType {
        match &self.bias {
            Some(bias) => bias.val().dtype(),
            None => self.weight.val().dtype(),
        }
    }

    /// The map, over the last axis.
    ///
    /// # Shapes
    ///
    /// * `x`: `[…, in]`
    /// * returns `[…, out]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        tintype_shaders::linear(x, self.weight.val(), self.bias.as_ref().map(|b| b.val()))
    }

    /// `gelu_tanh(forward(x))` in one pass.
    ///
    /// # Shapes
    ///
    /// * `x`: `[…, in]`
    /// * returns `[…, out]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_gelu_tanh<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(|b| b.val());
        tintype_shaders::linear_gelu_tanh(x, self.weight.val(), bias)
    }
}
