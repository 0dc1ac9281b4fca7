//! Gated linear units.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::tensor::{Values, create};
use super::vectors::vectorized;
use super::{for_each_piece, math};
use crate::gradient::Operation;

/// Rows that a piece holds.
const ROWS: usize = 16;

/// Of the halves `[a, b]` of `[…, 2·d]`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Glu {
    /// `silu(a)·b`
    Swiglu,
    /// `a·gelu(b)`
    Geglu,
}

impl Operation for Glu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let out = match self {
            Self::Swiglu => forward(
                &inputs[0],
                #[inline(always)]
                |a, b| math::silu(a) * b,
            ),
            Self::Geglu => forward(
                &inputs[0],
                #[inline(always)]
                |a, b| a * math::gelu(b),
            ),
        };
        Some((out?, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let dx = match self {
            Self::Swiglu => backward(
                &inputs[0],
                &gradient,
                #[inline(always)]
                |a, b| {
                    let (value, slope) = math::silu_with_slope(a);
                    (b * slope, value)
                },
            ),
            Self::Geglu => backward(
                &inputs[0],
                &gradient,
                #[inline(always)]
                |a, b| {
                    let (value, slope) = math::gelu_with_slope(b);
                    (value, a * slope)
                },
            ),
        };
        Some(vec![Some(dx?)])
    }
}

fn forward(
    x: &DispatchTensor,
    gate: impl Fn(f32, f32) -> f32 + Copy + Send + Sync,
) -> Option<DispatchTensor> {
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    if !shape[last].is_multiple_of(2) || shape[last] == 0 {
        return None;
    }
    shape[last] /= 2;
    let d = shape[last];
    let x = Values::read(x)?;
    let x = x.slice();
    Some(create(shape, |out| {
        for_each_piece(out, ROWS * d, |piece, out| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, out) in out.chunks_exact_mut(d).enumerate() {
                        let row = 2 * (piece * ROWS + i) * d;
                        let (a, b) = (&x[row..][..d], &x[row + d..][..d]);
                        for i in 0..d {
                            out[i] = gate(a[i], b[i]);
                        }
                    }
                },
            );
        });
    }))
}

/// `slopes` are the derivatives by `a` and `b`.
fn backward(
    x: &DispatchTensor,
    gradient: &DispatchTensor,
    slopes: impl Fn(f32, f32) -> (f32, f32) + Copy + Send + Sync,
) -> Option<DispatchTensor> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1] / 2;
    let (x, gradient) = (Values::read(x)?, Values::read(gradient)?);
    let (x, gradient) = (x.slice(), gradient.slice());
    Some(create(shape, |dx| {
        for_each_piece(dx, ROWS * 2 * d, |piece, dx| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, dx) in dx.chunks_exact_mut(2 * d).enumerate() {
                        let row = piece * ROWS + i;
                        let (a, b) = (&x[2 * row * d..][..d], &x[(2 * row + 1) * d..][..d]);
                        let g = &gradient[row * d..][..d];
                        let (da, db) = dx.split_at_mut(d);
                        let db = &mut db[..d];
                        for i in 0..d {
                            let (by_a, by_b) = slopes(a[i], b[i]);
                            da[i] = g[i] * by_a;
                            db[i] = g[i] * by_b;
                        }
                    }
                },
            );
        });
    }))
}
