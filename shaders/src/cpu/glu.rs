//! Gated linear units.

use burn::tensor::Tensor;
use pulp::Arch;

use super::tensor::{Values, make};
use super::{for_each_piece, math};

/// `silu(a)·b` of the halves of `[…, 2·d]`.
pub(crate) fn swiglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    glu(x, |a, b| math::silu(a) * b)
}

/// `a·gelu(b)` of the halves of `[…, 2·d]`.
pub(crate) fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    glu(x, |a, b| a * math::gelu(b))
}

fn glu<const D: usize>(
    x: &Tensor<D>,
    gate: impl Fn(f32, f32) -> f32 + Copy + Send + Sync,
) -> Option<Tensor<D>> {
    const ROWS: usize = 16;
    let mut shape = x.dims();
    shape[D - 1] /= 2;
    let d = shape[D - 1];
    let x = Values::of(x)?;
    let x = x.slice();
    Some(make(shape, |out| {
        for_each_piece(out, ROWS * d, |piece, out| {
            Arch::new().dispatch(|| {
                for (i, out) in out.chunks_exact_mut(d).enumerate() {
                    let row = 2 * (piece * ROWS + i) * d;
                    let (a, b) = (&x[row..row + d], &x[row + d..row + 2 * d]);
                    for i in 0..d {
                        out[i] = gate(a[i], b[i]);
                    }
                }
            });
        });
    }))
}
