//! Attention without copies of q, k and v, softmax in vector registers.
//!
//! Nothing is kept for gradients: the probabilities of some queries at a time are computed again.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::product::{Matrix, product};
use super::tensor::{Values, create, create_all};
use super::tile::Tile;
use super::vectors::vectorized;
use super::{for_each, for_each_pieces, math};
use crate::gradient::Operation;

/// Most queries that a piece of work holds: enough to amortise the packing of keys and values, and no more rows of
/// scores than stay in cache.
pub(super) const QUERIES: usize = 128;

/// `softmax(q kᵀ·scale) v` of `[B, heads, N, d]`, `[B, heads, M, d]` and `[B, heads, M, e]`, without
/// mask; the result is `[B, heads, N, e]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub scale: f64,
}

impl Operation for Attention {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [b, heads, n, d] = inputs[0].shape().dims();
        let [_, _, m, e] = inputs[2].shape().dims();
        let shapes: [[usize; 4]; 2] = [1, 2].map(|i| inputs[i].shape().dims());
        if shapes != [[b, heads, m, d], [b, heads, m, e]] || n * m * e == 0 {
            return None;
        }
        let [q, k, v] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (q, k, v) = (q?, k?, v?);
        let (q, k, v) = (q.slice(), k.slice(), v.slice());
        let out = create([b, heads, n, e], |out| {
            let matrices = out.chunks_mut(n * e).enumerate();
            let queries = matrices.flat_map(|(matrix, out)| {
                let tiles = Tile::of(out, e).cut([n.div_ceil(QUERIES), 1], [1, 1]);
                tiles.into_iter().map(move |([first, _], out)| (matrix, first, out))
            });
            for_each(queries.collect(), |_, (matrix, first, out)| {
                let views = [
                    Matrix::new(&q[(matrix * n + first) * d..], d),
                    Matrix::new(&k[matrix * m * d..], d),
                    Matrix::new(&v[matrix * m * e..], e),
                ];
                attend(views, m, d, self.scale as f32, out);
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
        let [_, _, n, d] = inputs[0].shape().dims();
        let [_, _, m, e] = inputs[2].shape().dims();
        let [q, k, v] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (q, k, v, g) = (q?, k?, v?, Values::read(&gradient)?);
        let (q, k, v, g) = (q.slice(), k.slice(), v.slice(), g.slice());
        let shapes = [0, 1, 2].map(|i| inputs[i].shape());
        let found = create_all(shapes, |gradients| {
            for_each_pieces(gradients, [n * d, m * d, m * e], |i, gradients| {
                let views = [
                    Matrix::new(&q[i * n * d..], d),
                    Matrix::new(&k[i * m * d..], d),
                    Matrix::new(&v[i * m * e..], e),
                    Matrix::new(&g[i * n * e..], e),
                ];
                attend_backward(views, [n, m], [d, e], self.scale as f32, gradients);
            });
        });
        Some(found.map(Some).into())
    }
}

/// `softmax(q kᵀ·scale) v` of some queries of one head, `out` of `[queries, e]`.
pub(super) fn attend([q, k, v]: [Matrix<'_>; 3], keys: usize, d: usize, scale: f32, out: Tile<'_>) {
    let [queries, _] = out.dims();
    let mut scores = vec![0.0f32; queries * keys];
    product(d, q, k.transposed(), scale, Tile::of(&mut scores, keys), false);
    vectorized(
        #[inline(always)]
        || {
            for row in scores.chunks_exact_mut(keys) {
                softmax(row);
            }
        },
    );
    product(keys, Matrix::new(&scores, keys), v, 1.0, out, false);
}

/// The gradients of a head's queries, keys and values from that of its result, into contiguous rows.
/// With `P` the probabilities and `dP = g vᵀ`: `dS = P∘(dP − Σ P∘dP)`, `dq = dS k·scale`,
/// `dk = dSᵀ q·scale` and `dv = Pᵀ g`.
pub(super) fn attend_backward(
    [q, k, v, g]: [Matrix<'_>; 4],
    [queries, keys]: [usize; 2],
    [d, e]: [usize; 2],
    scale: f32,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let size = QUERIES.min(queries) * keys;
    let (mut weights, mut slopes) = (vec![0.0f32; size], vec![0.0f32; size]);
    for first in (0..queries).step_by(QUERIES) {
        let rows = QUERIES.min(queries - first);
        let (q, g) = (q.below(first), g.below(first));
        let (weights, slopes) = (&mut weights[..rows * keys], &mut slopes[..rows * keys]);
        product(d, q, k.transposed(), scale, Tile::of(weights, keys), false);
        product(e, g, v.transposed(), 1.0, Tile::of(slopes, keys), false);
        vectorized(
            #[inline(always)]
            || {
                for row in 0..rows {
                    let at = row * keys..(row + 1) * keys;
                    softmax(&mut weights[at.clone()]);
                    softmax_backward(&weights[at.clone()], &mut slopes[at]);
                }
            },
        );
        let (weights, slopes) = (Matrix::new(weights, keys), Matrix::new(slopes, keys));
        let adds = first > 0;
        product(keys, slopes, k, scale, Tile::of(&mut dq[first * d..][..rows * d], d), false);
        product(rows, slopes.transposed(), q, scale, Tile::of(dk, d), adds);
        product(rows, weights.transposed(), g, 1.0, Tile::of(dv, e), adds);
    }
}

#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) {
    let largest = math::max(row);
    for i in 0..row.len() {
        let below = row[i] - largest;
        let power = math::exp(below);
        // A masked score weighs exactly nothing: e⁻⁸⁷, where `exp` ends, makes subnormal numbers, which are slow.
        row[i] = if below < -87.0 { 0.0 } else { power };
    }
    let inverse = 1.0 / math::sum(row);
    for i in 0..row.len() {
        row[i] *= inverse;
    }
}

/// From the gradient of a row of probabilities, in place, to that of its scores.
#[inline(always)]
pub(super) fn softmax_backward(weights: &[f32], slopes: &mut [f32]) {
    let weights = &weights[..slopes.len()];
    let mean = math::dot(weights, slopes);
    for i in 0..slopes.len() {
        slopes[i] = weights[i] * (slopes[i] - mean);
    }
}
