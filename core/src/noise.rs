//! Standard-normal noise that belongs to an image, not to a batch.
//!
//! Every number is a function of (seed, image, stream, step, position) alone, so a picture is the
//! same for every batch size, number of devices and backend. The uniform bits come from ChaCha8
//! keyed by the first four; Box–Muller with [`libm`] turns a pair of 32-bit words into a pair of
//! normals, so the bits are the same on every platform. All values lie within ±6.8: the smallest
//! uniform number is 2⁻³³, and `√(66 ln 2) = 6.76…`.
//!
//! Noise may lie between that of two seeds, [`Blend`]. It is interpolated spherically (Shoemake, SIGGRAPH 1985;
//! White, arXiv 1609.04468): `cos(θ)·a + sin(θ)·b` with θ from 0 to π/2. As a and b are independent, that is
//! standard normal at every θ, of variance `cos²θ + sin²θ = 1`. Linear interpolation, `(1 − t)·a + t·b`, has the
//! variance `(1 − t)² + t²`, 1/2 in the middle, where networks expect 1. Values of a blend lie within ±9.6, √2
//! times those of a seed.

use std::f64::consts::{FRAC_PI_2, TAU};
use std::thread;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::device::state_dtype;

/// What the noise is for; streams of one image are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// The start of the latent (or of the image in pixel models).
    Start = 0,
    /// Stochastic steps of the latent (or of the image in pixel models).
    Step = 1,
    /// The start of Hi-DiT's pixel stream.
    PixelStart = 2,
    /// Stochastic steps of Hi-DiT's pixel stream.
    PixelStep = 3,
    /// Samples of a VAE's posterior.
    Posterior = 4,
    /// Training: which items make a batch.
    Order = 5,
    /// Training: the time or noise level of an item.
    Time = 6,
    /// Training: the noise of the latent (or of the image in pixel models).
    Noise = 7,
    /// Training: the noise of Hi-DiT's pixel stream.
    PixelNoise = 8,
    /// Training: whether a label is dropped, an image flipped, cut, augmented.
    Choice = 9,
    /// Training: the seed of a network's first weights and of its dropout.
    Device = 10,
}

/// Identity of one image's noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageKey {
    /// The user's seed; any number.
    pub seed: u64,
    /// Number of the image under this seed.
    pub image: u64,
    /// Interpolation of the normals towards those of another seed, under the same number.
    pub blend: Option<Blend>,
}

/// Interpolation towards the noise of another seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blend {
    /// The other seed.
    pub seed: u64,
    /// How far towards it, 0 to 1: 0 is the noise of the image's own seed, 1 that of the other, to the bit.
    pub amount: f64,
}

impl ImageKey {
    /// The noise of one seed.
    pub const fn new(seed: u64, image: u64) -> Self {
        Self { seed, image, blend: None }
    }
}

/// The bits of one image, stream and step, of its own seed.
fn bits(key: ImageKey, stream: Stream, step: u32) -> ChaCha8Rng {
    let mut chacha_key = [0u8; 32];
    chacha_key[..8].copy_from_slice(&key.seed.to_le_bytes());
    chacha_key[8..16].copy_from_slice(&key.image.to_le_bytes());
    chacha_key[16..20].copy_from_slice(&(stream as u32).to_le_bytes());
    chacha_key[20..24].copy_from_slice(&step.to_le_bytes());
    chacha_key[24..].copy_from_slice(b"tintype1");
    ChaCha8Rng::from_seed(chacha_key)
}

/// `len` uniform numbers in 0…1 (1 excluded, multiples of 2⁻³²) of one image, stream and step. They are for training,
/// and of the image's own seed alone.
pub fn uniforms(key: ImageKey, stream: Stream, step: u32, len: usize) -> Vec<f64> {
    let mut bits = bits(key, stream, step);
    (0..len).map(|_| bits.next_u32() as f64 * SCALE).collect()
}

