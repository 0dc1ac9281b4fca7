//! A 3×3 convolution of an image that was made twice as large, each pixel four times, without the large image.
//!
//! Rows 2y and 2y + 1 of the large image are row y of the small one. So an even row of the result sees row y − 1 once and
//! row y twice, an odd one row y twice and row y + 1 once, and columns likewise. The pixels of each of the four parities
//! are a convolution of the small image with windows of 2×2, whose weights are sums: 16 products in place of 36.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

use super::convolution::Sizes;
use super::product::{Matrix, product};
use super::tensor::{Values, create};
use super::tile::Tile;
use super::vectors::vectorized;
use super::{for_each, for_each_piece, for_each_pieces};
use crate::gradient::Operation;

/// Row and column of a pixel of the result, modulo 2.
const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// `x` `[B, C, H, W]`, weight `[out, C, 3, 3]` and bias `[out]` to `[B, out, 2·H, 2·W]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpsampleConvolution;

/// The sizes of the convolution of a parity, `[B, C, H, W]` to `[B, out, H, W]`: that of the even rows and columns, from
/// which [`part`] has the others.
fn sizes(inputs: &[DispatchTensor]) -> Option<Sizes> {
    let [batch, channels, h, w] = inputs[0].shape().dims();
    let [out, of, kh, kw] = inputs[1].shape().dims();
    let (image, window) = ([h, w], [2, 2]);
    let sizes =
        Sizes { batch, channels, image, out, window, result: image, stride: 1, padding: [1, 1] };
    let fits = of == channels && [kh, kw] == [3, 3] && batch * channels * out * h * w > 0;
    fits.then_some(sizes)
}

/// The convolution of a parity: windows of even rows begin one row above, those of odd rows end one below.
fn part(sizes: Sizes, parity: [usize; 2]) -> Sizes {
    Sizes { padding: parity.map(|odd| 1 - odd), ..sizes }
}

/// The weight of the 2×2 of a parity to which each of the 3×3 is added.
fn places([row, column]: [usize; 2]) -> [usize; 9] {
    std::array::from_fn(|tap| 2 * usize::from(tap / 3 > row) + usize::from(tap % 3 > column))
}

/// The weights of each parity, `[out, C, 2, 2]`.
fn folded(weight: &[f32], channels: usize) -> [Vec<f32>; 4] {
    let mut weights = PARITIES.map(|_| vec![0.0f32; weight.len() / 9 * 4]);
    let rows = weights.each_mut().map(Vec::as_mut_slice);
    for_each_pieces(rows, [4 * channels; 4], |out, rows| {
        let (windows, _) = weight[out * channels * 9..][..channels * 9].as_chunks::<9>();
        for (row, parity) in rows.into_iter().zip(PARITIES) {
            let places = places(parity);
            let (sums, _) = row.as_chunks_mut::<4>();
            for (sums, window) in sums.iter_mut().zip(windows) {
                for tap in 0..9 {
                    sums[places[tap]] += window[tap];
                }
            }
        }
    });
    weights
}

/// The gradient of the weights from those of the parities'.
fn unfolded(parts: &[Vec<f32>; 4], dw: &mut [f32], channels: usize) {
    for_each_piece(dw, 9 * channels, |out, row| {
        row.fill(0.0);
        let (windows, _) = row.as_chunks_mut::<9>();
        for (sums, parity) in parts.iter().zip(PARITIES) {
            let places = places(parity);
            let (sums, _) = sums[out * channels * 4..][..channels * 4].as_chunks::<4>();
            for (window, sums) in windows.iter_mut().zip(sums) {
                for tap in 0..9 {
                    window[tap] += sums[places[tap]];
                }
            }
        }
    });
}

/// What `[…, 2·H, 2·W]` has at the pixels of a parity, `[…, H, W]`.
fn gathered(values: &[f32], [row, column]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let mut found = vec![0.0f32; values.len() / 4];
    for_each_piece(&mut found, height * width, |plane, found| {
        vectorized(
            #[inline(always)]
            || {
                for y in 0..height {
                    let line = 2 * (plane * height + y) + row;
                    let (pairs, _) = values[line * 2 * width..][..2 * width].as_chunks::<2>();
                    let found = &mut found[y * width..][..width];
                    for x in 0..width {
                        found[x] = pairs[x][column];
                    }
                }
            },
        );
    });
    found
}

