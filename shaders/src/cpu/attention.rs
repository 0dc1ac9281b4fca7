//! Attention without copies of q, k and v, softmax in vector registers.

use burn::tensor::Tensor;
use pulp::Arch;

use super::tensor::{Values, make};
use super::{for_each_piece, math};

/// Queries a piece of work holds; bounds the scores in flight to `QUERIES` rows.
const QUERIES: usize = 64;

/// One head's matrix inside a larger array: row and column strides in values.
#[derive(Clone, Copy)]
struct View<'a> {
    data: &'a [f32],
    row: usize,
}

/// `[B, N, 3·heads·d]` → `[B, N, heads·d]`
pub(crate) fn qkv_attention(qkv: &Tensor<3>, heads: usize, scale: f64) -> Option<Tensor<3>> {
    let [b, n, width] = qkv.dims();
    let (d_model, d) = (width / 3, width / 3 / heads);
    let qkv = Values::of(qkv)?;
    let qkv = qkv.slice();
    let pieces = n.div_ceil(QUERIES);
    // [B, pieces, heads, queries, d]: every piece is written by one worker.
    let mut heads_out = vec![0.0; b * pieces * heads * QUERIES * d];
    for_each_piece(&mut heads_out, QUERIES * d, |i, out| {
        let (image, piece, head) = (i / (pieces * heads), i / heads % pieces, i % heads);
        let view = |part: usize| View {
            data: &qkv[image * n * width + part * d_model + head * d..],
            row: width,
        };
        let first = piece * QUERIES;
        let queries = QUERIES.min(n - first);
        attend([view(0), view(1), view(2)], first, queries, n, [d, d], scale as f32, out);
    });
    Some(make([b, n, d_model], |out| {
        for_each_piece(out, n * d_model, |image, out| {
            for (piece, rows) in out.chunks_mut(QUERIES * d_model).enumerate() {
                let source = &heads_out[(image * pieces + piece) * heads * QUERIES * d..];
                for (q, row) in rows.chunks_exact_mut(d_model).enumerate() {
                    for head in 0..heads {
                        let at = (head * QUERIES + q) * d;
                        row[head * d..(head + 1) * d].copy_from_slice(&source[at..at + d]);
                    }
                }
            }
        });
    }))
}

/// `[B, heads, N, d]`, `[B, heads, M, d]`, `[B, heads, M, e]` → `[B, heads, N, e]`, without mask
pub(crate) fn attention(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    scale: f64,
) -> Option<Tensor<4>> {
    let [b, heads, n, d] = q.dims();
    let [_, _, m, e] = v.dims();
    if n % QUERIES != 0 {
        return None; // small or odd problems; pieces would straddle heads
    }
    let (q, k, v) = (Values::of(q)?, Values::of(k)?, Values::of(v)?);
    let (q, k, v) = (q.slice(), k.slice(), v.slice());
    let pieces = n / QUERIES;
    Some(make([b, heads, n, e], |out| {
        for_each_piece(out, QUERIES * e, |i, out| {
            let (matrix, piece) = (i / pieces, i % pieces);
            let views = [
                View { data: &q[matrix * n * d..], row: d },
                View { data: &k[matrix * m * d..], row: d },
                View { data: &v[matrix * m * e..], row: e },
            ];
            attend(views, piece * QUERIES, QUERIES, m, [d, e], scale as f32, out);
        });
    }))
}

/// `softmax(q kᵀ·scale) v` of some queries of one head, into contiguous rows of `out`.
fn attend(
    [q, k, v]: [View<'_>; 3],
    first: usize,
    queries: usize,
    keys: usize,
    [d, e]: [usize; 2],
    scale: f32,
    out: &mut [f32],
) {
    let mut scores = vec![0.0f32; queries * keys];
    let rows = |view: View<'_>, first: usize, count: usize, width: usize| {
        assert!(view.data.len() >= (first + count - 1) * view.row + width);
    };
    rows(q, first, queries, d);
    rows(k, 0, keys, d);
    rows(v, 0, keys, e);
    assert!(out.len() >= queries * e);
    // SAFETY: q has `queries` rows from `first`, k and v have `keys` rows, all inside their slices
    // as was just asserted; `scores` is queries×keys and `out` at least queries×e.
    unsafe {
        gemm::gemm(
            queries,
            keys,
            d,
            scores.as_mut_ptr(),
            1,
            keys as isize,
            false,
            q.data.as_ptr().add(first * q.row),
            1,
            q.row as isize,
            k.data.as_ptr(),
            k.row as isize,
            1,
            0.0f32,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Arch::new().dispatch(|| scores.chunks_exact_mut(keys).for_each(softmax));
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            queries,
            e,
            keys,
            out.as_mut_ptr(),
            1,
            e as isize,
            false,
            scores.as_ptr(),
            1,
            keys as isize,
            v.data.as_ptr(),
            1,
            v.row as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) {
    let largest = math::max(row);
    for v in row.iter_mut() {
        *v = math::exp(*v - largest);
    }
    let inverse = 1.0 / math::sum(row, |v| v);
    for v in row.iter_mut() {
        *v *= inverse;
    }
}
