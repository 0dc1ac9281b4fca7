//! Kernels in CUDA C++, for what CubeCL has no words: Hopper's matrix products of a warpgroup, fed
//! by its copy engine, and attention on tensor cores with its sums in registers.
//!
//! The texts beside this file are compiled by the driver's compiler where they are used, with their
//! sizes as definitions. `emulation/` runs them on the processor, which is how they are tested where
//! there is no GPU; on one, [`self_test`] holds them to results that are known before they are used.

pub(super) mod attention;
#[cfg(feature = "cuda")]
pub(super) mod convolution;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
pub(super) mod linear;
#[cfg(feature = "cuda")]
pub(super) mod memory;
pub(super) mod product;
#[cfg(feature = "cuda")]
pub(super) mod self_test;
mod source;
// They take a C++ compiler, and compute the same everywhere.
#[cfg(all(test, unix))]
mod tests;

#[cfg(feature = "cuda")]
pub(super) use launch::{compute_capability, on_cuda};
