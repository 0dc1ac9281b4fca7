//! Rotation of queries or keys that lie by themselves; those of a packed projection are rotated in
//! [attention](super::qkv).

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::for_each_piece;
use super::prepare::Prepare;
use super::tensor::{Values, create};
use super::vectors::vectorized;
use crate::gradient::Operation;
use crate::preparation::Preparation;

/// Rows that a piece holds.
const ROWS: usize = 32;

/// Adjacent pairs of `[B, heads, N, d]`, rotated by cosines and sines `[N, d]`. These are tables: they have no
/// gradient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RotatePairs;

/// Copies the rows of `x` and turns each in place, told its token.
fn turned(
    x: &DispatchTensor,
    turn: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> Option<DispatchTensor> {
    let shape = x.shape();
    let [_, _, n, d] = shape.dims();
    let x = Values::read(x)?;
    let x = x.slice();
    Some(create(shape, |out| {
        for_each_piece(out, ROWS * d, |piece, out| {
            out.copy_from_slice(&x[piece * ROWS * d..][..out.len()]);
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..out.len() / d {
                        turn((piece * ROWS + i) % n, &mut out[i * d..][..d]);
                    }
                },
            );
        });
    }))
}

/// The tables, if they are those of `x`, which has pairs.
fn tables(inputs: &[DispatchTensor]) -> Option<[Values; 2]> {
    let [_, _, n, d] = inputs[0].shape().dims();
    let tables = [Values::read(&inputs[1])?, Values::read(&inputs[2])?];
    let fit = d.is_multiple_of(2) && tables.iter().all(|table| table.slice().len() == n * d);
    fit.then_some(tables)
}

impl Operation for RotatePairs {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let tables = tables(inputs)?;
        let rotary = Prepare::new(Preparation::Rotary, &tables);
        let out = turned(
            &inputs[0],
            #[inline(always)]
            |token, row| rotary.forward(token, 0, row),
        );
        Some((out?, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let tables = tables(inputs)?;
        let rotary = Prepare::new(Preparation::Rotary, &tables);
        let dx = turned(
            &gradient,
            #[inline(always)]
            |token, row| {
                rotary.backward(token, 0, &[], row);
            },
        );
        Some(vec![Some(dx?), None, None])
    }
}
