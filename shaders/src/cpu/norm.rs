//! Normalisations and the small steps around them, one pass over memory each.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::tensor::{Values, create, optional};
use super::vectors::vectorized;
use super::{for_each_piece, for_each_pieces, math, sums};
use crate::gradient::Operation;

/// Rows that a piece of a forward pass holds.
const ROWS: usize = 32;

/// `n(x)·weight·(1 + scale) + shift` of LayerNorm or RMSNorm, and which of its parameters follow
/// `x`, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    /// LayerNorm rather than RMSNorm.
    pub centred: bool,
    pub eps: f64,
    /// `[d]`
    pub weight: bool,
    /// `[groups, d]`
    pub scale: bool,
    /// `[groups, d]`
    pub shift: bool,
}

/// The inputs of a norm; groups are the rows of an image.
struct Given {
    x: Values,
    weight: Option<Values>,
    scale: Option<Values>,
    shift: Option<Values>,
    groups: usize,
    /// Rows of a group.
    rows: usize,
    d: usize,
}

impl Given {
    /// `weight·(1 + scale)`, `[groups, d]`
    fn gain(&self) -> Vec<f32> {
        let d = self.d;
        let mut gain = vec![1.0f32; self.groups * d];
        if let Some(scale) = &self.scale {
            gain.iter_mut().zip(scale.slice()).for_each(|(gain, scale)| *gain += scale);
        }
        if let Some(weight) = &self.weight {
            let weight = weight.slice();
            gain.iter_mut().enumerate().for_each(|(i, gain)| *gain *= weight[i % d]);
        }
        gain
    }
}

impl Norm {
    fn given(self, inputs: &[DispatchTensor]) -> Option<Given> {
        let shape = inputs[0].shape();
        let d = shape[shape.num_dims() - 1];
        let x = Values::read(&inputs[0])?;
        let rows = x.slice().len() / d;
        let groups = if self.scale || self.shift { shape[0] } else { 1 };
        let given = [(self.weight, d), (self.scale, groups * d), (self.shift, groups * d)];
        let [weight, scale, shift] = optional(&inputs[1..], given)?;
        Some(Given { x, weight, scale, shift, groups, rows: rows / groups.max(1), d })
    }

    /// Mean (0 where the norm is not centred) and inverse deviation of a row.
    #[inline(always)]
    fn statistics(self, x: &[f32]) -> (f32, f32) {
        let count = x.len() as f32;
        let mean = if self.centred { math::sum(x) / count } else { 0.0 };
        let variance = math::sum_of_squares(x, mean) / count;
        (mean, 1.0 / (variance + self.eps as f32).sqrt())
    }

    /// The gradients of the parameters of which there are some, from `Σ g` and `Σ g·n` over the
    /// rows of each group, `[groups, 2, d]`.
    fn parameters(self, given: &Given, sums: &[f32]) -> Vec<Option<DispatchTensor>> {
        let (d, groups) = (given.d, given.groups);
        let (weight, scale) = (given.weight.as_ref(), given.scale.as_ref());
        let (weight, scale) = (weight.map(Values::slice), scale.map(Values::slice));
        let sum = |group: usize, i: usize| sums[2 * group * d + i];
        let product = |group: usize, i: usize| sums[(2 * group + 1) * d + i];
        let of_weight = || {
            create([d], |out| {
                for i in 0..d {
                    let gain = |group: usize| scale.map_or(1.0, |scale| 1.0 + scale[group * d + i]);
                    out[i] = (0..groups).map(|group| product(group, i) * gain(group)).sum();
                }
            })
        };
        let of_groups = |value: &dyn Fn(usize, usize) -> f32| {
            create([groups, d], |out| {
                for i in 0..groups * d {
                    out[i] = value(i / d, i % d);
                }
            })
        };
        let gain = |i: usize| weight.map_or(1.0, |weight| weight[i]);
        let mut found = Vec::new();
        if self.weight {
            found.push(Some(of_weight()));
        }
        if self.scale {
            found.push(Some(of_groups(&|group, i| product(group, i) * gain(i))));
        }
        if self.shift {
            found.push(Some(of_groups(&sum)));
        }
        found
    }
}

