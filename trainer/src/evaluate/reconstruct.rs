//! How well an autoencoder gives images back: PSNR, SSIM, LPIPS and rFID, as LightningDiT's
//! `evaluate_tokenizer.py` measures them.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::vae_config;
use tintype::model::vavae::{VaeDecoder, VaeEncoder};
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{Weights, load};

use super::frechet::{self, Gaussian};
use super::gather::{Gathered, Keep};
use super::judge::{Judge, Rows};
use super::reconstruction::{Plane, psnr, ssim_map};
use super::score::{Score, UNBIASED};
use crate::data::store::ImageStore;
use crate::network::inception;
use crate::network::lpips::Lpips;

/// Rows that are summed at once.
const BLOCK: usize = 256;
/// SSIM's data range of images in −1…1.
const RANGE: f64 = 2.0;
/// Pairs of the picture that shows what came of it.
const SHOWN: usize = 16;

/// An autoencoder and who judges what it gives back.
pub struct Reconstructor {
    encoder: VaeEncoder,
    decoder: VaeDecoder,
    lpips: Option<Lpips>,
    judge: Option<Judge>,
    device: Device,
    /// Seed of the posterior samples.
    seed: u64,
}

/// What came of a set.
#[derive(Debug)]
pub struct Quality {
    /// The metrics.
    pub scores: Vec<Score>,
    /// What a reader of the numbers must know.
    pub notes: Vec<String>,
    /// The first originals, each beside its reconstruction.
    pub pairs: Rgb,
}

/// Sums over images.
#[derive(Default)]
struct Sums {
    n: usize,
    psnr: f64,
    /// Images that came back without any difference; their PSNR is infinite.
    identical: usize,
    ssim: f64,
    lpips: f64,
}

impl Reconstructor {
    /// Loads an autoencoder in float32. Without `lpips` or `judge` their metrics are left out.
    ///
    /// # Errors
    ///
    /// If the file lacks the encoder or the decoder, its configuration does not describe an
    /// autoencoder, or its tensors do not fit it.
    pub fn new(
        vae: &Weights,
        lpips: Option<Lpips>,
        judge: Option<Judge>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let config = vae_config(vae)?;
        let half = |names: [&str; 2]| {
            let part = vae.clone().filtered(|name| names.iter().any(|n| name.starts_with(n)));
            ensure!(
                !part.tensors.is_empty(),
                "{} has no {}; the whole autoencoder is needed",
                vae.file,
                names[0].trim_end_matches('.')
            );
            Ok(part)
        };
        let (encoder, decoder) =
            (half(["encoder.", "quant_conv."])?, half(["decoder.", "post_quant_conv."])?);
        let context = "the autoencoder's configuration";
        let (e, d) = (config.init_encoder(device), config.init_decoder(device));
        Ok(Self {
            encoder: load(e.context(context)?, &encoder, FloatDType::F32, device)?.network,
            decoder: load(d.context(context)?, &decoder, FloatDType::F32, device)?.network,
            lpips,
            judge,
            device: device.clone(),
            seed,
        })
    }

    /// Encodes, samples the posterior, decodes and compares the first `count` images; `None` where
    /// it was stopped.
    ///
    /// # Errors
    ///
    /// If rFID is wanted of fewer than two images.
    ///
    /// # Panics
    ///
    /// If `batch` is 0, `count` is over the number of images, or their side does not fit the
    /// autoencoder.
    pub fn run(
        &self,
        store: &ImageStore,
        count: usize,
        batch: usize,
        stop: &AtomicBool,
        progress: &dyn Fn(usize),
    ) -> Result<Option<Quality>> {
        let mut sums = Sums::default();
        let mut gathered = [Gathered::default(), Gathered::default()];
        let mut pending = [Rows::default(), Rows::default()];
        let keep = Keep { features: count <= inception::FEATURES, ..Keep::default() };
        let mut pairs = Vec::new();
        for start in (0..count).step_by(batch) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let indices: Vec<usize> = (start..(start + batch).min(count)).collect();
            let originals: Vec<Rgb> = indices.iter().map(|&i| store.image(i)).collect();
            let restored = self.batch(store, &indices, &originals, &mut sums)?;
            if let Some(judge) = &self.judge {
                for (i, images) in [&originals, &restored].into_iter().enumerate() {
                    let inputs: Vec<Vec<f32>> =
                        images.par_iter().map(|image| judge.input(image)).collect();
                    pending[i].append(judge.judge(inputs.concat()));
                    if pending[i].len() >= BLOCK || indices.last() == Some(&(count - 1)) {
                        gathered[i].add(std::mem::take(&mut pending[i]), keep);
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
        if self.judge.is_some() {
            scores.push(rfid(&gathered)?);
            if count < UNBIASED {
                notes.push(format!("rFID of {count} images is too high; published ones are of ImageNet's {UNBIASED} validation images"));
            }
        }
        Ok(Some(Quality { scores, notes, pairs: Rgb::grid(&pairs, 8, 2) }))
    }

    /// The reconstructions of some images.
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
        let posterior = self.encoder.encode(x.clone()); // [B, C, h, w]
        let shape = posterior.mean.dims();
        let noise = |&i: &usize| {
            let key = ImageKey { seed: self.seed, image: i as u64 };
            normals(key, Stream::Posterior, 0, shape[1..].iter().product())
        };
        let z = posterior.sample(tensor(indices.iter().flat_map(noise).collect(), shape));
        let restored = self.decoder.decode(z); // [B, 3, side, side]
        if let Some(lpips) = &self.lpips {
            let values = lpips.forward(x, restored.clone()).into_data().convert::<f32>();
            sums.lpips += values.iter::<f64>().sum::<f64>();
        }
        let data = restored.into_data().convert::<f32>();
        let pictures = to_rgb(&data, Rounding::Up);
        let values: Vec<f32> = data.iter::<f32>().collect();
        let of_image = |i: usize| -> (f64, f64) {
            let part = i * 3 * side * side..(i + 1) * 3 * side * side;
            let ssim = ssim(&values[part.clone()], &planes[part], side);
            (psnr(&originals[i].pixels, &pictures[i].pixels), ssim)
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
        Ok(pictures)
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
                "{} images came back without any difference; PSNR is of the others",
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

/// The Fréchet distance of reconstructions from their originals.
fn rfid(gathered: &[Gathered; 2]) -> Result<Score> {
    let gaussian = |set: &Gathered| match set.features() {
        Some(features) => Ok::<_, anyhow::Error>(Gaussian::of(&features)?),
        None => Ok(Gaussian::from_statistics(&set.statistics()?)?),
    };
    let terms = frechet::terms(&gaussian(&gathered[1])?, &gaussian(&gathered[0])?)?;
    let (key, label) = ("rfid".into(), "rFID".into());
    Ok(Score { key, label, value: terms.distance(), deviation: None })
}
