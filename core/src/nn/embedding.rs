//! Embeddings of time and label.

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use super::activation::silu;
use super::kept::{Kept, kept};
use super::linear::{Init, Linear};
use super::normal;

/// Sinusoidal features of a time, cosines first: `[cos(t·f), sin(t·f)]`, `f_k = exp(−ln 10000 · k /
/// (dim/2))`; an odd width is padded with one zero (LightningDiT §4).
///
/// # Shapes
///
/// * `t`: `[B]`
/// * returns `[B, dim]` in float32
pub fn timestep_features(t: Tensor<1>, dim: usize) -> Tensor<2> {
    let half = dim / 2;
    let device = t.device();
    let freqs = frequencies(half, &device);
    let b = t.dims()[0];
    let angle = t.cast(FloatDType::F32).reshape([b, 1]) * freqs.reshape([1, half]); // [B, dim/2]
    let mut parts = vec![angle.clone().cos(), angle.sin()];
    if dim % 2 == 1 {
        parts.push(Tensor::zeros([b, 1], (&device, burn::tensor::DType::F32)));
    }
    Tensor::cat(parts, 1)
}

/// `exp(−ln 10000 · k / count)`, `[count]`.
fn frequencies(count: usize, device: &Device) -> Tensor<1> {
    static TABLES: Kept<usize, Tensor<1>> = Kept::new(Vec::new());
    kept(&TABLES, device, count, || {
        let value = |k| (-(10000f64.ln()) * k as f64 / count as f64).exp() as f32;
        let values = TensorData::new((0..count).map(value).collect::<Vec<_>>(), [count]);
        Tensor::<1>::from_data(values, (device, burn::tensor::DType::F32))
    })
}

/// Time → `[B, D]`: 256 sinusoidal features and a two-layer MLP with SiLU.
#[derive(Module, Debug)]
pub struct TimestepEmbedder {
    fc1: Linear,
    fc2: Linear,
    features: usize,
}

impl TimestepEmbedder {
    /// The width of the sinusoidal features, 256 in every published model.
    pub const FEATURES: usize = 256;

    /// An embedder into `hidden` features.
    pub fn new(hidden: usize, device: &Device) -> Self {
        Self::with_init(hidden, Init::Normal, device)
    }

    /// The same whose layers start in another way.
    pub fn with_init(hidden: usize, init: Init, device: &Device) -> Self {
        Self {
            fc1: Linear::new(Self::FEATURES, hidden, init, device),
            fc2: Linear::new(hidden, hidden, init, device),
            features: Self::FEATURES,
        }
    }

    /// The embedding of times in 0…1, unscaled, on the network's own clock.
    ///
    /// # Shapes
    ///
    /// * `t`: `[B]`
    /// * returns `[B, D]`
    pub fn forward(&self, t: Tensor<1>) -> Tensor<2> {
        let dtype = self.fc1.dtype();
        let features = timestep_features(t, self.features).cast(dtype); // [B, 256]
        self.fc2.forward(silu(self.fc1.forward(features))) // [B, D]
    }
}

/// Label → `[B, D]`; row `num_classes` is the null class.
#[derive(Module, Debug)]
pub struct LabelEmbedder {
    embedding_table: Table,
    num_classes: usize,
}

#[derive(Module, Debug)]
struct Table {
    weight: Param<Tensor<2>>,
}

impl LabelEmbedder {
    /// A table of `num_classes` rows plus, where labels are dropped in training, the null row.
    pub fn new(num_classes: usize, null_row: bool, hidden: usize, device: &Device) -> Self {
        Self::with_std(num_classes, null_row, hidden, 0.02, device)
    }

    /// The same whose rows start with another standard deviation.
    pub fn with_std(
        num_classes: usize,
        null_row: bool,
        hidden: usize,
        std: f64,
        device: &Device,
    ) -> Self {
        let rows = num_classes + usize::from(null_row);
        Self { embedding_table: Table { weight: normal([rows, hidden], std, device) }, num_classes }
    }

    /// The label that stands for "no class".
    pub fn null_class(&self) -> usize {
        self.num_classes
    }

    /// The rows of labels, each from 0 to the null class (included where the table has a row for
    /// it).
    ///
    /// # Shapes
    ///
    /// * `y`: `[B]`
    /// * returns `[B, D]`
    ///
    /// # Panics
    ///
    /// If a label is beyond the table, on the CPU; GPUs then read something else.
    pub fn forward(&self, y: Tensor<1, Int>) -> Tensor<2> {
        self.embedding_table.weight.val().select(0, y)
    }

    /// Labels with those where `drop` is true replaced by the null class.
    ///
    /// # Shapes
    ///
    /// * `y`: `[B]`
    /// * `drop`: `[B]`
    /// * returns `[B]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn drop_labels(
        &self,
        y: Tensor<1, Int>,
        drop: Tensor<1, burn::tensor::Bool>,
    ) -> Tensor<1, Int> {
        y.mask_fill(drop, self.num_classes as i64)
    }
}
