//! GroupNorm and the SiLU behind it.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::tensor::{Values, create};
use super::vectors::vectorized;
use super::{for_each_piece, for_each_pieces, math};
use crate::gradient::Operation;

/// `SiLU(GroupNorm(x))` of `[B, C, H, W]`, weight and bias `[C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNormSilu {
    pub groups: usize,
    pub eps: f64,
}

/// Values of a pixel of all channels of a group lie in planes of `area`.
struct Sizes {
    channels: usize,
    area: usize,
}

impl GroupNormSilu {
    /// `None` if the shapes do not match, or a tensor is empty.
    fn sizes(self, inputs: &[DispatchTensor]) -> Option<Sizes> {
        let [_, c, h, w] = inputs[0].shape().dims();
        let [weight] = inputs[1].shape().dims();
        let [bias] = inputs[2].shape().dims();
        let fit = c.is_multiple_of(self.groups) && [weight, bias] == [c, c] && c * h * w > 0;
        fit.then(|| Sizes { channels: c / self.groups, area: h * w })
    }

    /// Mean and inverse deviation of a group.
    #[inline(always)]
    fn statistics(self, x: &[f32], area: usize) -> (f32, f32) {
        let (channels, count) = (x.len() / area, x.len() as f32);
        // Sums of channels first: long sums in float32 lose digits.
        let (mut sum, mut squares) = (0.0f32, 0.0f32);
        for channel in 0..channels {
            sum += math::sum(&x[channel * area..][..area]);
        }
        let mean = sum / count;
        for channel in 0..channels {
            squares += math::sum_of_squares(&x[channel * area..][..area], mean);
        }
        (mean, 1.0 / (squares / count + self.eps as f32).sqrt())
    }
}

impl Operation for GroupNormSilu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let Sizes { channels, area } = self.sizes(inputs)?;
        let [x, weight, bias] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (x, weight, bias) = (x?, weight?, bias?);
        let (x, weight, bias) = (x.slice(), weight.slice(), bias.slice());
        let out = create(inputs[0].shape(), |out| {
            for_each_piece(out, channels * area, |i, out| {
                let first = i % self.groups * channels;
                let x = &x[i * channels * area..][..channels * area];
                vectorized(
                    #[inline(always)]
                    || {
                        let (mean, inverse) = self.statistics(x, area);
                        for channel in 0..channels {
                            let gain = inverse * weight[first + channel];
                            let shift = bias[first + channel] - mean * gain;
                            let at = channel * area..(channel + 1) * area;
                            let (x, out) = (&x[at.clone()], &mut out[at]);
                            for i in 0..x.len() {
                                out[i] = math::silu(x[i] * gain + shift);
                            }
                        }
                    },
                );
            });
        });
        Some((out, Vec::new()))
    }

    /// With `n` the normalised values, `s` the inverse deviation of their group and `h` the gradient through the SiLU:
    /// `dx = s·(w·h − mean(w·h) − n·mean(w·h·n))`.
    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        _: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let Sizes { channels, area } = self.sizes(inputs)?;
        let [x, weight, bias] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (x, weight, bias, g) = (x?, weight?, bias?, Values::read(&gradient)?);
        let (x, weight, bias, g) = (x.slice(), weight.slice(), bias.slice(), g.slice());
        let (size, all) = (channels * area, weight.len());
        // Of each image and group Σ h·n and Σ h of its channels.
        let mut sums = vec![0.0f32; x.len() / area * 2];
        let dx = create(inputs[0].shape(), |dx| {
            for_each_pieces([dx, &mut sums[..]], [size, 2 * channels], |i, [dx, sums]| {
                let first = i % self.groups * channels;
                let (x, g) = (&x[i * size..][..size], &g[i * size..][..size]);
                let (weight, bias) = (&weight[first..][..channels], &bias[first..][..channels]);
                let mut normal = vec![0.0f32; size];
                vectorized(
                    #[inline(always)]
                    || {
                        let (mean, inverse) = self.statistics(x, area);
                        let (along, plain) = sums.split_at_mut(channels);
                        let (mut mean_h, mut mean_hn) = (0.0f32, 0.0f32);
                        for c in 0..channels {
                            let at = c * area..(c + 1) * area;
                            let (x, g) = (&x[at.clone()], &g[at.clone()]);
                            let (h, n) = (&mut dx[at.clone()], &mut normal[at]);
                            for i in 0..area {
                                n[i] = (x[i] - mean) * inverse;
                                let y = n[i] * weight[c] + bias[c];
                                h[i] = g[i] * math::silu_with_slope(y).1;
                            }
                            along[c] = math::dot(h, n);
                            plain[c] = math::sum(h);
                            mean_h += weight[c] * plain[c] / size as f32;
                            mean_hn += weight[c] * along[c] / size as f32;
                        }
                        for c in 0..channels {
                            let at = c * area..(c + 1) * area;
                            let (h, n) = (&mut dx[at.clone()], &normal[at]);
                            for i in 0..area {
                                h[i] = (h[i] * weight[c] - mean_h - n[i] * mean_hn) * inverse;
                            }
                        }
                    },
                );
            });
        });
        let of = |part: usize| {
            create([all], |out| {
                for (c, out) in out.iter_mut().enumerate() {
                    let at = (c / channels * 2 + part) * channels + c % channels;
                    *out = sums.chunks_exact(2 * all).map(|image| image[at]).sum();
                }
            })
        };
        Some(vec![Some(dx), Some(of(0)), Some(of(1))])
    }
}
