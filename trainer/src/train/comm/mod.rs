//! What the ranks of a data-parallel run tell each other: sums of gradients, losses, first weights.
//!
//! A rank is a thread of this process or a process of its own. Gradients are summed by NCCL on CUDA, elsewhere through
//! host memory: between threads directly, between processes by MPI. On the host sums run in rank order. Every rank gets
//! the same bits, so replicas never drift apart.

mod error;
mod group;
#[cfg(any(feature = "cuda", feature = "mpi", test))]
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(any(feature = "cuda", test))]
mod nccl;
mod numbers;
mod reduction;
mod seat;
mod threads;
#[cfg(any(feature = "cuda", feature = "mpi", test))]
mod watch;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
#[cfg(feature = "cuda")]
use tintype::burn::tensor::Device;
use tintype::burn::tensor::{Tensor, TensorData};
use tintype::weights::Flat;

pub use self::error::CommError;
pub use self::group::Group;
pub use self::numbers::{Gathered, Numbers};
pub use self::reduction::{Pieces, Reduction};
pub use self::seat::Seat;
use self::threads::Threads;
use super::record::first_difference;

/// The communicator of a rank.
#[derive(Clone, Debug)]
pub struct Comm {
    /// Rank, from 0.
    pub rank: usize,
    /// World size.
    pub world: usize,
    engine: Engine,
    /// Whether this rank was asked to stop, which all hear with the next [`gather`](Self::gather).
    asked: Arc<AtomicBool>,
    /// Checksums of names that all ranks have exchanged.
    checked: Arc<Mutex<BTreeSet<u32>>>,
}

/// What carries it to the other ranks.
#[derive(Clone, Debug)]
enum Engine {
    /// There are none.
    Alone,
    /// Threads of this process, or processes by MPI.
    Host(Arc<dyn HostEngine>),
    /// GPUs.
    #[cfg(feature = "cuda")]
    Nccl(Arc<nccl::Nccl>),
}

/// A sum that has begun.
enum Pending {
    /// It is done.
    Summed(Flat),
    #[cfg(feature = "cuda")]
    Nccl(nccl::Pending),
}

/// A communicator through host memory. All ranks call the same operations in the same order.
trait HostEngine: Debug + Send + Sync {
    /// The bytes of every rank, in rank order.
    ///
    /// * `patient`: the others may take as long as they like, unless they are lost
    fn all_gather(&self, own: Vec<u8>, patient: bool) -> Result<Vec<Vec<u8>>, CommError>;

    /// The sum of all ranks' values, added in rank order; all have as many.
    fn sum(&self, own: Vec<f32>) -> Result<Vec<f32>, CommError>;

    /// Rank 0's values; all have as many.
    fn broadcast(&self, own: Vec<f32>) -> Result<Vec<f32>, CommError>;
}

/// Values of a bucket of gradients: 128 MiB of float32.
const BUCKET: usize = 32 << 20;

impl Comm {
    fn new(rank: usize, world: usize, engine: Engine) -> Self {
        Self { rank, world, engine, asked: Arc::default(), checked: Arc::default() }
    }

    /// The communicators of so many threads of this process.
    pub fn threads(world: usize) -> Vec<Self> {
        let of = |engine: Threads| Self::new(engine.rank(), world, Engine::Host(Arc::new(engine)));
        match world {
            1 => vec![Self::alone()],
            _ => Threads::group(world).into_iter().map(of).collect(),
        }
    }

    /// A group of one.
    pub fn alone() -> Self {
        Self::new(0, 1, Engine::Alone)
    }

    /// This rank's share of a global batch.
    pub fn share(&self, batch: usize) -> std::ops::Range<usize> {
        batch * self.rank / self.world..batch * (self.rank + 1) / self.world
    }

    /// Whether what is exchanged stays on the device, so that the host can run ahead of it.
    pub fn stays_on_device(&self) -> bool {
        !matches!(self.engine, Engine::Host(_))
    }

