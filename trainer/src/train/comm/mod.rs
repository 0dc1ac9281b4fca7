//! All-reduce over data-parallel devices, one thread per device in one process.
//!
//! On CUDA through Burn's collectives (NCCL), elsewhere through host memory. Either way every rank
//! gets the same bits, so replicas never drift apart.

mod error;

use std::ops::AddAssign;
use std::sync::{Arc, Barrier, Mutex};

use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::weights::Flat;

pub use self::error::CommError;

/// The communicator of a rank.
#[derive(Clone, Debug)]
pub struct Comm {
    /// Rank, from 0.
    pub rank: usize,
    /// World size.
    pub world: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    barrier: Barrier,
    tensors: Slots<f32>,
    numbers: Slots<f64>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    devices: Vec<Device>,
}

/// What each rank adds, a list of vectors.
type Slots<T> = Mutex<Vec<Vec<Vec<T>>>>;

impl Comm {
    /// The communicators of a group, one per device.
    pub fn group(devices: &[Device]) -> Vec<Self> {
        let world = devices.len();
        let shared = Arc::new(Shared {
            barrier: Barrier::new(world),
            tensors: Mutex::new(vec![Vec::new(); world]),
            numbers: Mutex::new(vec![Vec::new(); world]),
            devices: devices.iter().map(|d| d.clone().inner()).collect(),
        });
        (0..world).map(|rank| Self { rank, world, shared: shared.clone() }).collect()
    }

    /// A group of one.
    pub fn alone() -> Self {
        Self::group(&[Device::flex()]).remove(0)
    }

    /// This rank's share of a global batch.
    pub fn share(&self, batch: usize) -> std::ops::Range<usize> {
        batch * self.rank / self.world..batch * (self.rank + 1) / self.world
    }

    /// All-reduces tensors by sum. All ranks call it with the same names and shapes.
    ///
    /// # Shapes
    ///
    /// * `tensors`: `[n]` a name
    /// * returns the same
    pub fn sum(&self, tensors: Flat) -> Flat {
        if self.world == 1 {
            return tensors;
        }
        #[cfg(feature = "cuda")]
        if tensors.values().next().is_some_and(|t| is_cuda(&t.device())) {
            use tintype::burn::tensor::distributed::{ReduceOperation, all_reduce};
            let reduced = tensors.into_iter().map(|(name, tensor)| {
                let devices = self.shared.devices.clone();
                (name, all_reduce(tensor, ReduceOperation::Sum, devices))
            });
            let reduced: Vec<_> = reduced.collect();
            return reduced.into_iter().map(|(name, tensor)| (name, tensor.resolve())).collect();
        }
        let device = tensors.values().next().map(Tensor::device);
        let values = tensors
            .values()
            .map(|t| t.to_data().convert::<f32>().iter::<f32>().collect())
            .collect();
        let sums = self.sum_on_host(&self.shared.tensors, values);
        let Some(device) = device else { return tensors };
        let names = tensors.into_keys();
        names
            .zip(sums)
            .map(|(name, v)| {
                let n = v.len();
                (name, Tensor::from_data(TensorData::new(v, [n]), &device))
            })
            .collect()
    }

    /// The mean of gradients over devices, as in PyTorch's DDP. All ranks call it with the same names and shapes.
    ///
    /// # Shapes
    ///
    /// * `gradients`: `[n]` a name
    /// * returns the same
    pub fn mean(&self, gradients: Flat) -> Flat {
        if self.world == 1 {
            return gradients;
        }
        let share = 1.0 / self.world as f64;
        self.sum(gradients).into_iter().map(|(name, sum)| (name, sum * share)).collect()
    }

    /// The means of losses over devices, read back at once.
    ///
    /// # Shapes
    ///
    /// * `losses`: `[1]` a name, and at least one
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn mean_losses(&self, losses: Vec<(&str, Tensor<1>)>) -> Vec<(String, f64)> {
        let (names, losses): (Vec<_>, Vec<_>) = losses.into_iter().unzip();
        let numbers = Tensor::cat(losses, 0).into_data().convert::<f32>();
        let numbers: Vec<f64> = numbers.iter::<f64>().collect();
        let sums = self.sum_numbers(&numbers).into_iter();
        let mean = |(name, sum): (&str, f64)| (name.to_string(), sum / self.world as f64);
        names.into_iter().zip(sums).map(mean).collect()
    }

    /// All-reduces numbers by sum, in float64.
    pub fn sum_numbers(&self, numbers: &[f64]) -> Vec<f64> {
        self.sum_on_host(&self.shared.numbers, vec![numbers.to_vec()]).remove(0)
    }

    /// Sums in rank order, so that all ranks get the same result.
    fn sum_on_host<T: Copy + AddAssign>(
        &self,
        slots: &Slots<T>,
        values: Vec<Vec<T>>,
    ) -> Vec<Vec<T>> {
        if self.world == 1 {
            return values;
        }
        let slots = || slots.lock().unwrap_or_else(|poison| poison.into_inner());
        slots()[self.rank] = values;
        self.shared.barrier.wait();
        let sums = {
            let slots = slots();
            let mut sums = slots[0].clone();
            for other in &slots[1..] {
                for (sum, part) in sums.iter_mut().flatten().zip(other.iter().flatten()) {
                    *sum += *part;
                }
            }
            sums
        };
        self.shared.barrier.wait(); // nobody writes its slot before all have read
        sums
    }
}

#[cfg(feature = "cuda")]
fn is_cuda(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), tintype::burn::backend::DispatchDevice::Cuda(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_summed_in_float64() {
        // Neither is a float32.
        let numbers = [16_777_217.0, 0.1];
        let ranks = Comm::group(&[Device::flex(), Device::flex()]);
        let sums: Vec<Vec<f64>> = std::thread::scope(|scope| {
            let ranks: Vec<_> =
                ranks.iter().map(|comm| scope.spawn(move || comm.sum_numbers(&numbers))).collect();
            ranks.into_iter().map(|rank| rank.join().expect("it ends")).collect()
        });
        assert_eq!(sums, vec![vec![33_554_434.0, 0.2]; 2]);
        assert_eq!(Comm::alone().sum_numbers(&numbers), numbers);
    }
}
