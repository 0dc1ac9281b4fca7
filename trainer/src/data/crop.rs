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
    let image = resize(&image, side(image.width), side(image.height), Filter::Bicubic);
    let (left, top) = ((image.width - size) / 2, (image.height - size) / 2);
    let mut crop = Rgb { width: size, height: size, pixels: Vec::with_capacity(size * size * 3) };
    for row in top..top + size {
        let start = (row * image.width + left) * 3;
        crop.pixels.extend_from_slice(&image.pixels[start..start + size * 3]);
    }
    crop
}

/// Pillow's `Image.resize` up to version 12: rows first, rounded to 8 bits, then columns, whichever
/// shrinks more. (Pillow 13 begins with the columns where the height shrinks more.)
pub fn resize(image: &Rgb, width: usize, height: usize, filter: Filter) -> Rgb {
    let mut out = image.clone();
    if width != image.width {
        let taps = taps(image.width, width, filter);
        let mut pixels = Vec::with_capacity(width * image.height * 3);
        for row in image.pixels.chunks_exact(image.width * 3) {
            for tap in &taps {
                pixels.extend((0..3).map(|c| tap.apply(|i| row[i * 3 + c])));
            }
        }
        out = Rgb { width, height: image.height, pixels };
    }
    if height != image.height {
        let taps = taps(image.height, height, filter);
        let stride = out.width * 3;
        let mut pixels = Vec::with_capacity(stride * height);
        for tap in &taps {
            pixels.extend((0..stride).map(|x| tap.apply(|i| out.pixels[i * stride + x])));
        }
        out = Rgb { width: out.width, height, pixels };
    }
    out
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

fn taps(from: usize, to: usize, filter: Filter) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..to)
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
