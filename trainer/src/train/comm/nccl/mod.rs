//! Collective operations between ranks with a CUDA device each, by NCCL: sums of gradients while the backward
//! pass goes on, and what else ranks exchange.
//!
//! Burn gives no access to its streams, so NCCL's work is ordered against Burn's by events that the host waits for: a thread
//! of its own waits until the inputs are computed, then launches, and whoever wants the outputs waits until the
//! device has written them. The memory of both is kept until then.

mod bytes;
mod calls;
#[cfg(all(test, feature = "cuda"))]
mod gpu;
#[cfg(feature = "cuda")]
mod real;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::{Debug, Formatter};
use std::sync::mpsc::Receiver;
#[cfg(feature = "cuda")]
use std::time::Duration;

use tintype::burn::tensor::{DType, Device, Tensor, TensorData};
use tintype::weights::Flat;

use self::calls::CUDA;
use self::worker::{Kind, Outcome, Part, Ready, Request, Worker, wait};
use super::CommError;

/// Bytes of the tensors that one launch sums: large enough for the full speed of any network, small enough that the
/// first is done long before the last is computed, and that the outputs of two are little memory.
#[cfg(feature = "cuda")]
const BUCKET: usize = 128 << 20;

/// Buckets that are handed over and not yet finished, which is what memory of outputs is needed for.
const IN_FLIGHT: usize = 2;

/// One rank's communicator.
pub(crate) struct Nccl {
    worker: Worker,
    world: usize,
    /// Where all tensors are.
    device: Device,
    /// Bytes of a bucket.
    bucket: usize,
    memory: Memory,
}

/// Finds the memory of tensors that have values; it may be written where they come from `Tensor::empty`.
type Memory = Box<dyn Fn(&[Tensor<1>]) -> Result<Placed, CommError> + Send + Sync>;

/// The memory of tensors.
struct Placed {
    /// Where each begins.
    addresses: Vec<u64>,
    keep: Box<dyn Any + Send>,
    ready: Ready,
}

/// A collective operation that has begun, for [`Nccl::finish`].
pub(crate) struct Pending {
    names: Vec<String>,
    operation: Operation,
}

struct Operation {
    /// Of each input, to be read when it has ended.
    outputs: Vec<Tensor<1>>,
    /// `None` where there is nothing to exchange.
    outcome: Option<Receiver<Outcome>>,
}

impl Nccl {
    /// Looks for the libraries and sets what NCCL reads from the environment, before its first call.
    ///
    /// # Errors
    ///
    /// If there is no driver or no NCCL.
    #[cfg(feature = "cuda")]
    pub(crate) fn prepare() -> Result<(), CommError> {
        real::prepare()
    }

    /// The id by which the ranks of one communicator find each other; made on rank 0, whose process must live until
    /// all have joined.
    ///
    /// # Errors
    ///
    /// If there is no driver or no NCCL, or it finds no network.
    #[cfg(feature = "cuda")]
    pub(crate) fn unique_id() -> Result<[u8; 128], CommError> {
        real::unique_id()
    }

    /// Joins the other ranks; waits for them.
    ///
    /// * `device`: a CUDA device, where all tensors will be
    /// * `limit`: how long the other ranks are waited for, here and in every operation
    ///
    /// # Errors
    ///
    /// If there is no driver, no NCCL or no such device, NCCL cannot join them, or they do not come in time.
    #[cfg(feature = "cuda")]
    pub(crate) fn join(
        id: [u8; 128],
        rank: usize,
        world: usize,
        device: &Device,
        limit: Duration,
    ) -> Result<Self, CommError> {
        let device = device.clone().inner();
        let ordinal = real::ordinal(&device)?;
        let worker = Worker::start(move || real::join(id, rank, world, ordinal), limit)?;
        Ok(Self { worker, world, device, bucket: BUCKET, memory: Box::new(real::place) })
    }

    /// Sums tensors over ranks, all of which call it with the same names and lengths.
    ///
    /// # Shapes
    ///
    /// * `tensors`: `[n]` a name, float32
    /// * returns the same
    ///
    /// # Errors
    ///
    /// If a tensor is of another type or elsewhere, the device or NCCL fails, or the other ranks do not come in time.
    pub(crate) fn sum(&self, tensors: Flat) -> Result<Flat, CommError> {
        self.in_buckets(Kind::Sum, tensors)
    }

    /// Begins the sum of a bucket, and returns at once: it is made as soon as the tensors are computed, beside what
    /// the device is given to do after them.
    ///
    /// # Shapes
    ///
    /// * `bucket`: as in [`sum`](Self::sum)
    ///
    /// # Errors
    ///
    /// If a tensor is of another type or elsewhere, or the device or an earlier operation has failed.
    pub(crate) fn begin(&self, bucket: Flat) -> Result<Pending, CommError> {
        self.start_named(Kind::Sum, bucket)
    }

    /// Waits for the sum of a bucket.
    ///
    /// # Shapes
    ///
    /// * returns those of the bucket
    ///
    /// # Errors
    ///
    /// If the device or NCCL fails, or the other ranks do not come in time.
    pub(crate) fn finish(&self, pending: Pending) -> Result<Flat, CommError> {
        let Pending { names, operation } = pending;
        Ok(names.into_iter().zip(operation.end()?).collect())
    }

