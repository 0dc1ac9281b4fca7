//! Queries and keys made ready for attention, and the way back for their gradients.

use std::borrow::Cow;

use super::tensor::Values;
use super::vectors::vectorized;
use super::{for_each_piece, math};
use crate::plain::axial_grid;
use crate::preparation::Preparation;

/// A preparation with what it takes.
pub(super) enum Prepare<'a> {
    Plain,
    Rotary {
        cos: &'a [f32],
        sin: &'a [f32],
    },
    Cosine {
        scale: &'a [f32],
        freqs: &'a [f32],
        /// Places of the tokens, `[N, 2]`.
        grid: Vec<f32>,
    },
}

impl<'a> Prepare<'a> {
    pub(super) fn new(kind: Preparation, parameters: &'a [Values]) -> Self {
        let given = |i: usize| parameters[i].slice();
        match kind {
            Preparation::Plain => Self::Plain,
            Preparation::Rotary => Self::Rotary { cos: given(0), sin: given(1) },
            Preparation::Cosine { height, width } => Self::Cosine {
                scale: given(0),
                freqs: given(1),
                grid: axial_grid(height, width).iter().map(|&place| place as f32).collect(),
            },
        }
    }

    /// The packed projection `[B, N, 3·heads·d]` with its queries and keys prepared.
    pub(super) fn packed<'q>(&self, qkv: &'q [f32], [n, heads, d]: [usize; 3]) -> Cow<'q, [f32]> {
        if let Self::Plain = self {
            return Cow::Borrowed(qkv);
        }
        let row = 3 * heads * d;
        let mut prepared = vec![0.0f32; qkv.len()];
        for_each_piece(&mut prepared, row, |token, out| {
            out.copy_from_slice(&qkv[token * row..(token + 1) * row]);
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..2 * heads {
                        self.forward(token % n, i % heads, &mut out[i * d..][..d]);
                    }
                },
            );
        });
        Cow::Owned(prepared)
    }

    /// Prepares the query or key of a token and head in place.
    #[inline(always)]
    pub(super) fn forward(&self, token: usize, head: usize, x: &mut [f32]) {
        let d = x.len();
        match self {
            Self::Plain => {}
            Self::Rotary { cos, sin } => {
                let (cos, sin) = (&cos[token * d..][..d], &sin[token * d..][..d]);
                for pair in 0..d / 2 {
                    let (i, j) = (2 * pair, 2 * pair + 1);
                    let (a, b) = (x[i], x[j]);
                    x[i] = a * cos[i] - b * sin[i];
                    x[j] = b * cos[j] + a * sin[j];
                }
            }
            Self::Cosine { scale, freqs, grid } => {
                let squares = math::sum_of_squares(x, 0.0);
                let factor = scale[head].sqrt() / (squares + 1e-6).sqrt();
                for i in 0..d {
                    x[i] *= factor;
                }
                let (eighth, quarter) = (d / 8, d / 4);
                for i in 0..quarter {
                    let (sin, cos) = angle(freqs, grid, token, head, eighth, i).sin_cos();
                    let (a, b) = (x[i], x[i + quarter]);
                    x[i] = a * cos - b * sin;
                    x[i + quarter] = b * cos + a * sin;
                }
            }
        }
    }

    /// Turns the gradient of a prepared query or key, in place, into that of the row `x` itself, and
    /// gives that of the head's scale: with `n` the row over its norm `ν` and `g` the gradient before
    /// the rotation, `√scale·(g − n (n·g))/ν` and `(n·g)/(2√scale)`.
    #[inline(always)]
    pub(super) fn backward(&self, token: usize, head: usize, x: &[f32], g: &mut [f32]) -> f32 {
        let d = g.len();
        match self {
            Self::Plain => 0.0,
            Self::Rotary { cos, sin } => {
                let (cos, sin) = (&cos[token * d..][..d], &sin[token * d..][..d]);
                for pair in 0..d / 2 {
                    let (i, j) = (2 * pair, 2 * pair + 1);
                    let (a, b) = (g[i], g[j]);
                    g[i] = a * cos[i] + b * sin[j];
                    g[j] = b * cos[j] - a * sin[i];
                }
                0.0
            }
            Self::Cosine { scale, freqs, grid } => {
                let (eighth, quarter) = (d / 8, d / 4);
                for i in 0..quarter {
                    let (sin, cos) = angle(freqs, grid, token, head, eighth, i).sin_cos();
                    let (a, b) = (g[i], g[i + quarter]);
                    g[i] = a * cos + b * sin;
                    g[i + quarter] = b * cos - a * sin;
                }
                let x = &x[..d];
                let inverse = 1.0 / (math::dot(x, x) + 1e-6).sqrt();
                let along = math::dot(x, g) * inverse;
                let root = scale[head].sqrt();
                for i in 0..d {
                    g[i] = root * inverse * (g[i] - x[i] * inverse * along);
                }
                along / (2.0 * root)
            }
        }
    }
}

/// Angle `i` of `d/4` by which a token's pair is rotated.
#[inline(always)]
fn angle(freqs: &[f32], grid: &[f32], token: usize, head: usize, eighth: usize, i: usize) -> f32 {
    grid[2 * token + i / eighth] * freqs[head * eighth + i % eighth]
}
