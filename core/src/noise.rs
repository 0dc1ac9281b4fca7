//! Standard-normal noise that belongs to an image, not to a batch.
//!
//! Every number is a function of (seed, image, stream, step, position) alone, so a picture is the
//! same for every batch size, number of devices and backend. The uniform bits come from ChaCha8
//! keyed by the first four; Box–Muller with [`libm`] turns a pair of 32-bit words into a pair of
//! normals, so the bits are the same on every platform. All values lie within ±6.8: the smallest
//! uniform number is 2⁻³³, and `√(66 ln 2) = 6.76…`.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageKey {
    /// The user's seed; any number.
    pub seed: u64,
    /// Number of the image under this seed.
    pub image: u64,
}

/// The bits of one image, stream and step.
fn bits(key: ImageKey, stream: Stream, step: u32) -> ChaCha8Rng {
    let mut chacha_key = [0u8; 32];
    chacha_key[..8].copy_from_slice(&key.seed.to_le_bytes());
    chacha_key[8..16].copy_from_slice(&key.image.to_le_bytes());
    chacha_key[16..20].copy_from_slice(&(stream as u32).to_le_bytes());
    chacha_key[20..24].copy_from_slice(&step.to_le_bytes());
    chacha_key[24..].copy_from_slice(b"tintype1");
    ChaCha8Rng::from_seed(chacha_key)
}

/// `len` uniform numbers in 0…1 (1 excluded, multiples of 2⁻³²) of one image, stream and step.
pub fn uniforms(key: ImageKey, stream: Stream, step: u32, len: usize) -> Vec<f64> {
    let mut bits = bits(key, stream, step);
    (0..len).map(|_| bits.next_u32() as f64 * SCALE).collect()
}

/// `len` standard-normal numbers of one image, stream and step.
pub fn normals(key: ImageKey, stream: Stream, step: u32, len: usize) -> Vec<f32> {
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
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * (b as f64 * SCALE));
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// The noise of a batch in float64 on the state's device.
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
    let mut values = Vec::with_capacity(keys.len() * c * h * w);
    for &key in keys {
        values.extend(normals(key, stream, step, c * h * w).into_iter().map(f64::from));
    }
    Tensor::from_data(TensorData::new(values, [keys.len(), c, h, w]), (device, DType::F64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ImageKey = ImageKey { seed: 7, image: 3 };

    #[test]
    fn a_prefix_does_not_depend_on_the_length() {
        let long = normals(KEY, Stream::Step, 5, 101);
        assert_eq!(normals(KEY, Stream::Step, 5, 10), long[..10]);
        assert_eq!(normals(KEY, Stream::Step, 5, 11), long[..11]);
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
}