/// `len` standard-normal numbers of one image, stream and step, blended where the key is.
pub fn normals(key: ImageKey, stream: Stream, step: u32, len: usize) -> Vec<f32> {
    let of = |seed| seed_normals(ImageKey::new(seed, key.image), stream, step, len);
    // Between a seed and itself there is nothing else: its noise is not independent of itself.
    let Some(Blend { seed, amount }) = key.blend.filter(|blend| blend.seed != key.seed) else {
        return of(key.seed);
    };
    // The ends are exact; in floating point, cos(π/2) is not 0.
    if amount == 0.0 {
        return of(key.seed);
    }
    if amount == 1.0 {
        return of(seed);
    }
    let (sin, cos) = libm::sincos(amount * FRAC_PI_2);
    let between = |(a, b): (f32, f32)| (cos * f64::from(a) + sin * f64::from(b)) as f32;
    of(key.seed).into_iter().zip(of(seed)).map(between).collect()
}

/// Those of the image's own seed.
fn seed_normals(key: ImageKey, stream: Stream, step: u32, len: usize) -> Vec<f32> {
    let mut bits = bits(key, stream, step);
    let mut out = Vec::with_capacity(len + 1);
    while out.len() < len {
        let (a, b) = box_muller(bits.next_u32(), bits.next_u32());
        out.extend([a, b]);
    }
    out.truncate(len);
    out
}

const SCALE: f64 = 1.0 / 4_294_967_296.0; // 2⁻³²