    /// Lets the others know that this rank was asked to stop: all hear it with the numbers of the next step.
    pub fn ask_to_stop(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// All-reduces tensors by sum. All ranks call it with the same names and shapes.
    ///
    /// # Shapes
    ///
    /// * `tensors`: `[n]` a name
    /// * returns the same
    ///
    /// # Errors
    ///
    /// If names or lengths differ between ranks, or a rank cannot be reached.
    pub fn sum(&self, tensors: Flat) -> Result<Flat, CommError> {
        match &self.engine {
            Engine::Alone => Ok(tensors),
            Engine::Host(engine) => {
                self.check_names(&tensors)?;
                self.on_host(tensors, |values| engine.sum(values))
            }
            #[cfg(feature = "cuda")]
            Engine::Nccl(engine) => {
                self.check_names(&tensors)?;
                engine.sum(tensors)
            }
        }
    }

    /// [`sum`](Self::sum) of a bucket that goes on beside the device's work until [`finish_sum`](Self::finish_sum).
    fn begin_sum(&self, bucket: Flat) -> Result<Pending, CommError> {
        #[cfg(feature = "cuda")]
        if let Engine::Nccl(engine) = &self.engine {
            self.check_names(&bucket)?;
            return engine.begin(bucket).map(Pending::Nccl);
        }
        self.sum(bucket).map(Pending::Summed)
    }

    fn finish_sum(&self, pending: Pending) -> Result<Flat, CommError> {
        match (pending, &self.engine) {
            (Pending::Summed(sums), _) => Ok(sums),
            #[cfg(feature = "cuda")]
            (Pending::Nccl(pending), Engine::Nccl(engine)) => engine.finish(pending),
            #[cfg(feature = "cuda")]
            (Pending::Nccl(_), _) => unreachable!("NCCL alone begins such sums"),
        }
    }

    /// The mean of gradients over ranks, as in PyTorch's DDP. All ranks call it with the same names and shapes.
    ///
    /// # Shapes
    ///
    /// * `gradients`: `[n]` a name
    /// * returns the same
    ///
    /// # Errors
    ///
    /// As [`sum`](Self::sum).
    pub fn mean(&self, gradients: Flat) -> Result<Flat, CommError> {
        let share = 1.0 / self.world as f64;
        let sums = self.sum(gradients)?;
        Ok(match self.world {
            1 => sums,
            _ => sums.into_iter().map(|(name, sum)| (name, sum * share)).collect(),
        })
    }

    /// Rank 0's tensors on all ranks, which have the same names and shapes.
    ///
    /// # Shapes
    ///
    /// * `tensors`: `[n]` a name
    /// * returns the same
    ///
    /// # Errors
    ///
    /// As [`sum`](Self::sum).
    pub fn broadcast(&self, tensors: Flat) -> Result<Flat, CommError> {
        match &self.engine {
            Engine::Alone => Ok(tensors),
            Engine::Host(engine) => {
                self.check_names(&tensors)?;
                self.on_host(tensors, |values| engine.broadcast(values))
            }
            #[cfg(feature = "cuda")]
            Engine::Nccl(engine) => {
                self.check_names(&tensors)?;
                engine.broadcast(tensors)
            }
        }
    }

    /// Numbers of all ranks, such as losses, which stay on the device until they are read. They carry the wish of a rank
    /// to stop.
    ///
    /// # Shapes
    ///
    /// * `own`: `[k]`, float32
    ///
    /// # Errors
    ///
    /// If a rank cannot be reached.
    pub fn gather(&self, own: Tensor<1>) -> Result<Gathered, CommError> {
        let device = own.device();
        let asked = || f32::from(u8::from(self.asked.load(Ordering::Relaxed)));
        let each = own.dims()[0];
        let values = match &self.engine {
            Engine::Alone => return Ok(Gathered::alone(own)),
            Engine::Host(engine) => {
                let own = own.into_data().convert::<f32>();
                let own: Vec<u8> =
                    own.iter::<f32>().chain([asked()]).flat_map(f32::to_le_bytes).collect();
                let all = engine.all_gather(own, false)?;
                let values: Vec<f32> = all.iter().flat_map(|rank| floats(rank)).collect();
                let n = values.len();
                Tensor::from_data(TensorData::new(values, [n]), &device) // [world·(k + 1)]
            }
            #[cfg(feature = "cuda")]
            Engine::Nccl(engine) => {
                let asked = Tensor::from_floats([asked()], &device);
                engine.gather(Tensor::cat(vec![own, asked], 0))?
            }
        };
        Ok(Gathered::of(values, self.world, each))
    }

    /// Means of losses over ranks, read back at once.
    ///
    /// # Shapes
    ///
    /// * `losses`: `[1]` a name, and at least one
    ///
    /// # Errors
    ///
    /// As [`gather`](Self::gather).
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn mean_losses(
        &self,
        losses: Vec<(&str, Tensor<1>)>,
    ) -> Result<(Vec<(String, f64)>, bool), CommError> {
        let (names, losses): (Vec<_>, Vec<_>) = losses.into_iter().unzip();
        let Numbers { sums, stop } = self.gather(Tensor::cat(losses, 0))?.read();
        let mean = |(name, sum): (&str, f64)| (name.to_string(), sum / self.world as f64);
        Ok((names.into_iter().zip(sums).map(mean).collect(), stop))
    }

    /// Waits for all ranks, however long it takes: rank 0 may come from an evaluation.
    ///
    /// # Errors
    ///
    /// If a rank cannot be reached.
    pub fn barrier(&self) -> Result<(), CommError> {
        self.gather_bytes(Vec::new(), true).map(drop)
    }

    /// A text of rank 0, on all ranks.
    ///
    /// # Errors
    ///
    /// If a rank cannot be reached.
    pub fn text_of_first(&self, own: String) -> Result<String, CommError> {
        let own = if self.rank == 0 { own } else { String::new() };
        let first = self.all_gather(own.into_bytes())?.swap_remove(0);
        Ok(String::from_utf8_lossy(&first).into_owned())
    }

    /// The text of every rank, in rank order.
    ///
    /// # Errors
    ///
    /// If a rank cannot be reached.
    pub fn texts(&self, own: String) -> Result<Vec<String>, CommError> {
        let all = self.all_gather(own.into_bytes())?;
        Ok(all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
    }

    /// Checks that all ranks have the same values.
    ///
    /// # Errors
    ///
    /// [`CommError::Differs`] with the first field and the first rank that differ from rank 0's, on all ranks.
    pub fn same(&self, own: &Value) -> Result<(), CommError> {
        let all = self.all_gather(own.to_string().into_bytes())?;
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
        let first = parsed(&all[0]);
        for (rank, other) in all.iter().enumerate().skip(1) {
            if let Some([field, ours, theirs]) = first_difference(&first, &parsed(other)) {
                return Err(CommError::Differs { field, rank, theirs, ours });
            }
        }
        Ok(())
    }

    /// The bytes of every rank, in rank order.
    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, CommError> {
        self.gather_bytes(own, false)
    }

    fn gather_bytes(&self, own: Vec<u8>, patient: bool) -> Result<Vec<Vec<u8>>, CommError> {
        match &self.engine {
            Engine::Alone => Ok(vec![own]),
            Engine::Host(engine) => engine.all_gather(own, patient),
            #[cfg(feature = "cuda")]
            Engine::Nccl(engine) => engine.all_gather(own, patient),
        }
    }

    /// Checks that all ranks are about to exchange the same tensors, whose values would be mixed otherwise.
    fn check_names(&self, tensors: &Flat) -> Result<(), CommError> {
        let list: Value =
            tensors.iter().map(|(name, x)| (name.clone(), Value::from(x.dims()[0]))).collect();
        let own = crc32c::crc32c(list.to_string().as_bytes());
        // On GPUs the host would have to wait for the device, so each list of names is compared once.
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stays_on_device() && checked.contains(&own) {
            return Ok(());
        }
        checked.insert(own);
        let all = self.all_gather(own.to_le_bytes().to_vec())?;
        match all.iter().all(|other| *other == all[0]) {
            true => Ok(()),
            false => self.same(&list),
        }
    }

    /// Takes tensors through an operation on the host, bucket by bucket.
    fn on_host(
        &self,
        tensors: Flat,
        operation: impl Fn(Vec<f32>) -> Result<Vec<f32>, CommError>,
    ) -> Result<Flat, CommError> {
        let mut after = Flat::new();
        for bucket in buckets(tensors) {
            let device = bucket[0].1.device();
            let mut values = Vec::with_capacity(bucket.iter().map(|(_, x)| x.dims()[0]).sum());
            let mut lengths = Vec::with_capacity(bucket.len());
            for (name, tensor) in bucket {
                lengths.push((name, tensor.dims()[0]));
                values.extend(tensor.into_data().convert::<f32>().iter::<f32>());
            }
            let mut rest = operation(values)?.into_iter();
            for (name, n) in lengths {
                let values: Vec<f32> = rest.by_ref().take(n).collect();
                after.insert(name, Tensor::from_data(TensorData::new(values, [n]), &device));
            }
        }
        Ok(after)
    }
}

/// Tensors in buckets of about [`BUCKET`] values, in the order of their names.
fn buckets(tensors: Flat) -> Vec<Vec<(String, Tensor<1>)>> {
    let mut buckets: Vec<Vec<(String, Tensor<1>)>> = Vec::new();
    let mut room = 0;
    for (name, tensor) in tensors {
        let n = tensor.dims()[0];
        match buckets.last_mut() {
            Some(last) if n <= room => {
                last.push((name, tensor));
                room -= n;
            }
            _ => {
                buckets.push(vec![(name, tensor)]);
                room = BUCKET.saturating_sub(n);
            }
        }
    }
    buckets
}

/// Whether a device is one of CUDA's; one that tracks gradients is the same.
#[cfg(feature = "cuda")]
fn is_cuda(device: &Device) -> bool {
    tintype::device::is_cuda(&device.clone().inner())
}

/// Float32 numbers from their bytes.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests;
