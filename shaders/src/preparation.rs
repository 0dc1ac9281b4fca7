//! What is done to queries and keys, apart from the tensors that it takes.

use burn::backend::DispatchTensor;
use burn::tensor::{FloatDType, Tensor};

use crate::QkTransform;

/// How queries and keys are prepared; what it takes follows the projection among the inputs of an
/// operation, in float32 whatever the projection is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preparation {
    /// Not at all.
    Plain,
    /// LightningDiT's rotation: cosines and sines, `[N, d]`.
    Rotary,
    /// HDiT's: scales `[heads]` and frequencies `[heads, d/8]`, for an image of this height and
    /// width.
    Cosine { height: usize, width: usize },
}

impl Preparation {
    /// Of a transform, with the inputs of an operation: the projection and what the transform takes.
    pub(crate) fn of(transform: &QkTransform, qkv: &Tensor<3>) -> (Self, Vec<DispatchTensor>) {
        let qkv = qkv.clone().into_dispatch();
        match transform {
            QkTransform::Plain => (Self::Plain, vec![qkv]),
            QkTransform::Rotary { cos, sin } => {
                (Self::Rotary, vec![qkv, float32(cos), float32(sin)])
            }
            QkTransform::Cosine { scale, freqs, height, width } => {
                let kind = Self::Cosine { height: *height, width: *width };
                (kind, vec![qkv, float32(scale), float32(freqs)])
            }
        }
    }
}

fn float32<const D: usize>(x: &Tensor<D>) -> DispatchTensor {
    x.clone().cast(FloatDType::F32).into_dispatch()
}
