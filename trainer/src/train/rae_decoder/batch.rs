//! What a step needs of the host: images, and what is drawn for each.

use rayon::prelude::*;
use tintype::noise::{ImageKey, Stream, normals, uniforms};

use super::RaeDecoderLoss;
use crate::data::store::ImageStore;
use crate::train::epoch_sampler::SampleIndex;
use crate::train::host::Values;
use crate::train::random_crop::crops;

/// Host values of some samples.
pub struct Batch {
    /// Images in 0…1, `[B, 3, S, S]`.
    pub images: Values<4>,
    /// Noise of their latents; absent where τ is 0.
    pub noise: Option<Noise>,
    /// By which more is drawn for each.
    pub keys: Vec<ImageKey>,
}

impl Batch {
    /// Of samples, with crops of `side` pixels a side and latents of this shape.
    pub fn new(
        images: &ImageStore,
        samples: &[SampleIndex],
        loss: &RaeDecoderLoss,
        (side, latent): (usize, [usize; 3]),
        seed: u64,
    ) -> Self {
        let key = |sample: &SampleIndex| ImageKey::new(seed, sample.global_index);
        let keys: Vec<ImageKey> = samples.iter().map(key).collect();
        let noise = (loss.noise_tau > 0.0).then(|| Noise::drawn(&keys, latent));
        Self { images: pictures(images, samples, seed, side), noise, keys }
    }
}

/// The noise `τ·u·ε` of latents.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Uniform in 0…1, one for each image.
    pub u: Vec<f32>,
    /// Standard normal, `[B, C, h, w]`.
    pub eps: Values<4>,
}

impl Noise {
    /// That of some images, with latents of this shape.
    pub fn drawn(keys: &[ImageKey], [c, h, w]: [usize; 3]) -> Self {
        let u = keys.iter().map(|&key| uniforms(key, Stream::Time, 0, 1)[0] as f32).collect();
        let one = |&key: &ImageKey| normals(key, Stream::Noise, 0, c * h * w);
        let eps: Vec<Vec<f32>> = keys.par_iter().map(one).collect();
        Self { u, eps: Values::new(eps.concat(), [keys.len(), c, h, w]) }
    }
}

/// Random crops in 0…1, `[B, 3, side, side]`.
pub fn pictures(images: &ImageStore, samples: &[SampleIndex], seed: u64, side: usize) -> Values<4> {
    let bytes = crops(images, samples, seed, side);
    let values = bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect();
    Values::new(values, [samples.len(), 3, side, side])
}
