//! Between Burn's tensors and slices of float32.

use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};

use super::memory;

/// The contiguous float32 values of a tensor on the CPU backend; `None` for tensors of another
/// type, on another device, or under automatic differentiation.
pub(crate) struct Values(FlexTensor);

impl Values {
    pub(crate) fn read(x: &DispatchTensor) -> Option<Self> {
        let x = float32(x)?;
        Some(Self(if x.is_contiguous() { x.clone() } else { x.to_contiguous() }))
    }

    pub(crate) fn slice(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        &self.0.storage::<f32>()[start..start + self.0.layout().num_elements()]
    }
}

/// Inputs that may be left out, of which those that are there follow each other: for each whether it is there, and how
/// many values it has then. `None` where one cannot be read, or has another number of values.
pub(super) fn optional<const K: usize>(
    inputs: &[DispatchTensor],
    expected: [(bool, usize); K],
) -> Option<[Option<Values>; K]> {
    let mut inputs = inputs.iter();
    let mut found: [Option<Values>; K] = std::array::from_fn(|_| None);
    for (place, (there, count)) in found.iter_mut().zip(expected) {
        if there {
            let values = Values::read(inputs.next()?)?;
            if values.slice().len() != count {
                return None;
            }
            *place = Some(values);
        }
    }
    Some(found)
}

/// The tensor of the CPU backend itself, if it is one of float32 and not tracked.
pub(super) fn float32(x: &DispatchTensor) -> Option<&FlexTensor> {
    match &x.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(x)) if x.dtype() == DType::F32 => Some(x),
        _ => None,
    }
}

/// A new tensor, of which `fill` writes every value: there are others in it.
pub(crate) fn create(shape: impl Into<Shape>, fill: impl FnOnce(&mut [f32])) -> DispatchTensor {
    let [tensor] = create_all([shape.into()], |[values]| fill(values));
    tensor
}

/// Several of them.
pub(crate) fn create_all<const K: usize>(
    shapes: [Shape; K],
    fill: impl FnOnce([&mut [f32]; K]),
) -> [DispatchTensor; K] {
    let mut tensors = shapes.map(unwritten);
    fill(tensors.each_mut().map(|tensor| tensor.storage_mut::<f32>()));
    tensors.map(wrap)
}

/// A tensor of any values.
fn unwritten(shape: Shape) -> FlexTensor {
    let memory = memory::take(shape.num_elements());
    FlexTensor::new(memory, Layout::contiguous(shape), DType::F32)
}

/// Any tensor of the CPU backend for the rest of Burn.
pub(super) fn wrap(tensor: FlexTensor) -> DispatchTensor {
    <DispatchTensor as DispatchKindConversion<Flex>>::from_backend(BackendTensor::Float(tensor))
}
