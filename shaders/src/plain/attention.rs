//! Attention, whole and among neighbors.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::{
    cosine_similarity_scale, head_angles, rotate_halves, rotate_pairs, softmax, statistics_type,
};
use crate::{AttentionKind, QkTransform};

/// See [`crate::attention`].
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    attention_with(softmax, q, k, v, scale, mask)
}

/// The same with a given softmax over the last axis.
pub(crate) fn attention_with(
    softmax: fn(Tensor<4>) -> Tensor<4>,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    let dtype = q.dtype();
    let scores = statistics_type((q * scale).matmul(k.swap_dims(2, 3))); // [B, heads, N, M]
    let scores = match mask {
        Some(mask) => {
            let dims = scores.dims();
            scores.mask_fill(mask.expand(dims), f32::NEG_INFINITY)
        }
        None => scores,
    };
    softmax(scores).cast(dtype).matmul(v) // [B, heads, N, e]
}

/// See [`crate::qkv_attention`].
pub fn qkv_attention(
    qkv: Tensor<3>,
    heads: usize,
    scale: f64,
    preparation: QkTransform,
    reach: AttentionKind,
) -> Tensor<3> {
    let [b, n, width] = qkv.dims();
    let d = width / 3 / heads;
    let qkv = qkv.reshape([b, n, 3, heads, d]);
    let [q, k, v] = [0, 1, 2].map(|i| -> Tensor<4> {
        qkv.clone().narrow(2, i, 1).reshape([b, n, heads, d]) // [B, N, heads, d]
    });
    let heads_first = |x: Tensor<4>| x.swap_dims(1, 2);
    let (q, k) = match preparation {
        QkTransform::Plain => (q, k),
        QkTransform::Rotary { cos, sin } => {
            let turn = |x| heads_first(rotate_pairs(heads_first(x), cos.clone(), sin.clone()));
            (turn(q), turn(k))
        }
        QkTransform::Cosine { scale, freqs, height, width } => {
            let image = |x: Tensor<4>| x.reshape([b, height, width, heads, d]);
            let (q, k) = cosine_similarity_scale(image(q), image(k), scale);
            let angles = head_angles(freqs, height, width); // [H, W, heads, d/4]
            let turn = |x| rotate_halves(x, angles.clone()).reshape([b, n, heads, d]);
            (turn(q), turn(k))
        }
    };
    match reach {
        AttentionKind::Global => {
            let [q, k, v] = [q, k, v].map(heads_first);
            attention(q, k, v, scale, None).swap_dims(1, 2).reshape([b, n, heads * d])
        }
        AttentionKind::Neighborhood { height, width, kernel } => {
            let [q, k, v] = [q, k, v].map(|x| x.reshape([b, height, width, heads, d]));
            neighborhood_attention(q, k, v, kernel, scale).reshape([b, n, heads * d])
        }
    }
}

/// Gathered key vectors per head a band may hold; bounds the memory of one gather.
const BAND: usize = 1 << 18;

/// First key of the window of query `i` on an axis of `n` keys: `clamp(i − ⌊K/2⌋, 0, n − K)`.
///
/// # Panics
///
/// If `kernel` is over `n`.
pub fn window_start(i: usize, n: usize, kernel: usize) -> usize {
    i.saturating_sub(kernel / 2).min(n - kernel)
}

/// See [`crate::neighborhood_attention`]: keys are gathered a band of query rows at a time, so that
/// work and memory are linear in the tokens.
///
/// # Panics
///
/// If the shapes differ, or a side of the image is less than `kernel`.
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
        let out = softmax(scores).matmul(gather(&v)); // [B, n, heads, 1, d]
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
