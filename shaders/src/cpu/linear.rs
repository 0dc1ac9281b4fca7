//! `x Wᵀ + b` with what follows it.
//!
//! Weights of 16 bits are widened a panel of features at a time, for each piece of rows anew, into memory that stays in
//! cache. Of a full piece a weight takes part in 128 multiply-adds, beside which its conversion, a few instructions for
//! a vector of weights, is a few per cent; of the one row of a condition a layer takes as long as its weights take to
//! arrive from memory, and there are half as many bytes of them.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::product::{Matrix, product, product_into};
use super::tensor::{Values, create, create_all, float32};
use super::vectors::vectorized;
use super::weight::{Stored, Weight};
use super::{for_each_piece, for_each_pieces, gelu, math, sums};
use crate::gradient::Operation;

/// Rows that a piece of work holds at least: enough to amortise the packing of the weights.
const ROWS: usize = 128;

/// Values that a panel of widened weights is meant to have, of which a second-level cache holds most.
const PANEL: usize = 3 << 16;

/// Features of a panel are a multiple of this, except in the last one: whole vectors of every kernel of products.
const UNIT: usize = 64;

/// Rows up to which the gradient of `x` is summed over pieces of the features: there are too few
/// for pieces of rows.
const FEW: usize = 32;

/// `x Wᵀ + b` of `[…, in]`, `[out, in]` and, where there is one, `[out]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    /// Whether GELU with the tanh approximation follows, before an output leaves the cache.
    pub gelu: bool,
}

impl Linear {
    /// The result and, where it is to be kept, what goes into the GELU.
    fn run(
        self,
        inputs: &[DispatchTensor],
        keep: bool,
    ) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let (x, weight) = (Values::read(&inputs[0])?, Weight::read(&inputs[1])?);
        let bias = match inputs.get(2) {
            Some(bias) => Some(Values::read(bias)?),
            None => None,
        };
        let (x, w, bias) = (x.slice(), weight.stored(), bias.as_ref().map(Values::slice));
        let [n, k] = inputs[1].shape().dims();
        let mut shape = inputs[0].shape();
        let last = shape.num_dims() - 1;
        shape[last] = n;
        // Conditions `[B, in]` have few rows, for which packing the weights would cost more than
        // the product. The rank decides, not the count: a row must not depend on the batch.
        let few = last == 1;
        let size = piece_of_rows(x.len() / k.max(1));
        let rows = |i: usize, out: &mut [f32]| {
            fill_bias(out, bias, n);
            add_products([out.len() / n, k, n], Matrix::new(&x[i * size * k..], k), w, out);
        };
        if self.gelu && keep {
            let [out, before] = create_all([shape.clone(), shape], |[out, before]| {
                if few {
                    few_rows(x, w, bias, before, k, n);
                    out.copy_from_slice(before);
                    gelu::apply(out);
                    return;
                }
                for_each_pieces([out, before], [size * n; 2], |i, [out, before]| {
                    rows(i, before);
                    out.copy_from_slice(before);
                    gelu::apply(out);
                });
            });
            return Some((out, vec![before]));
        }
        let out = create(shape, |out| {
            if few {
                few_rows(x, w, bias, out, k, n);
                if self.gelu {
                    gelu::apply(out);
                }
                return;
            }
            for_each_piece(out, size * n, |i, out| {
                rows(i, out);
                if self.gelu {
                    gelu::apply(out);
                }
            });
        });
        Some((out, Vec::new()))
    }
}

impl Operation for Linear {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        float32(&inputs[1])?; // weights of 16 bits have no gradient here
        self.run(inputs, true)
    }

    fn result(&self, inputs: &[DispatchTensor]) -> Option<DispatchTensor> {
        self.run(inputs, false).map(|(result, _)| result)
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let (x, weight) = (Values::read(&inputs[0])?, Values::read(&inputs[1])?);
        let gradient = match kept.first() {
            Some(before) => gelu::backward(before, &gradient)?,
            None => gradient,
        };
        let gradient = Values::read(&gradient)?;
        let (x, w, g) = (x.slice(), weight.slice(), gradient.slice());
        let [n, k] = inputs[1].shape().dims();
        let input = || create(inputs[0].shape(), |dx| gradient_of_input(g, w, dx, [n, k]));
        let weight = || create([n, k], |dw| gradient_of_weight(g, x, dw, [n, k]));
        let bias = || create([n], |db| sums::of_rows(g, n, db));
        let mut found = vec![wanted[0].then(input), wanted[1].then(weight)];
        found.extend(inputs.get(2).map(|_| wanted[2].then(bias)));
        Some(found)
    }
}

