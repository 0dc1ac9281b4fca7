//! The place of a rank among the others, before it has joined them.

use std::time::Duration;

use tintype::burn::tensor::Device;

use super::{Comm, CommError};

/// The place of a rank.
#[derive(Debug)]
pub enum Seat {
    /// Its communicator is there.
    Ready(Comm),
    /// NCCL's communicator, which all ranks join at the same time, each in the thread of its device.
    #[cfg(feature = "cuda")]
    Nccl {
        /// By which the ranks find each other.
        id: [u8; 128],
        /// Rank, from 0.
        rank: usize,
        /// World size.
        world: usize,
    },
}

impl Seat {
    /// The rank.
    pub fn rank(&self) -> usize {
        match self {
            Self::Ready(comm) => comm.rank,
            #[cfg(feature = "cuda")]
            Self::Nccl { rank, .. } => *rank,
        }
    }

    /// The seats of the devices of this process, which are alone.
    ///
    /// # Errors
    ///
    /// If there are several of NVIDIA's GPUs and no NCCL.
    pub fn of_devices(devices: &[Device]) -> Result<Vec<Self>, CommError> {
        #[cfg(feature = "cuda")]
        if devices.len() > 1 && devices.iter().all(super::is_cuda) {
            let (id, world) = (super::nccl::Nccl::unique_id()?, devices.len());
            return Ok((0..world).map(|rank| Self::Nccl { id, rank, world }).collect());
        }
        Ok(Comm::threads(devices.len()).into_iter().map(Self::Ready).collect())
    }

    /// Joins the others, who are waited for no longer than `limit`.
    ///
    /// # Errors
    ///
    /// If they do not come, or NCCL cannot be used.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub fn take(self, device: &Device, limit: Duration) -> Result<Comm, CommError> {
        match self {
            Self::Ready(comm) => Ok(comm),
            #[cfg(feature = "cuda")]
            Self::Nccl { id, rank, world } => {
                let engine = super::nccl::Nccl::join(id, rank, world, device, limit)?;
                let engine = super::Engine::Nccl(std::sync::Arc::new(engine));
                Ok(Comm::new(rank, world, engine))
            }
        }
    }
}
