//! `x Wᵀ + b` with what follows it.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;
use pulp::Arch;

use super::product::{Matrix, product};
use super::tensor::{Values, create, create_all};
use super::{for_each_piece, for_each_pieces, gelu, math, sums};
use crate::gradient::Operation;

/// Rows a piece of work holds: enough to amortise the packing of the weights.
const ROWS: usize = 128;

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
        let (x, weight) = (Values::read(&inputs[0])?, Values::read(&inputs[1])?);
        let bias = match inputs.get(2) {
            Some(bias) => Some(Values::read(bias)?),
            None => None,
        };
        let (x, w, bias) = (x.slice(), weight.slice(), bias.as_ref().map(Values::slice));
        let [n, k] = inputs[1].shape().dims();
        let mut shape = inputs[0].shape();
        let last = shape.num_dims() - 1;
        shape[last] = n;
        // Conditions `[B, in]` have few rows, for which packing the weights would cost more than
        // the product. The rank decides, not the count: a row must not depend on the batch.
        let few = last == 1;
        let rows = |i: usize, out: &mut [f32]| {
            fill_bias(out, bias, n);
            let (x, w) = (Matrix::new(&x[i * ROWS * k..], k), Matrix::new(w, k));
            product([out.len() / n, k, n], x, w.transposed(), 1.0, out, true);
        };
        if self.gelu && keep {
            let [out, before] = create_all([shape.clone(), shape], |[out, before]| {
                if few {
                    few_rows(x, w, bias, before, k, n);
                    out.copy_from_slice(before);
                    gelu::apply(out);
                    return;
                }
                for_each_pieces([out, before], [ROWS * n; 2], |i, [out, before]| {
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
            for_each_piece(out, ROWS * n, |i, out| {
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

fn fill_bias(out: &mut [f32], bias: Option<&[f32]>, n: usize) {
    match bias {
        Some(bias) => out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
}

/// Dot products, output features in pieces.
fn few_rows(x: &[f32], w: &[f32], bias: Option<&[f32]>, out: &mut [f32], k: usize, n: usize) {
    const FEATURES: usize = 64;
    let rows = x.len() / k;
    // Features outermost, so that each weight is read once; transposed into place afterwards.
    let mut columns = vec![0.0; rows * n];
    for_each_piece(&mut columns, FEATURES * rows, |i, piece| {
        Arch::new().dispatch(|| {
            for (j, column) in piece.chunks_exact_mut(rows).enumerate() {
                let feature = i * FEATURES + j;
                let w = &w[feature * k..(feature + 1) * k];
                for (row, value) in column.iter_mut().enumerate() {
                    *value = math::dot(&x[row * k..(row + 1) * k], w);
                }
            }
        });
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
