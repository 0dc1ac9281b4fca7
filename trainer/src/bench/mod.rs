//! Benchmarks of `tintype bench`: a device's roofline, the operations of networks, whole networks,
//! the optimizer, autoencoders, Inception's features, and samplers.

mod autoencoder;
mod clock;
mod convolutions;
mod features;
mod networks;
mod operations;
mod report;
mod roofline;
mod samplers;
mod step;

pub use autoencoder::{decode, encode};
pub use clock::{Clock, Timing};
pub use convolutions::convolutions;
pub use features::inception;
pub use networks::{Subject, forward, forward_f16, optimizer, sample, scaling, train};
pub use operations::operations;
pub use report::{Baseline, Measurement, Report};
pub use roofline::{Roofline, roofline};
pub use samplers::{Distances, emoji_distances, gaussian_distances};

use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// Device, dtype and timing of a benchmark.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The device.
    pub device: Device,
    /// Dtype of weights and activations.
    pub precision: FloatDType,
    /// Timer.
    pub clock: Clock,
    /// Single operations are measured if their names contain one of these, or if there is none.
    pub only: Vec<String>,
}

impl Bench {
    /// Values in about −1…1 in the benchmark's dtype. Not zeros: products of zeros are faster.
    fn values<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        self.values_on(shape, &self.device).cast(self.precision)
    }

    /// The same in float32, on a given device.
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

    /// The measurement of a single operation with its FLOPs, 0 if they are not counted, and the minimum
    /// memory traffic in bytes; `None` if it is not wanted.
    fn operation(
        &self,
        name: String,
        flops: f64,
        bytes: f64,
        call: impl FnMut(),
    ) -> Option<Measurement> {
        if !self.only.is_empty() && !self.only.iter().any(|part| name.contains(part.as_str())) {
            return None;
        }
        let timing = self.clock.time(&self.device, call);
        let found = Measurement::new(name, timing, 1.0, "calls/s").bytes(bytes);
        Some(if flops > 0.0 { found.operations(flops) } else { found })
    }

    /// Bytes per value.
    fn size(&self) -> f64 {
        if self.precision == FloatDType::F32 { 4.0 } else { 2.0 }
    }
}
