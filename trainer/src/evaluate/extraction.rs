//! Feature extraction over a set of images: in shards, cached on disk if a cache is given, and
//! distributed over processes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView2};
use rayon::prelude::*;
use tintype::image::Rgb;

use super::cache::Cache;
use super::extractor::{FeatureExtractor, Features};
use super::frechet::{Accumulator, Statistics};
use super::images::Images;
use crate::patience::Patience;
use crate::rank::Rank;

/// Images per shard, the unit of caching.
const PART: usize = 1000;
/// Prefetched batches.
const AHEAD: usize = 2;

/// Which per-image outputs are kept in memory; sums for the statistics always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The features of every image.
    pub features: bool,
    /// Inception's spatial features of every image.
    pub spatial: bool,
    /// The logits of every image.
    pub logits: bool,
}

/// Features of a set of images from one extractor: accumulated statistics and, if kept, per-image
/// features.
#[derive(Clone, Debug, Default)]
pub struct ExtractedFeatures {
    /// Number of images.
    pub n: usize,
    moments: Option<Accumulator>,
    spatial: Option<Accumulator>,
    kept: Features,
}

impl ExtractedFeatures {
    /// Widths and heights of the images.
    pub fn sizes(&self) -> &BTreeSet<[usize; 2]> {
        &self.kept.sizes
    }

    /// Adds the features of more images.
    ///
    /// # Panics
    ///
    /// If the rows are of another width than those before.
    pub fn add(&mut self, rows: Features, keep: Keep) {
        let [d, s, l] = rows.widths;
        self.n += rows.len();
        add_to(&mut self.moments, &rows.features, d);
        if s > 0 {
            add_to(&mut self.spatial, &rows.spatial, s);
        }
        self.kept.append(Features {
            features: if keep.features { rows.features } else { Vec::new() },
            spatial: if keep.spatial { rows.spatial } else { Vec::new() },
            logits: if keep.logits { rows.logits } else { Vec::new() },
            widths: [d, s, l],
            sizes: rows.sizes,
        });
    }

    /// Mean and covariance of the features.
    ///
    /// # Errors
    ///
    /// If there are fewer than two images.
    pub fn statistics(&self) -> Result<Statistics> {
        let moments = self.moments.as_ref().context("no features were extracted")?;
        Ok(moments.statistics()?)
    }

    /// Mean and covariance of Inception's spatial features.
    ///
    /// # Errors
    ///
    /// If there is only one image.
    pub fn spatial_statistics(&self) -> Option<Result<Statistics>> {
        self.spatial.as_ref().map(|spatial| Ok(spatial.statistics()?))
    }

    /// The features `[n, d]`, if they were kept.
    pub fn features(&self) -> Option<Array2<f64>> {
        matrix(&self.kept.features, self.kept.widths[0])
    }

    /// Inception's spatial features `[n, 2023]`, if they were kept.
    pub fn spatial_features(&self) -> Option<Array2<f64>> {
        matrix(&self.kept.spatial, self.kept.widths[1])
    }

    /// The logits `[n, 1008]`, if they were kept.
    pub fn logits(&self) -> Option<Array2<f64>> {
        matrix(&self.kept.logits, self.kept.widths[2])
    }
}

fn add_to(sums: &mut Option<Accumulator>, rows: &[f32], width: usize) {
    let Some(rows) = matrix(rows, width) else { return };
    let shift = || rows.mean_axis(ndarray::Axis(0)).unwrap_or_else(|| Array1::zeros(width));
    let sums = sums.get_or_insert_with(|| Accumulator::new(shift()));
    sums.add(rows.view());
}

fn matrix(rows: &[f32], width: usize) -> Option<Array2<f64>> {
    if rows.is_empty() || width == 0 {
        return None;
    }
    let rows = ArrayView2::from_shape((rows.len() / width, width), rows).ok()?;
    Some(rows.mapv(f64::from))
}

/// The plan of a feature extraction.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Number of images.
    pub n: usize,
    /// Feature extractors.
    pub extractors: &'a [FeatureExtractor],
    /// Which per-image outputs are kept.
    pub keep: Keep,
    /// Feature cache.
    pub cache: Option<&'a Cache>,
    /// This process.
    pub rank: Rank,
}

/// Result of a feature extraction.
#[derive(Debug)]
pub enum Outcome {
    /// Features of each extractor.
    Done(Vec<ExtractedFeatures>),
    /// This rank is done; rank 0 has the result.
    Partial,
    /// It was cancelled.
    Stopped,
}

