//! Reconstruction quality of an autoencoder: PSNR, SSIM, LPIPS and rFID as in LightningDiT's
//! `evaluate_tokenizer.py`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::{Autoencoder, Decoder, autoencoder_config, rae};
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{Weights, load};

use super::extraction::{ExtractedFeatures, Keep};
use super::extractor::{FeatureExtractor, Features};
use super::frechet::{self, Gaussian};
use super::reconstruction::{Plane, psnr, ssim_map};
use super::score::{Score, UNBIASED};
use crate::data::encoder::ImageEncoder;
use crate::data::store::ImageStore;
use crate::network::inception;
use crate::network::lpips::Lpips;

/// Images per update of the feature statistics.
const BLOCK: usize = 256;
/// Data range of SSIM: images are in −1…1.
const RANGE: f64 = 2.0;
/// Pairs in the comparison grid.
const SHOWN: usize = 16;

/// Evaluates the reconstructions of an autoencoder.
pub struct Reconstructor {
    autoencoder: Autoencoder,
    encoder: ImageEncoder,
    decoder: Decoder,
    lpips: Option<Lpips>,
    extractor: Option<FeatureExtractor>,
    device: Device,
    /// Seed of the posterior samples.
    seed: u64,
}

/// Reconstruction quality of a set of images.
#[derive(Debug)]
pub struct Quality {
    /// The metrics.
    pub scores: Vec<Score>,
    /// Caveats.
    pub notes: Vec<String>,
    /// Grid of the first images, each beside its reconstruction.
    pub pairs: Rgb,
}

/// Sums over images.
#[derive(Default)]
struct Sums {
    n: usize,
    psnr: f64,
    /// Images reconstructed exactly; their PSNR is infinite.
    identical: usize,
    ssim: f64,
    lpips: f64,
}

impl Reconstructor {
    /// Loads an autoencoder in float32; the halves of a RAE have the names of [`rae::as_whole`]. Without `lpips` or
    /// `extractor` their metrics are omitted.
    ///
    /// # Errors
    ///
    /// If the file lacks the encoder or the decoder, its configuration does not describe an
    /// autoencoder, or its tensors do not fit it.
    pub fn new(
        vae: &Weights,
        lpips: Option<Lpips>,
        extractor: Option<FeatureExtractor>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        ensure!(
            rae::is_decoder(vae) || !rae::is_encoder(vae),
            "{} is the encoder of a RAE; name its decoder, too",
            vae.file
        );
        let autoencoder = autoencoder_config(vae)?;
        let side = match &autoencoder {
            Autoencoder::Rae(config) => config.image_size(),
            Autoencoder::Vae(config) => config.downsampling(), // the smallest
        };
        let encoder = ImageEncoder::load(vae, side, device)?;
        if let ImageEncoder::Rae(network) = &encoder {
            let [made, taken] = [network.latent_channels(), autoencoder.latent_channels()];
            ensure!(
                made == taken,
                "{}: the encoder makes latents of {made} channels and the decoder takes {taken}",
                vae.file
            );
        }
        let half = autoencoder.decoder_part(vae.clone());
        ensure!(
            !half.tensors.is_empty(),
            "{} has no decoder; the whole autoencoder is needed",
            vae.file
        );
        let decoder =
            autoencoder.init_decoder(device).context("the autoencoder's configuration")?;
        Ok(Self {
            decoder: load(decoder, &half, FloatDType::F32, device)?.network,
            encoder,
            autoencoder,
            lpips,
            extractor,
            device: device.clone(),
            seed,
        })
    }

