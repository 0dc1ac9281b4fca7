//! Convolutions as products: of the weights and the patches of an image, a band of rows at a time, so that the patches
//! stay in cache.

use std::iter;
use std::ops::Range;

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::product::{Matrix, product};
use super::tensor::{Values, create, optional};
use super::tile::Tile;
use super::vectors::vectorized;
use super::{for_each, for_each_piece, math};
use crate::gradient::Operation;

/// Values of the patches of a band, of which a second-level cache holds most.
const PATCHES: usize = 3 << 16;
/// Least and most pixels of the result that a band is meant to have. It reads all weights anew, 4·out·depth bytes, and
/// patches that leave the cache cost 8·depth bytes a pixel: so where fewer than the least would stay, it has the most.
const PIXELS: [usize; 2] = [128, 256];
/// Bands that an image has at least, where it has so many rows: work for several cores.
const BANDS: usize = 4;
/// Most channels of a piece of a gradient.
const CHANNELS: usize = 32;

/// `x` `[B, C, H, W]`, weight `[out, C, kh, kw]` and, where there are any, bias `[out]` and a residual
/// `[B, out, H', W']`, which is the result's shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    pub stride: usize,
    /// Zeros around the image, on each side.
    pub padding: [usize; 2],
    pub bias: bool,
    pub residual: bool,
    /// Whether a ReLU follows, before a band leaves the cache.
    pub relu: bool,
}

/// The sizes of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub channels: usize,
    pub image: [usize; 2],
    pub out: usize,
    pub window: [usize; 2],
    pub result: [usize; 2],
    pub stride: usize,
    /// Above and left of the image; what is beyond it below and on the right follows from the result.
    pub padding: [usize; 2],
}

impl Convolution {
    fn sizes(self, inputs: &[DispatchTensor]) -> Option<Sizes> {
        let [batch, channels, h, w] = inputs[0].shape().dims();
        let [out, of, kh, kw] = inputs[1].shape().dims();
        let side = |axis: usize, side: usize, window: usize| {
            Some((side + 2 * self.padding[axis]).checked_sub(window)? / self.stride + 1)
        };
        let result = [side(0, h, kh)?, side(1, w, kw)?];
        let (stride, padding) = (self.stride, self.padding);
        let (image, window) = ([h, w], [kh, kw]);
        let sizes = Sizes { batch, channels, image, out, window, result, stride, padding };
        (of == channels && batch * channels * out * kh * kw > 0).then_some(sizes)
    }
}

impl Sizes {
    /// Pixels of a channel of `x`.
    pub(super) fn pixels(&self) -> usize {
        self.image[0] * self.image[1]
    }

    /// Pixels of a channel of the result.
    pub(super) fn results(&self) -> usize {
        self.result[0] * self.result[1]
    }

    /// Weights of one channel of `x` for one of the result.
    fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Weights of a channel of the result.
    pub(super) fn depth(&self) -> usize {
        self.channels * self.taps()
    }

    /// Rows of the result in a band.
    pub(super) fn band(&self) -> usize {
        let ([least, most], fitting) = (PIXELS, PATCHES / self.depth());
        let pixels = if fitting < least { most } else { fitting.min(most) };
        (pixels / self.result[1]).clamp(1, self.result[0].div_ceil(BANDS))
    }

    /// The bands of an image, as rows of the result.
    fn bands(self) -> impl Iterator<Item = Range<usize>> {
        let (rows, band) = (self.result[0], self.band());
        (0..rows).step_by(band).map(move |first| first..rows.min(first + band))
    }

    /// Channels of `x` in a piece of a gradient.
    fn group(&self) -> usize {
        let most = (self.channels / BANDS).clamp(1, CHANNELS);
        (1..=most).rev().find(|&group| self.channels.is_multiple_of(group)).unwrap_or(1)
    }

    /// Columns of the result that see the image, and not the zeros beside it, through a column of the window; and the
    /// column of the image that the first of them sees.
    fn seen(&self, tap: usize) -> (Range<usize>, usize) {
        let ([_, width], [_, columns]) = (self.image, self.result);
        let (stride, padding) = (self.stride, self.padding[1]);
        let end = (width + padding).saturating_sub(tap).div_ceil(stride).min(columns);
        let begin = padding.saturating_sub(tap).div_ceil(stride).min(end);
        (begin..end, (begin * stride + tap).saturating_sub(padding))
    }

    /// The row of the image that a row of the result sees through a row of the window, if it is one.
    fn row(&self, row: usize, tap: usize) -> Option<usize> {
        let row = (row * self.stride + tap).checked_sub(self.padding[0])?;
        (row < self.image[0]).then_some(row)
    }

