//! Softmax attention by the kernels that suit the device: its own in CUDA C++ where they have passed their
//! self-test, one without barriers on a software GPU, else the portable ones.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

#[cfg(feature = "cuda")]
use super::cuda;
use super::flash::{self, Dims};
use super::view::View;

/// `out = softmax(q kᵀ·scale) v`; `lse` `[B, heads, N]`, float32, gets `ln Σ exp(q kᵀ·scale)`.
pub(super) fn forward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    software: bool,
    qkv: [View<'_, R>; 3],
    out: View<'_, R>,
    lse: &CubeTensor<R>,
) {
    #[cfg(feature = "cuda")]
    if cuda::attention::takes(dims, &[qkv[0], qkv[1], qkv[2], out])
        && cuda::self_test::attention(qkv[0].tensor)
    {
        return cuda::attention::forward(dims, scale, qkv, out, lse);
    }
    if software {
        return flash::alone::forward(dims, scale, qkv, out, lse);
    }
    flash::forward::forward(dims, scale, qkv, out, lse);
}

/// The gradients of `q`, `k` and `v` from that of `out`.
pub(super) fn backward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    qkv: [View<'_, R>; 3],
    [out, gradient]: [View<'_, R>; 2],
    lse: &CubeTensor<R>,
    to: [View<'_, R>; 3],
) {
    let stats = flash::statistics(dims, out, gradient, lse);
    #[cfg(feature = "cuda")]
    if cuda::attention::takes(dims, &[qkv[0], qkv[1], qkv[2], gradient, to[0], to[1], to[2]])
        && cuda::self_test::attention(qkv[0].tensor)
    {
        return cuda::attention::backward(dims, scale, qkv, gradient, &stats, to);
    }
    flash::backward::backward(dims, scale, qkv, gradient, &stats, to);
}
