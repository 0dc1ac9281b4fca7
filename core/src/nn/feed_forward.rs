//! Feed-forward networks of the transformer blocks.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::dropout::Dropout;
use super::linear::{Init, Linear};

/// `fc2(gelu_tanh(fc1(x)))`, the MLP of DiT and SiT.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// From `hidden` to `inner` features and back.
    pub fn new(hidden: usize, inner: usize, device: &Device) -> Self {
        Self::with_init(hidden, inner, Init::Xavier, device)
    }

    /// The same whose layers start in another way.
    pub fn with_init(hidden: usize, inner: usize, init: Init, device: &Device) -> Self {
        Self {
            fc1: Linear::new(hidden, inner, init, device),
            fc2: Linear::new(inner, hidden, init, device),
        }
    }

    /// The network, over the last axis.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_dropping(x, Dropout::default())
    }

    /// [`forward`](Self::forward) in training, with dropout of the hidden vector.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_dropping(&self, x: Tensor<3>, dropout: Dropout) -> Tensor<3> {
        let h = self.fc1.forward_gelu_tanh(x); // [B, N, inner]
        self.fc2.forward(dropout.apply(h)) // [B, N, D]
    }
}

/// `w3(SiLU(a) ⊙ b)` with `[a, b] = w12(x)` (LightningDiT §2).
#[derive(Module, Debug)]
pub struct SwiGlu {
    w12: Linear,
    w3: Linear,
}

impl SwiGlu {
    /// From `hidden` features through `inner` products and back.
    pub fn new(hidden: usize, inner: usize, device: &Device) -> Self {
        Self::with_init(hidden, inner, Init::Xavier, device)
    }

    /// The same whose layers start in another way.
    pub fn with_init(hidden: usize, inner: usize, init: Init, device: &Device) -> Self {
        Self {
            w12: Linear::new(hidden, 2 * inner, init, device),
            w3: Linear::new(inner, hidden, init, device),
        }
    }

    /// The network, over the last axis.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_dropping(x, Dropout::default())
    }

    /// [`forward`](Self::forward) in training, with dropout of the hidden vector.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, N, D]`
    /// * returns `[B, N, D]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward_dropping(&self, x: Tensor<3>, dropout: Dropout) -> Tensor<3> {
        let ab = self.w12.forward(x); // [B, N, 2·inner]
        self.w3.forward(dropout.apply(tintype_shaders::swiglu(ab))) // [B, N, D]
    }
}
