//! Ranks that are threads of one process.

use std::ops::AddAssign;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use super::{CommError, HostEngine};

/// A rank among threads.
#[derive(Debug)]
pub(super) struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    barrier: Barrier,
    bytes: Slots<u8>,
    values: Slots<f32>,
}

/// What each rank brings.
type Slots<T> = Mutex<Vec<Vec<T>>>;

impl Threads {
    /// All ranks of a group.
    pub fn group(world: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            barrier: Barrier::new(world),
            bytes: Mutex::new(vec![Vec::new(); world]),
            values: Mutex::new(vec![Vec::new(); world]),
        });
        (0..world).map(|rank| Self { rank, shared: shared.clone() }).collect()
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Gives the others what this rank has, and makes something of what all have.
    fn exchange<T, R>(&self, slots: &Slots<T>, own: Vec<T>, of: impl Fn(&[Vec<T>]) -> R) -> R {
        let slots = || slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots()[self.rank] = own;
        self.shared.barrier.wait();
        let result = of(&slots());
        self.shared.barrier.wait(); // nobody writes its slot before all have read
        result
    }
}

impl HostEngine for Threads {
    fn all_gather(&self, own: Vec<u8>, _patient: bool) -> Result<Vec<Vec<u8>>, CommError> {
        Ok(self.exchange(&self.shared.bytes, own, <[_]>::to_vec))
    }

    fn sum(&self, own: Vec<f32>) -> Result<Vec<f32>, CommError> {
        Ok(self.exchange(&self.shared.values, own, in_order))
    }

    fn broadcast(&self, own: Vec<f32>) -> Result<Vec<f32>, CommError> {
        Ok(self.exchange(&self.shared.values, own, |all| all[0].clone()))
    }
}

/// The sum of vectors, from the first to the last.
pub(super) fn in_order<T: Copy + AddAssign>(all: &[Vec<T>]) -> Vec<T> {
    let mut sum = all[0].clone();
    for other in &all[1..] {
        sum.iter_mut().zip(other).for_each(|(sum, &value)| *sum += value);
    }
    sum
}
