//! Self-attention on a packed projection as one operation, queries and keys prepared on the way.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::attention::{QUERIES, attend, attend_backward};
use super::prepare::Prepare;
use super::product::Matrix;
use super::tensor::{Values, create};
use super::tile::Tile;
use super::vectors::vectorized;
use super::{for_each, for_each_piece, for_each_pieces, neighborhood, sums};
use crate::AttentionKind;
use crate::gradient::Operation;
use crate::preparation::Preparation;

/// `[B, N, 3·heads·d]` (q, k, v; head-major) and what the preparation takes → `[B, N, heads·d]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QkvAttention {
    pub heads: usize,
    pub scale: f64,
    pub preparation: Preparation,
    pub reach: AttentionKind,
}

impl QkvAttention {
    /// `[B, N, heads, d]`; `None` if the shapes do not match, or a tensor is empty.
    fn dims(self, qkv: &DispatchTensor) -> Option<[usize; 4]> {
        let [b, n, row] = qkv.shape().dims();
        let d = row / 3 / self.heads;
        let of_image = |height: usize, width: usize| height * width == n;
        let places = match self.preparation {
            Preparation::Cosine { height, width } => of_image(height, width),
            Preparation::Plain | Preparation::Rotary => true,
        };
        let seen = match self.reach {
            AttentionKind::Global => true,
            AttentionKind::Neighborhood { height, width, kernel } => {
                of_image(height, width) && kernel <= height.min(width)
            }
        };
        (row == 3 * self.heads * d && n * d > 0 && places && seen).then_some([b, n, self.heads, d])
    }
}

impl Operation for QkvAttention {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let dims @ [b, n, heads, d] = self.dims(&inputs[0])?;
        let qkv = Values::read(&inputs[0])?;
        let parameters = inputs[1..].iter().map(Values::read).collect::<Option<Vec<_>>>()?;
        let prepare = Prepare::new(self.preparation, &parameters);
        let qkv = prepare.packed(qkv.slice(), [n, heads, d]);
        let scale = self.scale as f32;
        let out = create([b, n, heads * d], |out| match self.reach {
            AttentionKind::Global => global(&qkv, dims, scale, out),
            AttentionKind::Neighborhood { height, width, kernel } => {
                neighborhood::forward(&qkv, [heads, d], scale, [height, width, kernel], out);
            }
        });
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let [b, n, heads, d] = self.dims(&inputs[0])?;
        let (qkv, gradient) = (Values::read(&inputs[0])?, Values::read(&gradient)?);
        let parameters = inputs[1..].iter().map(Values::read).collect::<Option<Vec<_>>>()?;
        let prepare = Prepare::new(self.preparation, &parameters);
        let (qkv, g) = (qkv.slice(), gradient.slice());
        let (row, d_model) = (3 * heads * d, heads * d);
        // Those of what was prepared, [B, heads, 3, N, d]: every piece is written by one worker.
        let mut gradients = vec![0.0f32; qkv.len()];
        {
            let prepared = prepare.packed(qkv, [n, heads, d]);
            let scale = self.scale as f32;
            for_each_piece(&mut gradients, 3 * n * d, |i, gradients| {
                let (image, head) = (i / heads, i % heads);
                let view = |part: usize| {
                    let start = image * n * row + part * d_model + head * d;
                    Matrix::new(&prepared[start..], row)
                };
                let g = Matrix::new(&g[image * n * d_model + head * d..], d_model);
                let views = [view(0), view(1), view(2), g];
                let (dq, rest) = gradients.split_at_mut(n * d);
                let (dk, dv) = rest.split_at_mut(n * d);
                let to = [dq, dk, dv];
                match self.reach {
                    AttentionKind::Global => attend_backward(views, [n, n], [d, d], scale, to),
                    AttentionKind::Neighborhood { height, width, kernel } => {
                        neighborhood::backward(views, d, scale, [height, width, kernel], to);
                    }
                }
            });
        }
        // Packed, and those of the projection itself.
        const ROWS: usize = sums::ROWS;
        let mut scales = vec![0.0f32; (b * n).div_ceil(ROWS) * heads];
        let packed = create(inputs[0].shape(), |packed| {
            let sizes = [ROWS * row, heads];
            for_each_pieces([packed, &mut scales[..]], sizes, |piece, [packed, scales]| {
                vectorized(
                    #[inline(always)]
                    || {
                        for i in 0..packed.len() / row {
                            let place = piece * ROWS + i;
                            let (image, token) = (place / n, place % n);
                            let packed = &mut packed[i * row..][..row];
                            for i in 0..3 * heads {
                                let (part, head) = (i / heads, i % heads);
                                let from = ((image * heads + head) * 3 + part) * n + token;
                                let to = &mut packed[i * d..][..d];
                                to.copy_from_slice(&gradients[from * d..][..d]);
                                if part < 2 {
                                    let x = &qkv[place * row + i * d..][..d];
                                    scales[head] += prepare.backward(token, head, x, to);
                                }
                            }
                        }
                    },
                );
            });
        });
        let mut found = vec![Some(packed)];
        if let Preparation::Cosine { .. } = self.preparation {
            let scale = create([heads], |scale| sums::of_pieces(&scales, heads, scale));
            found.push(Some(scale));
        }
        found.resize_with(inputs.len(), || None);
        Some(found)
    }
}

/// Every query among all keys.
fn global(qkv: &[f32], [_, n, heads, d]: [usize; 4], scale: f32, out: &mut [f32]) {
    let (row, d_model) = (3 * heads * d, heads * d);
    let images = out.chunks_mut(n * d_model).enumerate();
    let queries = images.flat_map(|(image, out)| {
        let tiles = Tile::of(out, d_model).cut([n.div_ceil(QUERIES), heads], [1, d]);
        tiles.into_iter().map(move |(at, out)| (image, at, out))
    });
    for_each(queries.collect(), |_, (image, [first, column], out)| {
        let view =
            |part: usize| Matrix::new(&qkv[image * n * row + part * d_model + column..], row);
        attend([view(0).below(first), view(1), view(2)], n, d, scale, out);
    });
}
