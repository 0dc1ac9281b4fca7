//! The weights of a linear layer, which may be kept in 16 bits and are widened as they are used.

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::DType;
use burn_backend::{bf16, f16};
use burn_flex::FlexTensor;

use super::math;

/// The contiguous values of a weight on the CPU backend; `None` for tensors of another type, on another device, or
/// under automatic differentiation.
pub(super) struct Weight(FlexTensor);

impl Weight {
    pub(super) fn read(x: &DispatchTensor) -> Option<Self> {
        let DispatchTensorKind::Flex(BackendTensor::Float(x)) = &x.kind else { return None };
        if !matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return None;
        }
        Some(Self(if x.is_contiguous() { x.clone() } else { x.to_contiguous() }))
    }

    pub(super) fn stored(&self) -> Stored<'_> {
        let start = self.0.layout().start_offset();
        let range = start..start + self.0.layout().num_elements();
        match self.0.dtype() {
            DType::F16 => Stored::F16(&self.0.storage::<f16>()[range]),
            DType::BF16 => Stored::BF16(&self.0.storage::<bf16>()[range]),
            _ => Stored::F32(&self.0.storage::<f32>()[range]),
        }
    }
}

/// Values as they lie in memory.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

impl<'a> Stored<'a> {
    /// The values themselves, where they need no widening.
    #[inline(always)]
    pub(super) fn wide(self) -> Option<&'a [f32]> {
        match self {
            Self::F32(values) => Some(values),
            Self::F16(_) | Self::BF16(_) => None,
        }
    }

    /// From a value on.
    pub(super) fn below(self, first: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[first..]),
            Self::F16(values) => Self::F16(&values[first..]),
            Self::BF16(values) => Self::BF16(&values[first..]),
        }
    }

    /// The values from `first` on, exactly. To be called where vector instructions are dispatched to.
    #[inline(always)]
    pub(super) fn widen(self, first: usize, to: &mut [f32]) {
        match self {
            Self::F32(values) => to.copy_from_slice(&values[first..][..to.len()]),
            Self::F16(values) => {
                let values = &values[first..][..to.len()];
                for i in 0..to.len() {
                    to[i] = math::from_f16(values[i].to_bits());
                }
            }
            Self::BF16(values) => {
                let values = &values[first..][..to.len()];
                for i in 0..to.len() {
                    to[i] = math::from_bf16(values[i].to_bits());
                }
            }
        }
    }
}