impl Operation for Norm {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let given = self.given(inputs)?;
        let (rows, d, gain) = (given.rows, given.d, given.gain());
        let (x, shift) = (given.x.slice(), given.shift.as_ref().map(Values::slice));
        let out = create(inputs[0].shape(), |out| {
            for_each_piece(out, ROWS * d, |piece, out| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, out) in out.chunks_exact_mut(d).enumerate() {
                            let row = piece * ROWS + i;
                            let group = row / rows;
                            let x = &x[row * d..][..d];
                            let gain = &gain[group * d..][..d];
                            let (mean, inverse) = self.statistics(x);
                            if let Some(shift) = shift {
                                let shift = &shift[group * d..][..d];
                                for i in 0..d {
                                    out[i] = (x[i] - mean) * inverse * gain[i] + shift[i];
                                }
                            } else {
                                for i in 0..d {
                                    out[i] = (x[i] - mean) * inverse * gain[i];
                                }
                            }
                        }
                    },
                );
            });
        });
        Some((out, Vec::new()))
    }

    /// With `h = gradient·weight·(1 + scale)`, `n` the normalised row and `s` the inverse
    /// deviation: `dx = s·(h − mean(h) − n·mean(h·n))`, the middle term for centred norms only.
    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let given = self.given(inputs)?;
        let gradient = Values::read(&gradient)?;
        let (rows, d, gain) = (given.rows, given.d, given.gain());
        let (x, g) = (given.x.slice(), gradient.slice());
        let piece_rows = sums::piece_rows(given.groups, rows);
        let mut pieces = vec![0.0f32; (given.groups * rows).div_ceil(piece_rows) * 2 * d];
        let dx = create(inputs[0].shape(), |dx| {
            let sizes = [piece_rows * d, 2 * d];
            for_each_pieces([dx, &mut pieces[..]], sizes, |piece, [dx, sums]| {
                let mut normal = vec![0.0f32; d];
                vectorized(
                    #[inline(always)]
                    || {
                        let (sum, product) = sums.split_at_mut(d);
                        let (product, normal) = (&mut product[..d], &mut normal[..d]);
                        for (i, dx) in dx.chunks_exact_mut(d).enumerate() {
                            let row = piece * piece_rows + i;
                            let (x, g) = (&x[row * d..][..d], &g[row * d..][..d]);
                            let gain = &gain[row / rows * d..][..d];
                            let (mean, inverse) = self.statistics(x);
                            for i in 0..d {
                                normal[i] = (x[i] - mean) * inverse;
                                dx[i] = g[i] * gain[i];
                                sum[i] += g[i];
                                product[i] += g[i] * normal[i];
                            }
                            let centre = if self.centred { math::sum(dx) / d as f32 } else { 0.0 };
                            let along = math::dot(dx, normal) / d as f32;
                            for i in 0..d {
                                dx[i] = (dx[i] - centre - normal[i] * along) * inverse;
                            }
                        }
                    },
                );
            });
        });
        let mut found = vec![Some(dx)];
        if inputs.len() > 1 {
            let mut groups = vec![0.0f32; given.groups * 2 * d];
            sums::of_pieces(&pieces, 2 * d, &mut groups);
            found.extend(self.parameters(&given, &groups));
        }
        Some(found)
    }
}

/// `x + gate·y` of `[B, N, D]`, `[B, N, D]` and `[B, D]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedResidual;

impl Operation for GatedResidual {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let shape = inputs[0].shape();
        let [b, n, d] = shape.dims();
        let [x, y, gate] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (x, y, gate) = (x?, y?, gate?);
        let (x, y, gate) = (x.slice(), y.slice(), gate.slice());
        if y.len() != x.len() || gate.len() != b * d {
            return None;
        }
        let out = create(shape, |out| {
            for_each_piece(out, ROWS * d, |piece, out| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, out) in out.chunks_exact_mut(d).enumerate() {
                            let row = piece * ROWS + i;
                            let (x, y) = (&x[row * d..][..d], &y[row * d..][..d]);
                            let gate = &gate[row / n * d..][..d];
                            for i in 0..d {
                                out[i] = x[i] + gate[i] * y[i];
                            }
                        }
                    },
                );
            });
        });
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        if !wanted[1] && !wanted[2] {
            return Some(vec![Some(gradient), None, None]);
        }
        let shape = inputs[1].shape();
        let [b, n, d] = shape.dims();
        let [y, gate, g] = [&inputs[1], &inputs[2], &gradient].map(Values::read);
        let (y, gate, g) = (y?, gate?, g?);
        let (y, gate, g) = (y.slice(), gate.slice(), g.slice());
        let piece_rows = sums::piece_rows(b, n);
        let mut pieces = vec![0.0f32; (b * n).div_ceil(piece_rows) * d];
        let dy = create(shape, |dy| {
            let sizes = [piece_rows * d, d];
            for_each_pieces([dy, &mut pieces[..]], sizes, |piece, [dy, sum]| {
                vectorized(
                    #[inline(always)]
                    || {
                        let sum = &mut sum[..d];
                        for (i, dy) in dy.chunks_exact_mut(d).enumerate() {
                            let row = piece * piece_rows + i;
                            let (y, g) = (&y[row * d..][..d], &g[row * d..][..d]);
                            let gate = &gate[row / n * d..][..d];
                            for i in 0..d {
                                dy[i] = g[i] * gate[i];
                                sum[i] += g[i] * y[i];
                            }
                        }
                    },
                );
            });
        });
        let dgate = create([b, d], |dgate| sums::of_pieces(&pieces, d, dgate));
        Some(vec![Some(gradient), Some(dy), Some(dgate)])
    }
}