    /// Encodes, samples the posterior where there is one, decodes and compares the first `count` images. Returns `None`
    /// if cancelled.
    ///
    /// # Errors
    ///
    /// If the side of the images does not fit the autoencoder, or rFID is wanted of fewer than two.
    ///
    /// # Panics
    ///
    /// If `batch` is 0, `count` is over the number of images, or they are too small for LPIPS.
    pub fn run(
        &self,
        store: &ImageStore,
        count: usize,
        batch: usize,
        stop: &AtomicBool,
        progress: &dyn Fn(usize),
    ) -> Result<Option<Quality>> {
        let (side, f) = (store.side(), self.autoencoder.downsampling());
        ensure!(
            side.is_multiple_of(f),
            "the image resolution {side} is not a multiple of the autoencoder's downsampling factor {f}"
        );
        if let Some([grid, _]) = self.autoencoder.grid() {
            ensure!(
                side == grid * f,
                "the images have {side} pixels a side and the autoencoder {}",
                grid * f
            );
        }
        let mut sums = Sums::default();
        let mut extracted = [ExtractedFeatures::default(), ExtractedFeatures::default()];
        let mut pending = [Features::default(), Features::default()];
        let keep = Keep { features: count <= inception::FEATURES, ..Keep::default() };
        let mut pairs = Vec::new();
        for start in (0..count).step_by(batch) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let indices: Vec<usize> = (start..(start + batch).min(count)).collect();
            let originals: Vec<Rgb> = indices.iter().map(|&i| store.image(i)).collect();
            let restored = self.batch(store, &indices, &originals, &mut sums)?;
            if let Some(extractor) = &self.extractor {
                for (i, images) in [&originals, &restored].into_iter().enumerate() {
                    let inputs: Vec<Vec<f32>> =
                        images.par_iter().map(|image| extractor.input(image)).collect();
                    pending[i].append(extractor.extract(inputs.concat()));
                    if pending[i].len() >= BLOCK || indices.last() == Some(&(count - 1)) {
                        extracted[i].add(std::mem::take(&mut pending[i]), keep);
                    }
                }
            }
            for pair in originals.into_iter().zip(restored).take(SHOWN.saturating_sub(start)) {
                pairs.extend([pair.0, pair.1]);
            }
            progress(start + indices.len());
        }
        let mut notes = Vec::new();
        let mut scores = sums.scores(self.lpips.is_some(), &mut notes);
        if self.extractor.is_some() {
            scores.push(rfid(&extracted)?);
            if count < UNBIASED {
                notes.push(format!("rFID on {count} images is biased upwards; published values use ImageNet's {UNBIASED} validation images"));
            }
        }
        Ok(Some(Quality { scores, notes, pairs: Rgb::grid(&pairs, 8, 2) }))
    }

    /// Reconstructs a batch and adds to the sums.
    fn batch(
        &self,
        store: &ImageStore,
        indices: &[usize],
        originals: &[Rgb],
        sums: &mut Sums,
    ) -> Result<Vec<Rgb>> {
        let (b, side) = (indices.len(), store.side());
        let planes: Vec<f32> = indices.iter().flat_map(|&i| store.planes(i)).collect();
        let tensor = |values: Vec<f32>, shape: [usize; 4]| -> Tensor<4> {
            Tensor::from_data(TensorData::new(values, shape), &self.device)
        };
        let x = tensor(planes.clone(), [b, 3, side, side]);
        let z = self.encoder.latents(x.clone(), |[c, h, w]| {
            let noise = |&i: &usize| {
                let key = ImageKey::new(self.seed, i as u64);
                normals(key, Stream::Posterior, 0, c * h * w)
            };
            indices.iter().flat_map(noise).collect()
        }); // [B, C, h, w]
        let restored = self.decoder.decode(z); // [B, 3, side, side]
        if let Some(lpips) = &self.lpips {
            let values = lpips.forward(x, restored.clone()).into_data().convert::<f32>();
            sums.lpips += values.iter::<f64>().sum::<f64>();
        }
        let data = restored.into_data().convert::<f32>();
        let rounding = match &self.autoencoder {
            Autoencoder::Vae(_) => Rounding::Up,
            Autoencoder::Rae(_) => Rounding::Half,
        };
        let images = to_rgb(&data, rounding);
        let values: Vec<f32> = data.iter::<f32>().collect();
        let of_image = |i: usize| -> (f64, f64) {
            let part = i * 3 * side * side..(i + 1) * 3 * side * side;
            let ssim = ssim(&values[part.clone()], &planes[part], side);
            (psnr(&originals[i].pixels, &images[i].pixels), ssim)
        };
        let qualities: Vec<(f64, f64)> = (0..b).into_par_iter().map(of_image).collect();
        for (psnr, ssim) in qualities {
            sums.n += 1;
            sums.ssim += ssim;
            match psnr.is_finite() {
                true => sums.psnr += psnr,
                false => sums.identical += 1,
            }
        }
        Ok(images)
    }
}

impl Sums {
    fn scores(&self, lpips: bool, notes: &mut Vec<String>) -> Vec<Score> {
        let n = self.n as f64;
        let psnr = match self.n - self.identical {
            0 => f64::INFINITY,
            different => self.psnr / different as f64,
        };
        if self.identical > 0 {
            notes.push(format!(
                "{} images were reconstructed exactly; PSNR is the mean of the others",
                self.identical
            ));
        }
        let score = |key: &str, label: &str, value: f64| Score {
            key: key.into(),
            label: label.into(),
            value,
            deviation: None,
        };
        let mut scores = vec![score("psnr", "PSNR", psnr), score("ssim", "SSIM", self.ssim / n)];
        if lpips {
            scores.push(score("lpips", "LPIPS", self.lpips / n));
        }
        scores
    }
}

/// SSIM of planes `[3, side, side]`, both clamped to −1…1, over all channels and pixels.
fn ssim(restored: &[f32], original: &[f32], side: usize) -> f64 {
    let clamped = |v: &[f32]| v.iter().map(|&v| v.clamp(-1.0, 1.0) as f64).collect::<Vec<f64>>();
    let (restored, original) = (clamped(restored), clamped(original));
    let planes = restored.chunks_exact(side * side).zip(original.chunks_exact(side * side));
    let sum: f64 = planes
        .map(|(a, b)| {
            let plane = |values| Plane { values, height: side, width: side };
            ssim_map(plane(a), plane(b), RANGE).iter().sum::<f64>()
        })
        .sum();
    sum / restored.len() as f64
}

/// FID between reconstructions and originals.
fn rfid(extracted: &[ExtractedFeatures; 2]) -> Result<Score> {
    let gaussian = |set: &ExtractedFeatures| match set.features() {
        Some(features) => Ok::<_, anyhow::Error>(Gaussian::of(&features)?),
        None => Ok(Gaussian::from_statistics(&set.statistics()?)?),
    };
    let terms = frechet::terms(&gaussian(&extracted[1])?, &gaussian(&extracted[0])?)?;
    let (key, label) = ("rfid".into(), "rFID".into());
    Ok(Score { key, label, value: terms.distance(), deviation: None })
}
