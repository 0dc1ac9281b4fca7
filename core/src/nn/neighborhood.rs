//! Two-dimensional neighborhood attention with NATTEN's semantics, in plain tensor operations.
//!
//! Each query sees exactly K² keys: the window is centred where it fits and shifts inward at the
//! borders. Work and memory are linear in the number of tokens: keys are gathered a band of query
//! rows at a time, so that no band holds more than [`BAND`] gathered vectors.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Gathered key vectors per head a band may hold; bounds the memory of one gather.
const BAND: usize = 1 << 18;

/// First key of the window of query `i` on an axis of `n` keys: `clamp(i − ⌊K/2⌋, 0, n − K)`.
pub fn window_start(i: usize, n: usize, kernel: usize) -> usize {
    i.saturating_sub(kernel / 2).min(n - kernel)
}

/// `softmax(q·k · scale)·v` over the K×K neighborhood of each query.
///
/// `q`, `k`, `v`: `[B, H, W, heads, d]` with `H, W ≥ kernel`; returns the same shape.
pub fn neighborhood_attention(
    q: Tensor<5>,
    k: Tensor<5>,
    v: Tensor<5>,
    kernel: usize,
    scale: f64,
) -> Tensor<5> {
    let [b, h, w, heads, d] = q.dims();
    let keys = kernel * kernel;
    let flat = |x: Tensor<5>| x.reshape([b, h * w, heads * d]); // [B, N, heads·d]
    let (k, v) = (flat(k), flat(v));
    let rows = (BAND / (w * keys)).clamp(1, h);
    let bands = (0..h).step_by(rows).map(|top| {
        let rows = rows.min(h - top);
        let n = rows * w;
        let indices = neighbors(top..top + rows, h, w, kernel, &q.device()); // [n·K²]
        let gather = |x: &Tensor<3>| -> Tensor<5> {
            let x = x.clone().select(1, indices.clone()); // [B, n·K², heads·d]
            x.reshape([b, n, keys, heads, d]).swap_dims(2, 3) // [B, n, heads, K², d]
        };
        let q = q.clone().narrow(1, top, rows).reshape([b, n, heads, 1, d]);
        let scores = (q.matmul(gather(&k).swap_dims(3, 4))) * scale; // [B, n, heads, 1, K²]
        let out = softmax(scores, 4).matmul(gather(&v)); // [B, n, heads, 1, d]
        out.reshape([b, rows, w, heads, d])
    });
    Tensor::cat(bands.collect(), 1)
}

/// Flat token indices of the neighbors of a band of query rows, `[rows·W·K²]`.
fn neighbors(
    rows: std::ops::Range<usize>,
    h: usize,
    w: usize,
    kernel: usize,
    device: &Device,
) -> Tensor<1, Int> {
    let mut indices = Vec::with_capacity(rows.len() * w * kernel * kernel);
    for i in rows {
        let top = window_start(i, h, kernel);
        for j in 0..w {
            let left = window_start(j, w, kernel);
            for y in top..top + kernel {
                indices.extend((left..left + kernel).map(|x| (y * w + x) as i32));
            }
        }
    }
    let len = indices.len();
    Tensor::from_data(TensorData::new(indices, [len]), device)
}
