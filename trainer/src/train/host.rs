//! Values on their way from the host to a device.

use tintype::burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Row-major float32 values with their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Values<const D: usize> {
    /// The values.
    pub values: Vec<f32>,
    /// Their shape.
    pub shape: [usize; D],
}

impl<const D: usize> Values<D> {
    /// Values of a shape.
    pub fn new(values: Vec<f32>, shape: [usize; D]) -> Self {
        Self { values, shape }
    }

    /// On a device, in float32.
    ///
    /// # Panics
    ///
    /// If the number of values is not the product of the shape.
    pub fn tensor(self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.values, self.shape), (device, DType::F32))
    }
}

/// One number a sample, `[B]`.
pub fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Values::new(values.to_vec(), [values.len()]).tensor(device)
}

/// One class a sample, `[B]`.
pub fn classes(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&v| v as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}
