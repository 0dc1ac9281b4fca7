//! Between Burn's tensors and slices of float32.

use burn::tensor::{DType, Shape, Tensor};
use burn_flex::{Flex, FlexTensor};

/// The contiguous float32 values of a tensor on the CPU backend; `None` for tensors of another
/// type, on another device, or under automatic differentiation.
pub(crate) struct Values(FlexTensor);

impl Values {
    pub(crate) fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        if x.dtype() != DType::F32 {
            return None;
        }
        let flex = x.clone().try_into_primitive::<Flex>().ok()?;
        Some(Self(if flex.is_contiguous() { flex } else { flex.to_contiguous() }))
    }

    pub(crate) fn slice(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        &self.0.storage::<f32>()[start..start + self.0.layout().num_elements()]
    }
}

/// A new tensor whose values `fill` writes.
pub(crate) fn make<const D: usize>(shape: [usize; D], fill: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let mut flex = FlexTensor::empty(Shape::from(shape), DType::F32);
    fill(flex.storage_mut::<f32>());
    Tensor::from_primitive::<Flex>(flex)
}
