//! Fused kernels for GPUs, written once in CubeCL for CUDA and for WGSL.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
mod bridge;
mod columns;
pub(crate) mod convolution;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod flash;
pub(crate) mod gated;
pub(crate) mod group_norm;
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
mod rows;
mod softmax;
mod tile;
mod view;

/// See [`rejected_kernels`](crate::rejected_kernels).
pub(crate) fn rejected() -> Vec<&'static str> {
    #[cfg(feature = "cuda")]
    return cuda::self_test::rejected();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}