/// Rows of a piece: as many as leave every core two of them, for each packs the weights anew. A row's bits do not
/// depend on it, see [`panel`].
fn piece_of_rows(rows: usize) -> usize {
    #[cfg(not(target_family = "wasm"))]
    let pieces = 2 * rayon::current_num_threads();
    #[cfg(target_family = "wasm")]
    let pieces = 1;
    (rows / pieces / ROWS).max(1) * ROWS
}

fn fill_bias(out: &mut [f32], bias: Option<&[f32]>, n: usize) {
    match bias {
        Some(bias) => out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
}

/// Features of a panel of weights for `rows` rows.
///
/// gemm sums another way where a product has no more than 256 values, or no more than 64 rows and features. A panel
/// must not be such a product where the whole is none, or its bits would be others.
fn panel(rows: usize, k: usize) -> usize {
    let least = if rows > 64 { 1 } else { 5 };
    UNIT * (PANEL / (UNIT * k.max(1))).max(least)
}

/// `out += x Wᵀ`, with the same bits whether the weights are widened here or were before.
fn add_products([m, k, n]: [usize; 3], x: Matrix<'_>, w: Stored<'_>, out: &mut [f32]) {
    if let Some(w) = w.wide() {
        product([m, k, n], x, Matrix::new(w, k).transposed(), 1.0, out, true);
        return;
    }
    let features = panel(m, k);
    // The last one has the rest as well: a panel is never smaller than `features` where there are so many.
    let panels = (n / features).max(1);
    let mut wide = Vec::new();
    for first in (0..panels).map(|i| i * features) {
        let count = if first + 2 * features > n { n - first } else { features };
        wide.resize(count * k, 0.0);
        vectorized(
            #[inline(always)]
            || w.widen(first * k, &mut wide),
        );
        let w = Matrix::new(&wide, k).transposed();
        product_into([m, k, count], x, w, 1.0, &mut out[first..], n, true);
    }
}

/// Dot products, output features in pieces.
fn few_rows(x: &[f32], w: Stored<'_>, bias: Option<&[f32]>, out: &mut [f32], k: usize, n: usize) {
    const FEATURES: usize = 64;
    let rows = x.len() / k;
    // Features outermost, so that each weight is read once; transposed into place afterwards.
    let mut columns = vec![0.0; rows * n];
    for_each_piece(&mut columns, FEATURES * rows, |i, piece| {
        let mut widened = vec![0.0f32; if w.wide().is_some() { 0 } else { k }];
        vectorized(
            #[inline(always)]
            || {
                for (j, column) in piece.chunks_exact_mut(rows).enumerate() {
                    let first = (i * FEATURES + j) * k;
                    let w = match w.wide() {
                        Some(w) => &w[first..][..k],
                        None => {
                            w.widen(first, &mut widened);
                            &widened[..]
                        }
                    };
                    for (row, value) in column.iter_mut().enumerate() {
                        *value = math::dot(&x[row * k..(row + 1) * k], w);
                    }
                }
            },
        );
    });
    for (feature, column) in columns.chunks_exact(rows).enumerate() {
        let b = bias.map_or(0.0, |bias| bias[feature]);
        for (row, value) in column.iter().enumerate() {
            out[row * n + feature] = value + b;
        }
    }
}

/// Rows or features of a piece of a gradient: about an eighth, so that a few cores share even short
/// sequences, and no more than stay in cache.
fn piece(count: usize) -> usize {
    count.div_ceil(8).next_multiple_of(16).clamp(16, ROWS)
}

/// `dx = g W`
fn gradient_of_input(g: &[f32], w: &[f32], dx: &mut [f32], [n, k]: [usize; 2]) {
    let (rows, size) = (dx.len() / k, dx.len());
    if rows <= FEW {
        const FEATURES: usize = 256;
        let mut pieces = vec![0.0f32; n.div_ceil(FEATURES) * size];
        for_each_piece(&mut pieces, size, |i, sum| {
            let (first, features) = (i * FEATURES, FEATURES.min(n - i * FEATURES));
            let (g, w) = (Matrix::new(&g[first..], n), Matrix::new(&w[first * k..], k));
            product([rows, features, k], g, w, 1.0, sum, false);
        });
        sums::of_pieces(&pieces, size, dx);
        return;
    }
    let rows = piece(rows);
    for_each_piece(dx, rows * k, |i, dx| {
        let g = Matrix::new(&g[i * rows * n..], n);
        product([dx.len() / k, n, k], g, Matrix::new(w, k), 1.0, dx, false);
    });
}

/// `dW = gᵀ x`, whose sums over the rows are the products' own.
fn gradient_of_weight(g: &[f32], x: &[f32], dw: &mut [f32], [n, k]: [usize; 2]) {
    let (rows, features) = (x.len() / k, piece(n));
    for_each_piece(dw, features * k, |i, dw| {
        let g = Matrix::new(&g[i * features..], n).transposed();
        product([dw.len() / k, rows, k], g, Matrix::new(x, k), 1.0, dw, false);
    });
}
