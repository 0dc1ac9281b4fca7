//! GELU with the tanh approximation.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::tensor::{Values, create};
use super::vectors::vectorized;
use super::{for_each_piece, math};
use crate::gradient::Operation;

/// Values that a piece holds.
const PIECE: usize = 1 << 14;

/// `gelu_tanh(x)`, elementwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GeluTanh;

impl Operation for GeluTanh {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let x = Values::read(&inputs[0])?;
        let x = x.slice();
        let out = create(inputs[0].shape(), |out| {
            for_each_piece(out, PIECE, |i, out| {
                let x = &x[i * PIECE..][..out.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        for i in 0..out.len() {
                            out[i] = math::gelu_tanh(x[i]);
                        }
                    },
                );
            });
        });
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        Some(vec![Some(backward(&inputs[0], &gradient)?)])
    }
}

/// The function in place.
pub(super) fn apply(values: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for i in 0..values.len() {
                values[i] = math::gelu_tanh(values[i]);
            }
        },
    );
}

/// The gradient of `x` from that of `gelu_tanh(x)`.
pub(super) fn backward(x: &DispatchTensor, gradient: &DispatchTensor) -> Option<DispatchTensor> {
    let (values, gradient) = (Values::read(x)?, Values::read(gradient)?);
    let (values, gradient) = (values.slice(), gradient.slice());
    Some(create(x.shape(), |out| {
        for_each_piece(out, PIECE, |i, out| {
            let count = out.len();
            let (x, g) = (&values[i * PIECE..][..count], &gradient[i * PIECE..][..count]);
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..count {
                        out[i] = g[i] * math::gelu_tanh_slope(x[i]);
                    }
                },
            );
        });
    }))
}
