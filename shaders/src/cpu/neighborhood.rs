//! Neighborhood attention straight from a packed projection: nothing is gathered.

use super::attention::{softmax, softmax_backward};
use super::product::Matrix;
use super::vectors::vectorized;
use super::{for_each_piece, math};
use crate::plain::window_start;

/// `[B, H·W, 3·heads·d]` → `[B, H·W, heads·d]`, each query among the `kernel`² keys around it.
pub(super) fn forward(
    qkv: &[f32],
    [heads, d]: [usize; 2],
    scale: f32,
    [height, width, kernel]: [usize; 3],
    out: &mut [f32],
) {
    let (n, d_model) = (height * width, heads * d);
    let row = 3 * d_model;
    for_each_piece(out, width * d_model, |line, out| {
        let (image, y) = (line / height, line % height);
        let top = window_start(y, height, kernel);
        let mut weights = vec![0.0f32; kernel * kernel];
        vectorized(
            #[inline(always)]
            || {
                for (place, out) in out.chunks_exact_mut(d).enumerate() {
                    let (x, head) = (place / heads, place % heads);
                    let left = window_start(x, width, kernel);
                    let token = |y: usize, x: usize| (image * n + y * width + x) * row + head * d;
                    let q = &qkv[token(y, x)..][..d];
                    // The window's first token; the others are lines below it, and to its right.
                    let keys = &qkv[token(top, left) + d_model..];
                    for i in 0..kernel {
                        for j in 0..kernel {
                            let key = &keys[(i * width + j) * row..][..d];
                            weights[i * kernel + j] = math::dot(q, key) * scale;
                        }
                    }
                    softmax(&mut weights);
                    let values = &qkv[token(top, left) + 2 * d_model..];
                    weigh(&weights, values, [kernel, width * row, row], out);
                }
            },
        );
    });
}

/// The sum of a window's values by their weights: of `kernel` lines, `line` values apart, of values `next` apart.
#[inline(always)]
fn weigh(weights: &[f32], values: &[f32], [kernel, line, next]: [usize; 3], out: &mut [f32]) {
    /// Numbers that vector registers hold while all values of a window are added to them.
    const PART: usize = 32;
    let (parts, rest) = out.as_chunks_mut::<PART>();
    let end = parts.len() * PART;
    for part in 0..parts.len() {
        let mut sums = [0.0f32; PART];
        for i in 0..kernel {
            for j in 0..kernel {
                let value = &values[i * line + j * next + part * PART..][..PART];
                let weight = weights[i * kernel + j];
                for lane in 0..PART {
                    sums[lane] += weight * value[lane];
                }
            }
        }
        parts[part] = sums;
    }
    rest.fill(0.0);
    for i in 0..kernel {
        for j in 0..kernel {
            let value = &values[i * line + j * next + end..];
            math::add_scaled(rest, value, weights[i * kernel + j]);
        }
    }
}

/// As [`attend_backward`](super::attention::attend_backward), each query among its neighbors; adds to
/// the gradients, which are zero.
pub(super) fn backward(
    [q, k, v, g]: [Matrix<'_>; 4],
    d: usize,
    scale: f32,
    [height, width, kernel]: [usize; 3],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let window = kernel * kernel;
    let (mut weights, mut slopes) = (vec![0.0f32; window], vec![0.0f32; window]);
    vectorized(
        #[inline(always)]
        || {
            for query in 0..height * width {
                let top = window_start(query / width, height, kernel);
                let left = window_start(query % width, width, kernel);
                let key = |i: usize| (top + i / kernel) * width + left + i % kernel;
                let (q, g) = (q.row(query, d), g.row(query, d));
                for i in 0..window {
                    weights[i] = math::dot(q, k.row(key(i), d)) * scale;
                    slopes[i] = math::dot(g, v.row(key(i), d));
                }
                softmax(&mut weights);
                softmax_backward(&weights, &mut slopes);
                let dq = &mut dq[query * d..][..d];
                for i in 0..window {
                    let (key, slope) = (key(i), slopes[i] * scale);
                    math::add_scaled(dq, k.row(key, d), slope);
                    math::add_scaled(&mut dk[key * d..][..d], q, slope);
                    math::add_scaled(&mut dv[key * d..][..d], g, weights[i]);
                }
            }
        },
    );
}
