//! Latents of a representation autoencoder: cached ones, or those of images that are encoded as a network trains on them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;
use tintype::burn::tensor::{Device, Tensor};
use tintype::generate::LatentStats;

use super::epoch_sampler::SampleIndex;
use super::host::Values;
use super::latents::Latents;
use super::rae_decoder::FrozenEncoder;
use super::record::DataRecord;
use crate::data::store::ImageStore;

/// Where latents come from.
pub enum RaeLatents {
    /// Files.
    Cached(Arc<Latents>),
    /// Images, encoded on the device that trains.
    Encoded(Arc<EncodedImages>),
}

/// Images, and the frozen encoder that makes latents of them.
pub struct EncodedImages {
    images: Arc<ImageStore>,
    encoder: FrozenEncoder,
    stats: LatentStats,
}

/// What the latents of some samples are made of, in host memory.
pub enum Collated {
    /// They themselves, normalised, `[B, C, h, w]`.
    Latents(Values<4>),
    /// Images that are still to be encoded: 8-bit planes `[B, 3, side, side]`.
    Images(Arc<EncodedImages>, Vec<u8>),
}

impl EncodedImages {
    /// Images, their encoder on the device that trains, and statistics that fit latents of the shape `[C, h, w]` that is
    /// wanted.
    ///
    /// # Errors
    ///
    /// If the encoder's latents have another shape.
    pub fn new(
        images: Arc<ImageStore>,
        encoder: FrozenEncoder,
        stats: LatentStats,
        wanted: [usize; 3],
    ) -> Result<Self> {
        ensure!(
            encoder.shape == wanted,
            "the encoder's latents have shape {:?} and the network takes {wanted:?}; set data.encoder_input_size or model.in_channels",
            encoder.shape
        );
        Ok(Self { images, encoder, stats })
    }

    /// The normalised latents of images, off the graph and in float32, whatever the network computes in.
    ///
    /// # Shapes
    ///
    /// * `planes`: `[B, 3, side, side]`, 8 bits
    /// * returns `[B, C, h, w]`
    fn latents(&self, planes: &[u8], device: &Device) -> Tensor<4> {
        let side = self.images.side();
        let values: Vec<f32> = planes.par_iter().map(|&byte| f32::from(byte) / 255.0).collect();
        let shape = [planes.len() / (3 * side * side), 3, side, side];
        let images = Values::new(values, shape).tensor(device); // [B, 3, side, side]
        self.stats.normalize(self.encoder.encode(images)) // [B, C, h, w]
    }

    /// Store, weights and statistics.
    fn record(&self) -> DataRecord {
        let store = DataRecord::of_store(&self.images);
        let LatentStats { mean, std, shape } = &self.stats;
        let stats = DataRecord::new(shape.len(), [format!("{shape:?} {mean:?} {std:?}")]);
        let parts = [&store.fingerprint, &self.encoder.fingerprint, &stats.fingerprint];
        let fingerprint = parts.map(String::as_str).join("-");
        DataRecord { fingerprint, ..store }
    }
}

impl RaeLatents {
    /// Shape `[C, h, w]` of a latent.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Cached(latents) => latents.shape,
            Self::Encoded(of) => of.encoder.shape,
        }
    }

    /// The class of every item.
    pub fn labels(&self) -> &[Option<usize>] {
        match self {
            Self::Cached(latents) => &latents.labels,
            Self::Encoded(of) => of.images.labels(),
        }
    }

    /// What latents are normalised with.
    pub fn stats(&self) -> &LatentStats {
        match self {
            Self::Cached(latents) => &latents.stats,
            Self::Encoded(of) => &of.stats,
        }
    }

    /// Whether there are latents of flipped images.
    pub fn has_flips(&self) -> bool {
        match self {
            Self::Cached(latents) => latents.has_flips(),
            Self::Encoded(_) => true,
        }
    }

    /// What a run records of them.
    pub fn record(&self) -> DataRecord {
        match self {
            Self::Cached(latents) => latents.record(),
            Self::Encoded(of) => of.record(),
        }
    }

    /// Collates samples, of flipped images where that is said. Cached latents may be drawn by the seed.
    ///
    /// # Errors
    ///
    /// If a cached latent cannot be read or is not finite.
    ///
    /// # Panics
    ///
    /// If the item of a sample is not there.
    pub fn collate(&self, samples: &[SampleIndex], flips: &[bool], seed: u64) -> Result<Collated> {
        let flagged = samples.par_iter().zip(flips);
        match self {
            Self::Cached(latents) => {
                let one = |(&sample, &flipped): (&SampleIndex, &bool)| -> Result<Vec<f32>> {
                    let mut latent = latents.draw(sample, seed, flipped)?;
                    latents.stats.normalize_values(&mut latent);
                    Ok(latent)
                };
                let parts: Vec<Vec<f32>> = flagged.map(one).collect::<Result<_>>()?;
                let [c, h, w] = latents.shape;
                Ok(Collated::Latents(Values::new(parts.concat(), [samples.len(), c, h, w])))
            }
            Self::Encoded(of) => {
                let side = of.images.side();
                let one = |(sample, &flipped): (&SampleIndex, &bool)| {
                    planes(of.images.pixels(sample.item), side, flipped)
                };
                let parts: Vec<Vec<u8>> = flagged.map(one).collect();
                Ok(Collated::Images(of.clone(), parts.concat()))
            }
        }
    }
}

impl Collated {
    /// The normalised latents on a device; where they are made of images, no gradient leads there.
    ///
    /// # Shapes
    ///
    /// * returns `[B, C, h, w]`
    pub fn tensor(self, device: &Device) -> Tensor<4> {
        match self {
            Self::Latents(values) => values.tensor(device),
            Self::Images(of, planes) => {
                Tensor::from_inner(of.latents(&planes, &device.clone().inner()))
            }
        }
    }
}

/// Pixels `[side, side, 3]` as planes `[3, side, side]`, mirrored left to right if `flipped`.
fn planes(pixels: &[u8], side: usize, flipped: bool) -> Vec<u8> {
    let mut planes: Vec<u8> =
        (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).copied()).collect();
    if flipped {
        for row in planes.chunks_exact_mut(side) {
            row.reverse();
        }
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_mirrored() {
        let pixels: Vec<u8> = (0..12).collect();
        assert_eq!(planes(&pixels, 2, false), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!(planes(&pixels, 2, true), [3, 0, 9, 6, 4, 1, 10, 7, 5, 2, 11, 8]);
    }
}
