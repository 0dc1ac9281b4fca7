//! What judges say of a whole set of images: gathered part by part, kept in a cache if there is one,
//! shared among processes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView2};
use rayon::prelude::*;
use tintype::image::Rgb;
use tintype::weights::{TensorView, open, write_safetensors};

use super::frechet::{Accumulator, Statistics};
use super::images::Images;
use super::judge::{Judge, Rows};
use crate::rank::Rank;
use tintype::files::write_whole;

/// Images of a part, which is what a kill loses.
const PART: usize = 1000;
/// Batches that wait for the device.
const AHEAD: usize = 2;
const NAMES: [&str; 3] = ["features", "spatial", "logits"];

/// What is kept of the rows; sums always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The features of every image.
    pub features: bool,
    /// Inception's spatial features of every image.
    pub spatial: bool,
    /// The logits of every image.
    pub logits: bool,
}

/// What a judge said of a set.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// How many images it saw.
    pub n: usize,
    moments: Option<Accumulator>,
    spatial: Option<Accumulator>,
    kept: Rows,
}

impl Gathered {
    /// Widths and heights of the images.
    pub fn sizes(&self) -> &BTreeSet<[usize; 2]> {
        &self.kept.sizes
    }

    /// Adds what the judge says of more images.
    ///
    /// # Panics
    ///
    /// If the rows are of another width than those before.
    pub fn add(&mut self, rows: Rows, keep: Keep) {
        let [d, s, l] = rows.widths;
        self.n += rows.len();
        add_to(&mut self.moments, &rows.features, d);
        if s > 0 {
            add_to(&mut self.spatial, &rows.spatial, s);
        }
        self.kept.append(Rows {
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
    /// If no image was judged, or only one.
    pub fn statistics(&self) -> Result<Statistics> {
        let moments = self.moments.as_ref().context("no image was judged")?;
        Ok(moments.statistics()?)
    }

    /// Mean and covariance of Inception's spatial features.
    ///
    /// # Errors
    ///
    /// If only one image was judged.
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

/// A folder of judged parts.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The place of a set's rows in `root`.
    pub fn new(root: &Path, set: &str) -> Self {
        Self { folder: root.join(set) }
    }

    fn file(&self, judge: &Judge, part: usize) -> PathBuf {
        self.folder.join(judge.key()).join(format!("part_{part:05}.safetensors"))
    }

    fn has(&self, judges: &[Judge], part: usize) -> bool {
        judges.iter().all(|judge| self.file(judge, part).exists())
    }

    fn write(&self, judge: &Judge, part: usize, rows: &Rows) -> Result<()> {
        let path = self.file(judge, part);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--cache {} cannot be written", folder.display()))?;
        let mut tensors = BTreeMap::new();
        for ((name, values), width) in
            NAMES.iter().zip([&rows.features, &rows.spatial, &rows.logits]).zip(rows.widths)
        {
            if let Some(n) = values.len().checked_div(width) {
                let view = TensorView::from_f32(vec![n, width], values);
                tensors.insert(name.to_string(), view.map_err(anyhow::Error::msg)?);
            }
        }
        let metadata = BTreeMap::from([("sizes".into(), serde_json::to_string(&rows.sizes)?)]);
        let bytes = write_safetensors(&tensors, &metadata).map_err(anyhow::Error::msg)?;
        Ok(write_whole(&path, &bytes)?)
    }

    fn read(&self, judge: &Judge, part: usize, n: usize) -> Result<Rows> {
        let path = self.file(judge, part);
        let file = open(&path)?;
        let mut rows = Rows::default();
        let parts = [&mut rows.features, &mut rows.spatial, &mut rows.logits];
        for (i, (name, values)) in NAMES.iter().zip(parts).enumerate() {
            if let Some(view) = file.tensors.get(*name) {
                *values = view.to_f32();
                rows.widths[i] = view.shape.last().copied().unwrap_or(0);
            }
        }
        let sizes = file.metadata.get("sizes").and_then(|text| serde_json::from_str(text).ok());
        rows.sizes = sizes.unwrap_or_default();
        ensure!(rows.len() == n, "{} is damaged; delete it", path.display());
        Ok(rows)
    }
}

/// A set to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Images of the set.
    pub n: usize,
    /// Who judges.
    pub judges: &'a [Judge],
    /// What is kept.
    pub keep: Keep,
    /// Where parts are kept.
    pub cache: Option<&'a Cache>,
    /// This process.
    pub rank: Rank,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// What each judge said.
    Done(Vec<Gathered>),
    /// This process is done; the first one has the result.
    Partial,
    /// It was stopped.
    Stopped,
}

impl Plan<'_> {
    fn parts(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let n = self.n;
        (0..n.div_ceil(PART)).map(move |part| (part, part * PART..((part + 1) * PART).min(n)))
    }

    /// The parts that this process must have judged.
    ///
    /// # Panics
    ///
    /// If the world size is 0.
    pub fn missing(&self) -> Vec<Range<usize>> {
        let mine = |part: usize| part % self.rank.world == self.rank.rank;
        let there = |part: usize| self.cache.is_some_and(|cache| cache.has(self.judges, part));
        self.parts().filter(|(part, _)| mine(*part) && !there(*part)).map(|(_, r)| r).collect()
    }

    /// Judges what is missing and brings everything together. `judged` is asked for the rows of
    /// each of the [`missing`](Self::missing) parts in order, and says nothing where it was
    /// stopped.
    ///
    /// # Errors
    ///
    /// * Several processes share the work and there is no cache.
    /// * `judged` fails.
    /// * A part of the cache cannot be written or read, or is damaged.
    pub fn gather(
        &self,
        stop: &AtomicBool,
        judged: &mut dyn FnMut(Range<usize>) -> Result<Option<Vec<Rows>>>,
    ) -> Result<Outcome> {
        ensure!(
            self.rank.world == 1 || self.cache.is_some(),
            "several processes share their work through --cache FOLDER"
        );
        let mut all = vec![Gathered::default(); self.judges.len()];
        let missing = self.missing();
        for range in missing {
            let part = range.start / PART;
            let Some(rows) = judged(range)? else { return Ok(Outcome::Stopped) };
            for ((judge, rows), gathered) in self.judges.iter().zip(rows).zip(&mut all) {
                match self.cache {
                    Some(cache) => cache.write(judge, part, &rows)?,
                    None => gathered.add(rows, self.keep),
                }
            }
        }
        let Some(cache) = self.cache else { return Ok(Outcome::Done(all)) };
        if self.rank.rank > 0 {
            return Ok(Outcome::Partial);
        }
        for (part, range) in self.parts() {
            while !cache.has(self.judges, part) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(Outcome::Stopped);
                }
                std::thread::sleep(Duration::from_millis(200)); // another process is at it
            }
            for (judge, gathered) in self.judges.iter().zip(&mut all) {
                gathered.add(cache.read(judge, part, range.len())?, self.keep);
            }
        }
        Ok(Outcome::Done(all))
    }

    /// Judges images; another thread reads, decodes and resizes while the device computes.
    ///
    /// # Errors
    ///
    /// As [`gather`](Self::gather), and if an image cannot be read or decoded.
    ///
    /// # Panics
    ///
    /// If `batch` is 0.
    pub fn judge_images(
        &self,
        images: &Images,
        batch: usize,
        stop: &AtomicBool,
        progress: &dyn Fn(usize),
    ) -> Result<Outcome> {
        let missing = self.missing();
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
            self.gather(stop, &mut |range| {
                let mut rows = vec![Rows::default(); self.judges.len()];
                let mut left = range.len();
                while left > 0 {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    let inputs = batches.recv().context("the thread that loads images ended")??;
                    left -= inputs.n;
                    done += inputs.n;
                    for (rows, new) in rows.iter_mut().zip(self.judge(inputs)) {
                        rows.append(new);
                    }
                    progress(done);
                }
                Ok(Some(rows))
            })
        })
    }

    /// Images as each judge sees them.
    fn inputs(&self, images: &[Rgb]) -> Inputs {
        let of = |judge: &Judge| {
            let parts: Vec<Vec<f32>> = images.par_iter().map(|image| judge.input(image)).collect();
            parts.concat()
        };
        Inputs {
            n: images.len(),
            sizes: images.iter().map(|image| [image.width, image.height]).collect(),
            of_judges: self.judges.iter().map(of).collect(),
        }
    }

    fn judge(&self, inputs: Inputs) -> Vec<Rows> {
        let rows = |(judge, values): (&Judge, Vec<f32>)| Rows {
            sizes: inputs.sizes.clone(),
            ..judge.judge(values)
        };
        self.judges.iter().zip(inputs.of_judges).map(rows).collect()
    }

    /// What each judge says of a few images.
    pub fn judge_now(&self, images: &[Rgb]) -> Vec<Rows> {
        self.judge(self.inputs(images))
    }
}

/// Prepared images.
struct Inputs {
    n: usize,
    sizes: BTreeSet<[usize; 2]>,
    of_judges: Vec<Vec<f32>>,
}
