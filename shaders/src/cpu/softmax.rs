//! Softmax over the last axis, on all cores.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::attention::{softmax, softmax_backward};
use super::for_each_piece;
use super::tensor::{Values, create};
use super::vectors::vectorized;
use crate::gradient::Operation;

/// Values that a piece holds, if no row is longer.
const PIECE: usize = 1 << 13;

/// Of `[…, d]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax;

/// Length of a row, and values of a piece of whole rows; `None` if there are no values.
fn sizes(x: &DispatchTensor) -> Option<(usize, usize)> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    (shape.num_elements() > 0).then(|| (d, (PIECE / d).max(1) * d))
}

impl Operation for Softmax {
    /// Keeps the result, by which the gradient is computed.
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let out = self.result(inputs)?;
        Some((out.clone(), vec![out]))
    }

    fn result(&self, inputs: &[DispatchTensor]) -> Option<DispatchTensor> {
        let (d, size) = sizes(&inputs[0])?;
        let x = Values::read(&inputs[0])?;
        let x = x.slice();
        Some(create(inputs[0].shape(), |out| {
            for_each_piece(out, size, |piece, out| {
                out.copy_from_slice(&x[piece * size..][..out.len()]);
                vectorized(
                    #[inline(always)]
                    || {
                        for row in out.chunks_exact_mut(d) {
                            softmax(row);
                        }
                    },
                );
            });
        }))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let (weights, g) = (Values::read(&kept[0])?, Values::read(&gradient)?);
        let (weights, g) = (weights.slice(), g.slice());
        let (d, size) = sizes(&inputs[0])?;
        let dx = create(inputs[0].shape(), |dx| {
            for_each_piece(dx, size, |piece, dx| {
                let weights = &weights[piece * size..][..dx.len()];
                dx.copy_from_slice(&g[piece * size..][..dx.len()]);
                vectorized(
                    #[inline(always)]
                    || {
                        for row in 0..weights.len() / d {
                            let at = row * d..(row + 1) * d;
                            softmax_backward(&weights[at.clone()], &mut dx[at]);
                        }
                    },
                );
            });
        });
        Some(vec![Some(dx)])
    }
}