/// `[B, out, 2·H, 2·W]`, a band of rows of the small image at a time.
fn forward(sizes: Sizes, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let (depth, columns) = (sizes.depth(), sizes.result[1]);
    let weights = folded(weight, sizes.channels);
    let (results, size) = (4 * sizes.results(), 4 * sizes.band() * columns);
    let images = out.chunks_exact_mut(sizes.out * results).enumerate();
    let pieces = images.flat_map(|(image, out)| {
        let bands = Tile::of(out, results).cut([1, results.div_ceil(size)], [1, size]);
        bands.into_iter().map(move |([_, first], out)| (image, first / (4 * columns), out))
    });
    for_each(pieces.collect(), |_, (image, first, mut out)| {
        let pixels = out.dims()[1] / 4;
        let band = first..first + pixels / columns;
        let planes = &x[image * sizes.channels * sizes.pixels()..];
        let planes = &planes[..sizes.channels * sizes.pixels()];
        let mut patches = Vec::with_capacity(depth * pixels);
        // Of even and of odd columns, [out, pixels].
        let mut halves = [0, 1].map(|_| vec![0.0f32; sizes.out * pixels]);
        for row in 0..2 {
            for column in 0..2 {
                part(sizes, [row, column]).patches(planes, &band, &mut patches);
                let weight = Matrix::new(&weights[2 * row + column], depth);
                let half = Tile::of(&mut halves[column], pixels);
                product(depth, weight, Matrix::new(&patches, pixels), 1.0, half, false);
            }
            let [even, odd] = &halves;
            vectorized(
                #[inline(always)]
                || {
                    for channel in 0..sizes.out {
                        let (bias, at) = (bias[channel], channel * pixels);
                        let lines = out.row(channel);
                        for y in 0..pixels / columns {
                            let even = &even[at + y * columns..][..columns];
                            let odd = &odd[at + y * columns..][..columns];
                            let line = &mut lines[(2 * y + row) * 2 * columns..][..2 * columns];
                            let (pairs, _) = line.as_chunks_mut::<2>();
                            for x in 0..columns {
                                pairs[x] = [even[x] + bias, odd[x] + bias];
                            }
                        }
                    }
                },
            );
        }
    });
}

impl Operation for UpsampleConvolution {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let sizes = sizes(inputs)?;
        let [x, weight, bias] = [0, 1, 2].map(|i| Values::read(&inputs[i]));
        let (x, weight, bias) = (x?, weight?, bias?);
        let (x, weight, bias) = (x.slice(), weight.slice(), bias.slice());
        if bias.len() != sizes.out {
            return None;
        }
        let [rows, columns] = sizes.result;
        let shape = [sizes.batch, sizes.out, 2 * rows, 2 * columns];
        Some((create(shape, |out| forward(sizes, x, weight, bias, out)), Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let sizes = sizes(inputs)?;
        let (x, weight) = (Values::read(&inputs[0])?, Values::read(&inputs[1])?);
        let g = Values::read(&gradient)?;
        let (x, weight, g) = (x.slice(), weight.slice(), g.slice());
        let parts = if wanted[0] || wanted[1] {
            PARITIES.map(|parity| gathered(g, parity, sizes.result))
        } else {
            Default::default()
        };
        let dx = || {
            let weights = folded(weight, sizes.channels);
            create(inputs[0].shape(), |dx| {
                for (i, parity) in PARITIES.into_iter().enumerate() {
                    part(sizes, parity).of_image(&weights[i], &parts[i], dx, i > 0);
                }
            })
        };
        let dw = || {
            let of = |i: usize| {
                let mut dw = vec![0.0f32; weight.len() / 9 * 4];
                part(sizes, PARITIES[i]).of_weight(x, &parts[i], &mut dw);
                dw
            };
            let found = std::array::from_fn(of);
            create(inputs[1].shape(), |dw| unfolded(&found, dw, sizes.channels))
        };
        let large = Sizes { result: sizes.result.map(|side| 2 * side), ..sizes };
        let db = || create([sizes.out], |db| large.of_bias(g, db));
        Some(vec![wanted[0].then(dx), wanted[1].then(dw), wanted[2].then(db)])
    }
}