impl Plan<'_> {
    fn parts(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let n = self.n;
        (0..n.div_ceil(PART)).map(move |part| (part, part * PART..((part + 1) * PART).min(n)))
    }

    /// Index ranges of the shards that this rank still has to extract.
    ///
    /// # Panics
    ///
    /// If the world size is 0.
    pub fn missing(&self) -> Vec<Range<usize>> {
        let mine = |part: usize| part % self.rank.world == self.rank.rank;
        let there = |part: usize| self.cache.is_some_and(|cache| cache.has(self.extractors, part));
        self.parts().filter(|(part, _)| mine(*part) && !there(*part)).map(|(_, r)| r).collect()
    }

    /// Extracts the shards that are [`missing`](Self::missing) and merges all of them. `extract` is called with each of
    /// their ranges in order and returns `None` if it was cancelled. Whoever prepares its work from the ranges passes
    /// the same ones: others may finish a shard meanwhile.
    ///
    /// # Errors
    ///
    /// * Several processes share the work and there is no cache.
    /// * `extract` fails
    /// * A part of the cache cannot be written or read, is damaged, or was made from something else.
    /// * Parts of other processes do not come ([`GaveUp`](crate::patience::GaveUp)).
    pub fn run(
        &self,
        missing: &[Range<usize>],
        stop: &AtomicBool,
        extract: &mut dyn FnMut(Range<usize>) -> Result<Option<Vec<Features>>>,
    ) -> Result<Outcome> {
        ensure!(
            self.rank.world == 1 || self.cache.is_some(),
            "evaluation in several processes needs --cache FOLDER"
        );
        if let (1, Some(cache)) = (self.rank.world, self.cache) {
            cache.sweep(self.extractors)?;
        }
        let mut all = vec![ExtractedFeatures::default(); self.extractors.len()];
        for range in missing {
            let part = range.start / PART;
            let Some(rows) = extract(range.clone())? else { return Ok(Outcome::Stopped) };
            for ((extractor, rows), extracted) in self.extractors.iter().zip(rows).zip(&mut all) {
                match self.cache {
                    Some(cache) => cache.write(extractor, part, &rows)?,
                    None => extracted.add(rows, self.keep),
                }
            }
        }
        let Some(cache) = self.cache else { return Ok(Outcome::Done(all)) };
        if self.rank.rank > 0 {
            return Ok(Outcome::Partial);
        }
        let mut patience = Patience::from_environment();
        for (part, range) in self.parts() {
            while !cache.has(self.extractors, part) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(Outcome::Stopped);
                }
                let missing: Vec<usize> = self
                    .parts()
                    .map(|(part, _)| part)
                    .filter(|part| !cache.has(self.extractors, *part))
                    .collect();
                patience.check(missing.len(), || {
                    let of = |part: &usize| (cache.name(*part), part % self.rank.world);
                    missing.iter().map(of).collect()
                })?;
                std::thread::sleep(Duration::from_millis(200)); // another rank extracts it
            }
            for (extractor, extracted) in self.extractors.iter().zip(&mut all) {
                extracted.add(cache.read(extractor, part, range.len())?, self.keep);
            }
        }
        Ok(Outcome::Done(all))
    }

    /// Extracts features of images; another thread reads, decodes and resizes while the device
    /// computes.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and if an image cannot be read or decoded.
    ///
    /// # Panics
    ///
    /// If `batch` is 0.
    pub fn extract_images(
        &self,
        images: &Images,
        batch: usize,
        stop: &AtomicBool,
        progress: &dyn Fn(usize),
    ) -> Result<Outcome> {
        let missing = self.missing();
        let missing = missing.as_slice();
        let there = self.n - missing.iter().map(Range::len).sum::<usize>();
        std::thread::scope(|scope| {
            let (sender, batches) = sync_channel::<Result<Inputs>>(AHEAD);
            scope.spawn(move || {
                let cut = |part: &Range<usize>| {
                    let end = part.end;
                    part.clone().step_by(batch).map(move |i| i..(i + batch).min(end))
                };
                for range in missing.iter().flat_map(cut) {
                    let inputs = images.read(range).map(|images| self.inputs(&images));
                    let failed = inputs.is_err();
                    if sender.send(inputs).is_err() || failed {
                        return;
                    }
                }
            });
            let mut done = there;
            self.run(missing, stop, &mut |range| {
                let mut rows = vec![Features::default(); self.extractors.len()];
                let mut left = range.len();
                while left > 0 {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    let inputs = batches.recv().context("the thread that loads images ended")??;
                    left -= inputs.n;
                    done += inputs.n;
                    for (rows, new) in rows.iter_mut().zip(self.extract(inputs)) {
                        rows.append(new);
                    }
                    progress(done);
                }
                Ok(Some(rows))
            })
        })
    }

    /// Preprocesses images for each extractor.
    fn inputs(&self, images: &[Rgb]) -> Inputs {
        let of = |extractor: &FeatureExtractor| {
            let parts: Vec<Vec<f32>> =
                images.par_iter().map(|image| extractor.input(image)).collect();
            parts.concat()
        };
        Inputs {
            n: images.len(),
            sizes: images.iter().map(|image| [image.width, image.height]).collect(),
            values: self.extractors.iter().map(of).collect(),
        }
    }

    fn extract(&self, inputs: Inputs) -> Vec<Features> {
        let rows = |(extractor, values): (&FeatureExtractor, Vec<f32>)| Features {
            sizes: inputs.sizes.clone(),
            ..extractor.extract(values)
        };
        self.extractors.iter().zip(inputs.values).map(rows).collect()
    }

    /// Extracts features of a batch of images.
    pub fn extract_features(&self, images: &[Rgb]) -> Vec<Features> {
        self.extract(self.inputs(images))
    }
}

/// Preprocessed images.
struct Inputs {
    n: usize,
    sizes: BTreeSet<[usize; 2]>,
    /// Inputs of each extractor.
    values: Vec<Vec<f32>>,
}
