//! Samples of a batch in host memory, the same for latents and pixels.

use anyhow::Result;
use rayon::prelude::*;
use tintype::noise::{ImageKey, Stream, normals};

use super::draws::{Draw, Matched, MeanFlowLoss};
use crate::train::epoch_sampler::SampleIndex;
use crate::train::host::Values;

/// Host values of some samples. Those with r = t come first.
pub struct Batch {
    /// Data x, normalised latents or pixels in −1…1, `[B, C, S, S]`.
    pub data: Values<4>,
    /// Noise e, of the standard deviation that the network was made for.
    pub noise: Values<4>,
    /// What is drawn.
    pub draws: Vec<Draw>,
    /// Classes; the null class for a sample without one.
    pub labels: Vec<usize>,
    /// Samples that are told the null class, and whose target is not guided.
    pub dropped: Vec<bool>,
    /// The null class.
    pub null_class: usize,
    /// One over the global batch.
    pub weight: f64,
}

/// How the samples of a network are made.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Settings of the draws.
    pub settings: &'a MeanFlowLoss,
    /// The times of samples that learn the velocity itself.
    pub matched: Matched,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Shape of a state `[C, S, S]`.
    pub shape: [usize; 3],
    /// Standard deviation of the noise.
    pub noise_scale: f64,
    /// The null class.
    pub null_class: usize,
}

impl Batch {
    /// `samples` of a global batch of size `batch` at `step`; `data` gives the values and the class of one.
    ///
    /// # Errors
    ///
    /// If `data` fails.
    pub fn new(
        making: Making<'_>,
        samples: &[SampleIndex],
        (step, batch): (u64, usize),
        data: impl Fn(SampleIndex) -> Result<(Vec<f32>, Option<usize>)> + Sync,
    ) -> Result<Self> {
        let Making { settings, matched, seed, shape: [c, h, w], noise_scale, null_class } = making;
        let matching = settings.matching(batch);
        let drops = settings.dropped(seed, step, batch);
        let one = |&sample: &SampleIndex| -> Result<_> {
            let key = ImageKey::new(seed, sample.global_index);
            let (values, label) = data(sample)?;
            let mut noise = normals(key, Stream::Noise, 0, c * h * w);
            for e in &mut noise {
                *e *= noise_scale as f32;
            }
            let draw = Draw::new(settings, matched, key, sample.index < matching);
            let is_dropped = sample.index < drops || label.is_none();
            Ok((values, noise, draw, label.unwrap_or(null_class), is_dropped))
        };
        let parts: Vec<_> = samples.par_iter().map(one).collect::<Result<_>>()?;
        let shape = [samples.len(), c, h, w];
        let (mut data, mut noise, mut draws) = (Vec::new(), Vec::new(), Vec::new());
        let (mut labels, mut dropped) = (Vec::new(), Vec::new());
        for (values, eps, draw, label, is_dropped) in parts {
            data.extend(values);
            noise.extend(eps);
            draws.push(draw);
            labels.push(label);
            dropped.push(is_dropped);
        }
        Ok(Self {
            data: Values::new(data, shape),
            noise: Values::new(noise, shape),
            draws,
            labels,
            dropped,
            null_class,
            weight: 1.0 / batch as f64,
        })
    }
}
