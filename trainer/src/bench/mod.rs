//! What `tintype bench` measures: a device's ceilings, the operations of a network, and the network
//! whole.

mod ceilings;
mod clock;
mod networks;
mod operations;
mod report;

pub use ceilings::{Ceilings, ceilings};
pub use clock::{Clock, Timing};
pub use networks::{Subject, decode, forward, sample, scaling, train};
pub use operations::operations;
pub use report::{Baseline, Measurement, Report};

use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// Where and how everything is measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The device.
    pub device: Device,
    /// Type of weights and activations.
    pub precision: FloatDType,
    /// How times are taken.
    pub clock: Clock,
}

impl Bench {
    /// Values in about −1…1 in the precision at hand. Never zeros: products of zeros are faster.
    fn values<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        self.values_on(shape, &self.device).cast(self.precision)
    }

    /// The same in float32, on another handle of the device.
    fn values_on<const D: usize>(&self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count)
            .map(|i| {
                ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32
                    - 1.0
            })
            .collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Bytes of a value.
    fn size(&self) -> f64 {
        if self.precision == FloatDType::F32 { 4.0 } else { 2.0 }
    }
}
