//! `x Wᵀ + b` with what follows it.
//!
//! Weights of 16 bits are widened a panel of features at a time, for each piece of rows anew, into memory that stays in
//! cache. Of a full piece a weight takes part in 128 multiply-adds, beside which its conversion, a few instructions for
//! a vector of weights, is a few per cent; of the one row of a condition a layer takes as long as its weights take to
//! arrive from memory, and there are half as many bytes of them.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::product::{Matrix, SMALL, product, tiles};
use super::tensor::{Values, create, create_all, float32};
use super::tile::Tile;
use super::vectors::vectorized;
use super::weight::{Stored, Weight};
use super::{for_each, for_each_piece, gelu, math, sums};
use crate::gradient::Operation;

/// Values that a panel of widened weights is meant to have, of which a second-level cache holds most.
const PANEL: usize = 3 << 16;

/// Features of a panel are a multiple of this, except in the last one: whole vectors of every kernel of products.
const UNIT: usize = 64;

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
        let fits = shape[last] == k && bias.is_none_or(|bias| bias.len() == n);
        if x.is_empty() || !fits {
            return None;
        }
        shape[last] = n;
        // Conditions `[B, in]` have few rows, for which packing the weights would cost more than the product; and
        // small products have sums of their own. The rows of an image decide, not those of the batch: an image must
        // not depend on what is beside it.
        let rows: usize = shape.iter().take(last).skip(1).product();
        let few = rows == 1 || rows * n <= SMALL;
        let fill = |[row, column]: [usize; 2], mut out: Tile<'_>| {
            let [_, features] = out.dims();
            fill_bias(&mut out, bias.map(|bias| &bias[column..][..features]));
            add_products(k, Matrix::new(x, k).below(row), w.below(column * k), out);
        };
        if !(self.gelu && keep) {
            let out = create(shape, |out| {
                if few {
                    few_rows(x, w, bias, out, k, n);
                    if self.gelu {
                        gelu::apply(out);
                    }
                    return;
                }
                for_each(tiles(Tile::of(out, n)), |_, (at, mut out)| {
                    fill(at, out.reborrow());
                    if self.gelu {
                        (0..out.dims()[0]).for_each(|i| gelu::apply(out.row(i)));
                    }
                });
            });
            return Some((out, Vec::new()));
        }
        let [out, before] = create_all([shape.clone(), shape], |[out, before]| {
            if few {
                few_rows(x, w, bias, before, k, n);
                out.copy_from_slice(before);
                gelu::apply(out);
                return;
            }
            let tiles = tiles(Tile::of(out, n)).into_iter().zip(tiles(Tile::of(before, n)));
            for_each(tiles.collect(), |_, ((at, mut out), (_, mut before))| {
                fill(at, before.reborrow());
                for i in 0..out.dims()[0] {
                    out.row(i).copy_from_slice(before.row(i));
                    gelu::apply(out.row(i));
                }
            });
        });
        Some((out, vec![before]))
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

fn fill_bias(out: &mut Tile<'_>, bias: Option<&[f32]>) {
    for i in 0..out.dims()[0] {
        match bias {
            Some(bias) => out.row(i).copy_from_slice(bias),
            None => out.row(i).fill(0.0),
        }
    }
}

/// Features of a panel of weights for `rows` rows: of more than [`SMALL`] values, for if the whole has more, the bits of
/// a smaller panel would be others.
fn panel(rows: usize, k: usize) -> usize {
    let least = SMALL / (UNIT * rows.max(1)) + 1;
    UNIT * (PANEL / (UNIT * k.max(1))).max(least)
}

/// `out += x Wᵀ`, with the same bits whether the weights are widened here or were before.
fn add_products(k: usize, x: Matrix<'_>, w: Stored<'_>, mut out: Tile<'_>) {
    if let Some(w) = w.wide() {
        product(k, x, Matrix::new(w, k).transposed(), 1.0, out, true);
        return;
    }
    let [rows, n] = out.dims();
    let features = panel(rows, k);
    // The last one has the rest as well: a panel is never smaller than `features` where there are so many.
    let panels = (n / features).max(1);
    let mut wide = Vec::new();
    for first in (0..panels).map(|i| i * features) {
        let end = if first + 2 * features > n { n } else { first + features };
        wide.resize((end - first) * k, 0.0);
        vectorized(
            #[inline(always)]
            || w.widen(first * k, &mut wide),
        );
        let w = Matrix::new(&wide, k).transposed();
        product(k, x, w, 1.0, out.columns(first..end), true);
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
                for j in 0..piece.len() / rows {
                    let first = (i * FEATURES + j) * k;
                    let w = match w.wide() {
                        Some(w) => &w[first..][..k],
                        None => {
                            w.widen(first, &mut widened);
                            &widened[..]
                        }
                    };
                    let column = &mut piece[j * rows..][..rows];
                    for row in 0..rows {
                        column[row] = math::dot(&x[row * k..][..k], w);
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

/// `dx = g W`
fn gradient_of_input(g: &[f32], w: &[f32], dx: &mut [f32], [n, k]: [usize; 2]) {
    for_each(tiles(Tile::of(dx, k)), |_, ([row, column], dx)| {
        let w = Matrix::new(&w[column..], k);
        product(n, Matrix::new(g, n).below(row), w, 1.0, dx, false);
    });
}

/// `dW = gᵀ x`, whose sums over the rows are the products' own.
fn gradient_of_weight(g: &[f32], x: &[f32], dw: &mut [f32], [n, k]: [usize; 2]) {
    let rows = x.len() / k;
    for_each(tiles(Tile::of(dw, k)), |_, ([feature, column], dw)| {
        let g = Matrix::new(&g[feature..], n).transposed();
        product(rows, g, Matrix::new(&x[column..], k), 1.0, dw, false);
    });
}
