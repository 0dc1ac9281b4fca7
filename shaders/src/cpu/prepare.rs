//! Queries and keys made ready for attention in place, values copied.

use burn::tensor::Tensor;

use super::for_each_piece;
use super::tensor::{Values, make};
use crate::QkTransform;
use crate::plain::axial_grid;

/// The packed projection `[B, N, 3·heads·d]` with its queries and keys prepared.
pub(crate) fn prepare(
    qkv: &Tensor<3>,
    heads: usize,
    preparation: &QkTransform,
) -> Option<Tensor<3>> {
    let shape = qkv.dims();
    let [_, n, row] = shape;
    let d = row / 3 / heads;
    let values = Values::of(qkv)?;
    let values = values.slice();
    // Of a token and head: what to do with its query and its key.
    let prepared = |each: &(dyn Fn(usize, usize, &mut [f32]) + Sync)| {
        make(shape, |out| {
            for_each_piece(out, row, |token, out| {
                out.copy_from_slice(&values[token * row..(token + 1) * row]);
                for (i, head) in out[..2 * heads * d].chunks_exact_mut(d).enumerate() {
                    each(token % n, i % heads, head);
                }
            });
        })
    };
    match preparation {
        QkTransform::Plain => Some(qkv.clone()),
        QkTransform::Rotary { cos, sin } => {
            let (cos, sin) = (Values::of(cos)?, Values::of(sin)?);
            let (cos, sin) = (cos.slice(), sin.slice());
            Some(prepared(&|token, _, x| {
                let tables = cos[token * d..].iter().zip(&sin[token * d..]);
                let mut tables = tables.map(|(&cos, &sin)| (cos, sin));
                for pair in x.chunks_exact_mut(2) {
                    let (first, second) = (tables.next(), tables.next());
                    let (Some((cos_a, sin_a)), Some((cos_b, sin_b))) = (first, second) else {
                        break;
                    };
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * cos_a - b * sin_a;
                    pair[1] = b * cos_b + a * sin_b;
                }
            }))
        }
        QkTransform::Cosine { scale, freqs, height, width } => {
            let (scale, freqs) = (Values::of(scale)?, Values::of(freqs)?);
            let (scale, freqs) = (scale.slice(), freqs.slice());
            let grid: Vec<f32> = axial_grid(*height, *width).iter().map(|&p| p as f32).collect();
            let (eighth, quarter) = (d / 8, d / 4);
            Some(prepared(&|token, head, x| {
                let squares: f32 = x.iter().map(|v| v * v).sum();
                let factor = scale[head].sqrt() / (squares + 1e-6).sqrt();
                for v in x.iter_mut() {
                    *v *= factor;
                }
                for i in 0..quarter {
                    let position = grid[2 * token + i / eighth];
                    let (sin, cos) = (position * freqs[head * eighth + i % eighth]).sin_cos();
                    let (a, b) = (x[i], x[i + quarter]);
                    x[i] = a * cos - b * sin;
                    x[i + quarter] = b * cos + a * sin;
                }
            }))
        }
    }
}
