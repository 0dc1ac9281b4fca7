//! Fused kernels for GPUs, written once in CubeCL for CUDA and for WGSL.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod averages;
mod bridge;
mod columns;
pub(crate) mod convolution;
// Its tests are the only user where there is no CUDA.
#[cfg(any(all(test, unix), feature = "cuda"))]
mod cuda;
#[cfg(feature = "wgpu")]
mod dots;
mod flash;
pub(crate) mod gated;
pub(crate) mod group_norm;
pub(crate) mod guard;
pub(crate) mod linear;
#[cfg(feature = "wgpu")]
mod matmul;
pub(crate) mod neighborhood;
pub(crate) mod norm;
pub(crate) mod overwrite;
#[cfg(feature = "wgpu")]
mod patches;
mod prepare;
pub(crate) mod qkv;
pub(crate) mod readback;
mod rows;
mod softmax;
pub(crate) mod squares;
mod tile;
mod view;

#[cfg(feature = "cuda")]
pub use cuda::memory::{CudaMemory, CudaMemoryError, cuda_memory, cuda_ordinal};

use burn::backend::DispatchTensor;

/// Whether a tensor is on a GPU that is a program on the processor, where units had better not wait for each other.
fn is_on_software(x: &DispatchTensor) -> bool {
    #[cfg(feature = "wgpu")]
    return crate::software::is_on_software_gpu(x);
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = x;
        false
    }
}

/// See [`rejected_kernels`](crate::rejected_kernels).
pub(crate) fn rejected() -> Vec<&'static str> {
    #[cfg(feature = "cuda")]
    return cuda::self_test::rejected();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}
