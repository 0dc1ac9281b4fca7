//! The ADM centre crop with Pillow's exact 8-bit resampling (`sit_repa` §4): that of Pillow up to
//! version 12, with which the published statistics and latents were made. Pillow 13 resizes columns
//! first where the height shrinks more than the width, and then rounds to other bytes in between.

use tintype::image::Rgb;

/// Bits of Pillow's fixed-point coefficients.
const PRECISION: u32 = 32 - 8 - 2;

/// Pillow's resampling filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Mean over the covered pixels.
    Box,
    /// Linear.
    Bilinear,
    /// Keys' cubic with a = −0.5.
    Bicubic,
    /// Windowed sinc over three zeros.
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Lanczos if x.abs() < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
            Filter::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Halves the image while its shorter side is at least twice `size`, scales the shorter side to
/// `size`, and cuts the middle: a square of side `size`. Bit for bit ADM's with Pillow up to version 12.
///
/// # Panics
///
/// If a side of the image is 0.
pub fn center_crop(image: &Rgb, size: usize) -> Rgb {
    let mut image = image.clone();
    while image.width.min(image.height) >= 2 * size {
        image = resize(&image, image.width / 2, image.height / 2, Filter::Box);
    }
    let scale = size as f64 / image.width.min(image.height) as f64;
    let side = |n: usize| (n as f64 * scale).round_ties_even() as usize;
    let (width, height) = (side(image.width), side(image.height));
    let (left, top) = ((width - size) / 2, (height - size) / 2);
    // Only what is kept: of a panorama, the whole would be large.
    let columns = Axis { to: width, first: left, count: size };
    let rows = Axis { to: height, first: top, count: size };
    resize_window(&image, columns, rows, Filter::Bicubic)
}

/// A window of a resized axis.
#[derive(Clone, Copy)]
struct Axis {
    /// Length of the whole resized axis.
    to: usize,
    /// First output pixel.
    first: usize,
    /// Output pixels.
    count: usize,
}

/// Pillow's `Image.resize` up to version 12: rows first, rounded to 8 bits, then columns, whichever
/// shrinks more. (Pillow 13 begins with the columns where the height shrinks more.)
pub fn resize(image: &Rgb, width: usize, height: usize, filter: Filter) -> Rgb {
    let columns = Axis { to: width, first: 0, count: width };
    let rows = Axis { to: height, first: 0, count: height };
    resize_window(image, columns, rows, filter)
}

/// A window of [`resize`].
fn resize_window(image: &Rgb, columns: Axis, rows: Axis, filter: Filter) -> Rgb {
    let vertical = taps(image.height, rows, filter);
    // The rows of the image that the window depends on.
    let first = vertical.first().map_or(0, |tap| tap.first);
    let end = vertical.last().map_or(0, |tap| tap.first + tap.weights.len());
    let horizontal = taps(image.width, columns, filter);
    let stride = columns.count * 3;
    let mut pixels = Vec::with_capacity(stride * (end - first));
    for row in image.pixels.chunks_exact(image.width * 3).take(end).skip(first) {
        for tap in &horizontal {
            pixels.extend((0..3).map(|c| tap.apply(|i| row[i * 3 + c])));
        }
    }
    let mut out = Vec::with_capacity(stride * rows.count);
    for tap in &vertical {
        let pixel = |x: usize| tap.apply(|i| pixels[(i - first) * stride + x]);
        out.extend((0..stride).map(pixel));
    }
    Rgb { width: columns.count, height: rows.count, pixels: out }
}

/// The input pixels of one output pixel and their fixed-point weights.
struct Tap {
    first: usize,
    weights: Vec<i64>,
}

impl Tap {
    fn apply(&self, pixel: impl Fn(usize) -> u8) -> u8 {
        let start = 1i64 << (PRECISION - 1);
        let weighted = |(i, w): (usize, &i64)| w * pixel(self.first + i) as i64;
        let sum = start + self.weights.iter().enumerate().map(weighted).sum::<i64>();
        (sum >> PRECISION).clamp(0, 255) as u8
    }
}

/// The taps of a window of an axis of `from` pixels.
fn taps(from: usize, axis: Axis, filter: Filter) -> Vec<Tap> {
    if from == axis.to {
        // An axis that keeps its length is copied.
        let copy = |first| Tap { first, weights: vec![1 << PRECISION] };
        return (axis.first..axis.first + axis.count).map(copy).collect();
    }
    let scale = from as f64 / axis.to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (axis.first..axis.first + axis.count)
        .map(|x| {
            let center = (x as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |i: usize| filter.weight((i as f64 - center + 0.5) / stretch);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let total: f64 = weights.iter().sum();
            let fixed = |w: &f64| {
                let scaled = w / total * (1u64 << PRECISION) as f64;
                (scaled + 0.5f64.copysign(scaled)) as i64
            };
            Tap { first, weights: weights.iter().map(fixed).collect() }
        })
        .collect()
}
