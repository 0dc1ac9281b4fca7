//! `x Wᵀ + b` with what follows it.

use burn::tensor::Tensor;
use pulp::Arch;

use super::tensor::{Values, make};
use super::{for_each_piece, math};

/// Rows a piece of work holds: enough to amortise the packing of the weights.
const ROWS: usize = 128;

/// What is done to each output before it leaves the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epilogue {
    None,
    GeluTanh,
}

/// `[…, in]` → `[…, out]`; `None` where the tensors are not plain float32 on the CPU.
pub(crate) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    epilogue: Epilogue,
) -> Option<Tensor<D>> {
    let mut shape = x.dims();
    let [n, k] = weight.dims();
    shape[D - 1] = n;
    let (x, weight) = (Values::of(x)?, Values::of(weight)?);
    let bias = match bias {
        Some(bias) => Some(Values::of(bias)?),
        None => None,
    };
    let (x, w, bias) = (x.slice(), weight.slice(), bias.as_ref().map(Values::slice));
    Some(make(shape, |out| {
        // Conditions `[B, in]` have few rows, for which packing the weights would cost more than
        // the product. The rank decides, not the count: a row must not depend on the batch.
        if D == 2 {
            few_rows(x, w, bias, out, k, n);
            finish(out, epilogue);
            return;
        }
        for_each_piece(out, ROWS * n, |i, out| {
            let x = &x[i * ROWS * k..];
            fill_bias(out, bias, n);
            product(x, w, out, k, n);
            finish(out, epilogue);
        });
    }))
}

fn fill_bias(out: &mut [f32], bias: Option<&[f32]>, n: usize) {
    match bias {
        Some(bias) => out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
}

/// `out += x Wᵀ` for the rows that `out` has.
fn product(x: &[f32], w: &[f32], out: &mut [f32], k: usize, n: usize) {
    let m = out.len() / n;
    assert!(x.len() >= m * k && w.len() >= n * k);
    // SAFETY: the slices hold m×k, n×k and m×n values, as was just asserted, in the strides given.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            x.as_ptr(),
            1,
            k as isize,
            w.as_ptr(),
            k as isize,
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
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

fn finish(out: &mut [f32], epilogue: Epilogue) {
    if epilogue == Epilogue::GeluTanh {
        Arch::new().dispatch(|| out.iter_mut().for_each(|v| *v = math::gelu_tanh(*v)));
    }
}