    /// What the rows of a band see of some channels, one row of the window after another: `[channels·kh·kw, pixels]`.
    pub(super) fn patches(&self, planes: &[f32], band: &Range<usize>, patches: &mut Vec<f32>) {
        let ([_, width], [kh, kw], columns) = (self.image, self.window, self.result[1]);
        patches.clear();
        for plane in planes.chunks_exact(self.pixels()) {
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let (seen, first) = self.seen(kx);
                for row in band.clone() {
                    let Some(y) = self.row(row, ky) else {
                        patches.extend(iter::repeat_n(0.0, columns));
                        continue;
                    };
                    patches.extend(iter::repeat_n(0.0, seen.start));
                    let line = &plane[y * width..][..width];
                    if self.stride == 1 {
                        patches.extend_from_slice(&line[first..][..seen.len()]);
                    } else if !seen.is_empty() {
                        let every = line[first..].iter().step_by(self.stride);
                        patches.extend(every.take(seen.len()));
                    }
                    patches.extend(iter::repeat_n(0.0, columns - seen.end));
                }
            }
        }
    }

    /// Adds to the pixels of some channels what belongs to them of gradients of patches.
    #[inline(always)]
    fn add_patches(&self, patches: &[f32], band: &Range<usize>, planes: &mut [f32]) {
        let ([_, width], columns, taps) = (self.image, self.result[1], self.taps());
        let (pixels, rows) = (self.pixels(), band.len());
        for patch in 0..planes.len() / pixels * taps {
            let (plane, tap) = (&mut planes[patch / taps * pixels..][..pixels], patch % taps);
            let (ky, kx) = (tap / self.window[1], tap % self.window[1]);
            let (seen, first) = self.seen(kx);
            for row in 0..rows {
                let Some(y) = self.row(band.start + row, ky) else { continue };
                let values = &patches[(patch * rows + row) * columns..][..columns];
                let values = &values[seen.clone()];
                let line = &mut plane[y * width..][..width];
                if self.stride == 1 && !values.is_empty() {
                    math::add(&mut line[first..][..values.len()], values);
                } else {
                    for i in 0..values.len() {
                        line[first + i * self.stride] += values[i];
                    }
                }
            }
        }
    }

    /// `[B, out, H', W']`
    fn forward(
        self,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        relu: bool,
        out: &mut [f32],
    ) {
        let (columns, results) = (self.result[1], self.results());
        let (bands, size) = (self.result[0].div_ceil(self.band()), self.band() * columns);
        let depth = self.depth();
        let images = out.chunks_exact_mut(self.out * results).enumerate();
        let pieces = images.flat_map(|(image, out)| {
            let bands = Tile::of(out, results).cut([1, bands], [1, size]);
            bands.into_iter().map(move |([_, first], out)| (image, first / columns, out))
        });
        for_each(pieces.collect(), |_, (image, first, mut out)| {
            let [_, pixels] = out.dims();
            vectorized(
                #[inline(always)]
                || {
                    for channel in 0..self.out {
                        let bias = if let Some(bias) = bias { bias[channel] } else { 0.0 };
                        let out = &mut out.row(channel)[..pixels];
                        if let Some(residual) = residual {
                            let at = (image * self.out + channel) * results + first * columns;
                            let residual = &residual[at..][..pixels];
                            for i in 0..pixels {
                                out[i] = residual[i] + bias;
                            }
                        } else {
                            out.fill(bias);
                        }
                    }
                },
            );
            let planes = &x[image * self.channels * self.pixels()..];
            let planes = &planes[..self.channels * self.pixels()];
            let mut patches = Vec::new();
            let seen = if self.is_pointwise() {
                Matrix::new(&planes[first * columns..], results)
            } else {
                patches.reserve_exact(depth * pixels);
                self.patches(planes, &(first..first + pixels / columns), &mut patches);
                Matrix::new(&patches, pixels)
            };
            product(depth, Matrix::new(weight, depth), seen, 1.0, out.reborrow(), true);
            if relu {
                vectorized(
                    #[inline(always)]
                    || {
                        for channel in 0..self.out {
                            math::relu(out.row(channel));
                        }
                    },
                );
            }
        });
    }

    /// Whether the image is its patches.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.padding == [0, 0]
    }

    /// The gradient `[B, out, H', W']` under a band of an image.
    fn under<'a>(&self, gradient: &'a [f32], image: usize, band: &Range<usize>) -> Matrix<'a> {
        let at = image * self.out * self.results() + band.start * self.result[1];
        Matrix::new(&gradient[at..], self.results())
    }

    /// The gradient of `x`: that of each patch, added up where they overlap, and to what there is where it `adds`.
    pub(super) fn of_image(self, weight: &[f32], gradient: &[f32], dx: &mut [f32], adds: bool) {
        let (group, depth) = (self.group(), self.depth());
        let groups = self.channels / group;
        for_each_piece(dx, group * self.pixels(), |i, planes| {
            if !adds {
                planes.fill(0.0);
            }
            let (image, first) = (i / groups, i % groups * group * self.taps());
            let weight = Matrix::new(&weight[first..], depth).transposed();
            let rows = group * self.taps();
            let mut patches = vec![0.0f32; rows * self.band() * self.result[1]];
            for band in self.bands() {
                let pixels = band.len() * self.result[1];
                let patches = &mut patches[..rows * pixels];
                let gradient = self.under(gradient, image, &band);
                product(self.out, weight, gradient, 1.0, Tile::of(patches, pixels), false);
                vectorized(
                    #[inline(always)]
                    || self.add_patches(patches, &band, planes),
                );
            }
        });
    }

    /// The gradient of the weights: products of patches and the gradients under them.
    pub(super) fn of_weight(self, x: &[f32], gradient: &[f32], dw: &mut [f32]) {
        let (group, depth) = (self.group(), self.depth());
        let width = group * self.taps();
        // [groups, out, group·kh·kw]
        let mut groups = vec![0.0f32; dw.len()];
        for_each_piece(&mut groups, self.out * width, |i, sums| {
            let mut patches = Vec::new();
            for image in 0..self.batch {
                let planes = &x[(image * self.channels + i * group) * self.pixels()..];
                let planes = &planes[..group * self.pixels()];
                for band in self.bands() {
                    let pixels = band.len() * self.result[1];
                    self.patches(planes, &band, &mut patches);
                    let patches = Matrix::new(&patches, pixels).transposed();
                    let gradient = self.under(gradient, image, &band);
                    product(pixels, gradient, patches, 1.0, Tile::of(sums, width), true);
                }
            }
        });
        for_each_piece(dw, depth, |channel, row| {
            for (i, row) in row.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(&groups[(i * self.out + channel) * width..][..width]);
            }
        });
    }

    /// The gradient of the bias.
    pub(super) fn of_bias(self, gradient: &[f32], db: &mut [f32]) {
        let results = self.results();
        for_each_piece(db, 1, |channel, sum| {
            sum[0] = 0.0;
            vectorized(
                #[inline(always)]
                || {
                    for image in 0..self.batch {
                        let at = (image * self.out + channel) * results;
                        sum[0] += math::sum(&gradient[at..][..results]);
                    }
                },
            );
        });
    }
}