    /// The values of all ranks, in rank order; they stay on the device.
    ///
    /// # Shapes
    ///
    /// * `own`: `[k]`, float32, the same `k` on all ranks
    /// * returns `[world·k]`
    ///
    /// # Errors
    ///
    /// As [`sum`](Self::sum).
    pub(crate) fn gather(&self, own: Tensor<1>) -> Result<Tensor<1>, CommError> {
        Ok(self.start(Kind::Gather, vec![own], false)?.end()?.remove(0))
    }

    /// Rank 0's tensors; all ranks call it with the same names and lengths.
    ///
    /// # Shapes
    ///
    /// * `tensors`: `[n]` a name, float32
    /// * returns the same
    ///
    /// # Errors
    ///
    /// As [`sum`](Self::sum).
    pub(crate) fn broadcast(&self, tensors: Flat) -> Result<Flat, CommError> {
        self.in_buckets(Kind::Broadcast, tensors)
    }

    /// The bytes of every rank, in rank order; lengths may differ. Few bytes: each takes four on the way.
    ///
    /// * `patient`: the others may take as long as they like
    ///
    /// # Errors
    ///
    /// As [`sum`](Self::sum).
    pub(crate) fn all_gather(
        &self,
        own: Vec<u8>,
        patient: bool,
    ) -> Result<Vec<Vec<u8>>, CommError> {
        bytes::exchange(own, self.world, |values| {
            let count = values.len();
            let options = (&self.device, DType::F32);
            let own = Tensor::from_data(TensorData::new(values, [count]), options);
            let all = self
                .start(Kind::Gather, vec![own], patient)?
                .end()?
                .remove(0)
                .try_into_data()
                .map_err(|error| CommError::Engine { engine: CUDA, problem: error.to_string() })?;
            Ok(all.iter::<f32>().collect())
        })
    }

    fn in_buckets(&self, kind: Kind, tensors: Flat) -> Result<Flat, CommError> {
        let mut results = Flat::new();
        let mut pending = VecDeque::new();
        for bucket in buckets(tensors, self.bucket) {
            if pending.len() == IN_FLIGHT
                && let Some(first) = pending.pop_front()
            {
                results.extend(self.finish(first)?);
            }
            pending.push_back(self.start_named(kind, bucket)?);
        }
        for last in pending {
            results.extend(self.finish(last)?);
        }
        Ok(results)
    }

    fn start_named(&self, kind: Kind, tensors: Flat) -> Result<Pending, CommError> {
        let (names, tensors) = tensors.into_iter().unzip();
        Ok(Pending { names, operation: self.start(kind, tensors, false)? })
    }

    /// Hands tensors over to the thread that calls NCCL.
    fn start(
        &self,
        kind: Kind,
        inputs: Vec<Tensor<1>>,
        patient: bool,
    ) -> Result<Operation, CommError> {
        if let Some(error) = self.worker.failure() {
            return Err(error);
        }
        let copies = if kind == Kind::Gather { self.world } else { 1 };
        // Elsewhere than the inputs: their memory may be that of other tensors, too.
        let output = |input: &Tensor<1>| match input.dims()[0] {
            0 => input.clone(),
            count => Tensor::empty([copies * count], (&self.device, DType::F32)),
        };
        let outputs: Vec<Tensor<1>> = inputs.iter().map(output).collect();
        let counts: Vec<usize> =
            inputs.iter().map(|input| input.dims()[0]).filter(|&count| count > 0).collect();
        if counts.is_empty() {
            return Ok(Operation { outputs, outcome: None });
        }
        let full = |tensor: &&Tensor<1>| tensor.dims()[0] > 0;
        let tensors: Vec<_> = inputs.iter().chain(&outputs).filter(full).cloned().collect();
        let Placed { addresses, keep, ready } = (self.memory)(&tensors)?;
        let (from, to) = addresses.split_at(counts.len());
        let parts = from.iter().zip(to).zip(&counts);
        let parts = parts.map(|((&input, &output), &count)| Part { input, output, count });
        let request = Request { kind, parts: parts.collect(), ready, keep, patient };
        Ok(Operation { outputs, outcome: Some(self.worker.ask(request)) })
    }
}

impl Debug for Nccl {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Nccl")
            .field("world", &self.world)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Operation {
    /// Waits for the end.
    fn end(self) -> Result<Vec<Tensor<1>>, CommError> {
        if let Some(outcome) = &self.outcome {
            wait(outcome)?;
        }
        Ok(self.outputs)
    }
}

/// Tensors in the order of their names, at most `most` bytes together, but for a single one that has more.
fn buckets(tensors: Flat, most: usize) -> Vec<Flat> {
    let mut buckets = Vec::new();
    let mut bucket = Flat::new();
    let mut filled = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.dims()[0] * size_of::<f32>();
        if !bucket.is_empty() && filled + bytes > most {
            buckets.push(std::mem::take(&mut bucket));
            filled = 0;
        }
        filled += bytes;
        bucket.insert(name, tensor);
    }
    if !bucket.is_empty() {
        buckets.push(bucket);
    }
    buckets
}