/// Two independent normals from two uniform words.
fn box_muller(a: u32, b: u32) -> (f32, f32) {
    let radius = libm::sqrt(-2.0 * libm::log((a as f64 + 0.5) * SCALE));
    let (sin, cos) = libm::sincos(TAU * (b as f64 * SCALE));
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// The noise of a batch on a device, in the dtype of a sampler's state there ([`state_dtype`]).
///
/// # Shapes
///
/// * returns `[B, C, H, W]`, an image for each key
pub fn batch(
    keys: &[ImageKey],
    stream: Stream,
    step: u32,
    [c, h, w]: [usize; 3],
    device: &Device,
) -> Tensor<4> {
    let values = images(keys, stream, step, c * h * w);
    let data = TensorData::new(values, [keys.len(), c, h, w]);
    Tensor::from_data(data, (device, DType::from(state_dtype(device))))
}

/// Numbers below which another thread is not worth its start.
const LEAST: usize = 1 << 14;

/// [`normals`] of one image after the other, drawn by as many threads as there are cores. A browser tells of none, and
/// all are drawn by one.
fn images(keys: &[ImageKey], stream: Stream, step: u32, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; keys.len() * len];
    let draw = |keys: &[ImageKey], values: &mut [f32]| {
        for (&key, values) in keys.iter().zip(values.chunks_exact_mut(len.max(1))) {
            values.copy_from_slice(&normals(key, stream, step, len));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(values.len() / LEAST).max(1);
    let share = keys.len().div_ceil(threads);
    if share == keys.len() {
        draw(keys, &mut values);
        return values;
    }
    let draw = &draw;
    thread::scope(|scope| {
        for (keys, values) in keys.chunks(share).zip(values.chunks_mut(share * len)) {
            scope.spawn(move || draw(keys, values));
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ImageKey = ImageKey::new(7, 3);

    /// So far from the key's seed to another.
    fn blended(seed: u64, amount: f64) -> ImageKey {
        ImageKey { blend: Some(Blend { seed, amount }), ..KEY }
    }

    #[test]
    fn a_prefix_does_not_depend_on_the_length() {
        let long = normals(KEY, Stream::Step, 5, 101);
        assert_eq!(normals(KEY, Stream::Step, 5, 10), long[..10]);
        assert_eq!(normals(KEY, Stream::Step, 5, 11), long[..11]);
    }

    #[test]
    fn threads_draw_what_one_does() {
        // Shares of unequal size, in which a thread has one image or more.
        let keys: Vec<_> = (0..5).map(|image| ImageKey { image, ..KEY }).collect();
        for len in [0, 7, LEAST] {
            let expected: Vec<_> =
                keys.iter().flat_map(|&key| normals(key, Stream::Step, 5, len)).collect();
            assert_eq!(images(&keys, Stream::Step, 5, len), expected);
        }
        assert!(images(&[], Stream::Step, 5, LEAST).is_empty());
    }

    #[test]
    fn known_values() {
        // Computed by an independent ChaCha8 and Box-Muller in float64.
        let x = normals(KEY, Stream::Step, 5, 40);
        assert_eq!(x[..4], [-0.424_195_62, -0.871_288_6, 0.459_515_8, 0.452_458_68]);
        assert_eq!(x[36..], [-0.267_236_1, -1.028_136_3, 1.321_890_7, -1.227_254_4]);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = normals(KEY, Stream::Step, 5, 4);
        assert_ne!(base, normals(ImageKey { seed: 8, ..KEY }, Stream::Step, 5, 4));
        assert_ne!(base, normals(ImageKey { image: 4, ..KEY }, Stream::Step, 5, 4));
        assert_ne!(base, normals(KEY, Stream::PixelStep, 5, 4));
        assert_ne!(base, normals(KEY, Stream::Step, 6, 4));
    }

    #[test]
    fn numbers_are_bounded_and_standard_normal() {
        let x = normals(KEY, Stream::Start, 0, 1 << 18);
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| v as f64).sum::<f64>() / n;
        let moment = |p: i32| x.iter().map(|&v| (v as f64 - mean).powi(p)).sum::<f64>() / n;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.1, "fourth moment {}", moment(4));
        assert!(x.iter().all(|v| v.abs() < 6.8));
        let (largest, _) = box_muller(0, 0);
        assert!((6.76..6.77).contains(&largest), "the bound {largest}");
    }

    #[test]
    fn the_ends_of_a_blend_are_its_seeds() {
        for (stream, step) in [(Stream::Start, 0), (Stream::PixelStep, 9)] {
            let of = |key| normals(key, stream, step, 1000);
            let (own, other) = (of(KEY), of(ImageKey { seed: 8, ..KEY }));
            assert_eq!(of(blended(8, 0.0)), own);
            assert_eq!(of(blended(8, 1.0)), other);
            let middle = of(blended(8, 0.5));
            assert!(middle != own && middle != other);
            assert_eq!(of(blended(KEY.seed, 0.5)), own, "between a seed and itself");
        }
        // Training's numbers are of one seed.
        let uniform = |key| uniforms(key, Stream::Time, 0, 8);
        assert_eq!(uniform(blended(8, 0.5)), uniform(KEY));
    }

    #[test]
    fn a_blend_is_standard_normal_and_follows_its_amount() {
        let of = |key| normals(key, Stream::Start, 0, 1 << 16);
        let (own, other) = (of(KEY), of(ImageKey { seed: 8, ..KEY }));
        let mean_product = |x: &[f32], y: &[f32]| {
            x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>()
                / x.len() as f64
        };
        for amount in [0.3, 0.5, 0.9] {
            let x = of(blended(8, amount));
            let variance = mean_product(&x, &x);
            assert!((variance - 1.0).abs() < 0.02, "variance {variance} at {amount}");
            let (sin, cos) = (amount * FRAC_PI_2).sin_cos();
            for (end, expected) in [(&own, cos), (&other, sin)] {
                let found = mean_product(&x, end);
                assert!((found - expected).abs() < 0.02, "{found} for {expected} at {amount}");
            }
        }
    }

    #[test]
    fn a_blend_is_the_same_from_either_end() {
        let there = normals(blended(8, 0.25), Stream::Step, 5, 1000);
        let blend = Some(Blend { seed: KEY.seed, amount: 0.75 });
        let back = normals(ImageKey { seed: 8, blend, ..KEY }, Stream::Step, 5, 1000);
        for (x, y) in there.iter().zip(&back) {
            // One unit in the last place: 0.25 and 0.75 of π/2 are rounded apart.
            assert!((x - y).abs() <= f32::EPSILON * x.abs().max(1.0), "{x} and {y}");
        }
    }
}