/// The gradient of what goes into a ReLU, by its result.
fn through_relu(result: &DispatchTensor, gradient: &DispatchTensor) -> Option<DispatchTensor> {
    const VALUES: usize = 1 << 14;
    let (y, g) = (Values::read(result)?, Values::read(gradient)?);
    let (y, g) = (y.slice(), g.slice());
    Some(create(result.shape(), |out| {
        for_each_piece(out, VALUES, |i, out| {
            let (y, g) = (&y[i * VALUES..][..out.len()], &g[i * VALUES..][..out.len()]);
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..out.len() {
                        out[i] = if y[i] > 0.0 { g[i] } else { 0.0 };
                    }
                },
            );
        });
    }))
}

impl Operation for Convolution {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let sizes = self.sizes(inputs)?;
        let (x, weight) = (Values::read(&inputs[0])?, Values::read(&inputs[1])?);
        let [rows, columns] = sizes.result;
        let shape = [sizes.batch, sizes.out, rows, columns];
        let given = [(self.bias, sizes.out), (self.residual, shape.iter().product())];
        let [bias, residual] = optional(&inputs[2..], given)?;
        let (bias, residual) = (bias.as_ref(), residual.as_ref());
        let (bias, residual) = (bias.map(Values::slice), residual.map(Values::slice));
        let (x, weight) = (x.slice(), weight.slice());
        let out = create(shape, |out| {
            sizes.forward(x, weight, bias, residual, self.relu, out);
        });
        let kept = if self.relu { vec![out.clone()] } else { Vec::new() };
        Some((out, kept))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let sizes = self.sizes(inputs)?;
        let (x, weight) = (Values::read(&inputs[0])?, Values::read(&inputs[1])?);
        let gradient = match kept.first() {
            Some(result) => through_relu(result, &gradient)?,
            None => gradient,
        };
        let g = Values::read(&gradient)?;
        let g = g.slice();
        let dx = || create(inputs[0].shape(), |dx| sizes.of_image(weight.slice(), g, dx, false));
        let dw = || create(inputs[1].shape(), |dw| sizes.of_weight(x.slice(), g, dw));
        let mut found = vec![wanted[0].then(dx), wanted[1].then(dw)];
        if self.bias {
            found.push(wanted[2].then(|| create([sizes.out], |db| sizes.of_bias(g, db))));
        }
        if self.residual {
            found.push(Some(gradient));
        }
        Some(found)
    }
}
