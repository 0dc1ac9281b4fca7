//! Largest and mean values of square windows of an image: over the rows that a window sees first, then along them, so
//! that every step takes whole rows.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::tensor::{Values, create};
use super::vectors::vectorized;
use super::{for_each_piece, math};
use crate::gradient::Operation;

/// Values of the result that a piece of work is meant to have.
const VALUES: usize = 1 << 13;

/// What there is of a window in the image: padding is not seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub kind: Kind,
    /// Side of the windows.
    pub window: usize,
    pub stride: usize,
    /// Rows and columns by which windows reach over each side of the image, fewer than they have.
    pub padding: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Max,
    Mean,
}

/// Memory for a row of a result.
struct Scratch {
    /// The rows of the windows, folded, between what changes nothing: as wide as the image with its padding.
    down: Vec<f32>,
    /// The same folded along the row, a value for every place of a window, whatever the stride.
    across: Vec<f32>,
    /// Columns of the image that the window at each place sees.
    counts: Vec<f32>,
}

impl Kind {
    /// What changes nothing.
    fn neutral(self) -> f32 {
        match self {
            Self::Max => f32::NEG_INFINITY,
            Self::Mean => 0.0,
        }
    }

    #[inline(always)]
    fn fold(self, values: &mut [f32], more: &[f32]) {
        match self {
            Self::Max => math::max_with(values, more),
            Self::Mean => math::add(values, more),
        }
    }
}

impl Pool {
    /// Rows or columns of the result.
    fn side(self, side: usize) -> Option<usize> {
        Some((side + 2 * self.padding).checked_sub(self.window)? / self.stride + 1)
    }

    fn scratch(self, width: usize) -> Scratch {
        let (window, padding) = (self.window, self.padding);
        let places = width + 2 * padding - window + 1;
        let seen = |place: usize| (place + window).min(padding + width) - place.max(padding);
        Scratch {
            down: vec![self.kind.neutral(); width + 2 * padding],
            across: vec![0.0; places],
            counts: (0..places).map(|place| seen(place) as f32).collect(),
        }
    }

    /// One channel of an image, `[height, width]` to `[rows, columns]`.
    #[inline(always)]
    fn plane(
        self,
        x: &[f32],
        [height, width]: [usize; 2],
        out: &mut [f32],
        columns: usize,
        scratch: &mut Scratch,
    ) {
        let places = scratch.across.len();
        let (down, across) = (&mut scratch.down[..], &mut scratch.across[..places]);
        let counts = &scratch.counts[..places];
        for row in 0..out.len() / columns {
            let top = row * self.stride;
            let first = top.saturating_sub(self.padding);
            let end = (top + self.window - self.padding).min(height);
            let inner = &mut down[self.padding..][..width];
            inner.copy_from_slice(&x[first * width..][..width]);
            for y in first + 1..end {
                self.kind.fold(inner, &x[y * width..][..width]);
            }
            across.copy_from_slice(&down[..places]);
            for tap in 1..self.window {
                self.kind.fold(across, &down[tap..][..places]);
            }
            if self.kind == Kind::Mean {
                let rows = (end - first) as f32;
                for i in 0..places {
                    across[i] /= rows * counts[i];
                }
            }
            let out = &mut out[row * columns..][..columns];
            if self.stride == 1 {
                out.copy_from_slice(across);
            } else {
                for i in 0..columns {
                    out[i] = across[i * self.stride];
                }
            }
        }
    }
}

impl Operation for Pool {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [batch, channels, height, width] = inputs[0].shape().dims();
        if self.padding >= self.window || self.stride == 0 || height * width == 0 {
            return None;
        }
        let (rows, columns) = (self.side(height)?, self.side(width)?);
        let x = Values::read(&inputs[0])?;
        let x = x.slice();
        let (pixels, results) = (height * width, rows * columns);
        let planes = VALUES.div_ceil(results);
        let out = create([batch, channels, rows, columns], |out| {
            for_each_piece(out, planes * results, |piece, out| {
                let mut scratch = self.scratch(width);
                let scratch = &mut scratch;
                vectorized(
                    #[inline(always)]
                    || {
                        for i in 0..out.len() / results {
                            let x = &x[(piece * planes + i) * pixels..][..pixels];
                            let out = &mut out[i * results..][..results];
                            self.plane(x, [height, width], out, columns, scratch);
                        }
                    },
                );
            });
        });
        Some((out, Vec::new()))
    }

    fn has_gradient(&self) -> bool {
        false
    }

    fn backward(
        &self,
        _: &[DispatchTensor],
        _: &[DispatchTensor],
        _: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        None
    }
}
