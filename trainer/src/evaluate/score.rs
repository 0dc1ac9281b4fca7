//! The metrics of what judges said of samples and of a reference.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, Axis};

use super::frechet::{self, Gaussian, Statistics};
use super::known::Feature;
use super::numpy::RandomState;
use super::protocol::{Metric, Protocol};
use super::{inception_score, kernel, precision_recall};

/// Samples in a chunk of ADM's Inception Score.
const ADM_CHUNK: usize = 5000;
/// Parts of the others' Inception Score.
const SPLITS: usize = 10;
/// Subsets of KID and the samples of each.
const KID: (usize, usize) = (100, 1000);
/// k-diffusion's KID is of partitions of about this many samples.
const K_DIFFUSION_MAX: usize = 5000;
/// torch-fidelity's seed.
const SEED: u32 = 2020;
/// Published Fréchet distances are of this many samples; fewer make them larger.
pub const UNBIASED: usize = 50_000;

/// What is known of a set.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// How many images were judged; `None` where only statistics are known.
    pub n: Option<usize>,
    /// Means and covariances.
    pub statistics: BTreeMap<Feature, Statistics>,
    /// Those of them that came with the file, and may be of more images than were judged.
    pub given: BTreeSet<Feature>,
    /// Features `[n, d]` of every image.
    pub features: BTreeMap<Feature, Array2<f64>>,
    /// Inception's logits without bias `[n, 1008]`.
    pub logits: Option<Array2<f64>>,
}

impl Evidence {
    /// The better of features and statistics for a Fréchet distance.
    fn gaussian(&self, feature: Feature, ridge: f64) -> Result<Gaussian> {
        let deficient = |x: &&Array2<f64>| x.nrows() <= x.ncols() && ridge == 0.0;
        if let Some(features) = self.features.get(&feature).filter(deficient)
            && !self.given.contains(&feature)
        {
            return Ok(Gaussian::from_features(features)?);
        }
        let statistics = self.statistics.get(&feature).context("there are no statistics")?;
        let mut statistics = statistics.clone();
        statistics.sigma.diag_mut().mapv_inplace(|v| v + ridge);
        Ok(Gaussian::from_statistics(&statistics)?)
    }
}

/// A measured number.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Its key in JSON: torch-fidelity's where it has one.
    pub key: String,
    /// What people call it.
    pub label: String,
    /// The number.
    pub value: f64,
    /// Its population deviation over splits or subsets.
    pub deviation: Option<f64>,
}

fn score(key: &str, label: &str, value: f64, deviation: Option<f64>) -> Score {
    Score { key: key.into(), label: label.into(), value, deviation }
}

/// All metrics, and what a reader of the numbers must know. `subsets` asks for Fréchet distances of
/// that many disjoint random parts, too.
///
/// # Errors
///
/// * A metric needs images or logits, and only statistics are known.
/// * Samples and reference have features of different width, or too few for a covariance.
/// * There are fewer than two parts, or parts of fewer than two samples.
pub fn scores(
    protocol: Protocol,
    metrics: &[Metric],
    samples: &Evidence,
    reference: &Evidence,
    subsets: Option<usize>,
) -> Result<(Vec<Score>, Vec<String>)> {
    let (mut scores, mut notes) = (Vec::new(), Vec::new());
    for &metric in metrics {
        let kind = metric.kind();
        let features = |set: &Evidence| {
            set.features.get(&Feature::Of(kind)).cloned().with_context(|| {
                format!("{} needs images, and there are only statistics", metric.name())
            })
        };
        match metric {
            Metric::Fid | Metric::Sfid | Metric::FdDinov2 | Metric::FdClip => {
                let (feature, key) = match metric {
                    Metric::Fid => (Feature::Of(kind), "frechet_inception_distance"),
                    Metric::Sfid => (Feature::Spatial, "sfid"),
                    Metric::FdDinov2 => (Feature::Of(kind), "frechet_distance_dinov2"),
                    _ => (Feature::Of(kind), "frechet_distance_clip"),
                };
                let label = metric.label();
                let of_reference = reference.gaussian(feature, protocol.ridge())?;
                let of_samples = samples.gaussian(feature, protocol.ridge())?;
                let distance = frechet::terms(&of_samples, &of_reference)?.distance();
                scores.push(score(key, label, distance, None));
                if let Some(parts) = subsets.filter(|_| metric != Metric::Sfid) {
                    let x = features(samples)?;
                    let (mean, deviation) = of_subsets(&x, &of_reference, parts, protocol.ridge())?;
                    let label = format!("{label}, {parts} parts of {}", x.nrows() / parts);
                    let key = format!("{key}_subsets");
                    scores.push(score(&key, &label, mean, Some(deviation)));
                }
            }
            Metric::Is => {
                let logits = samples.logits.as_ref().context("there are no logits")?;
                let splits = SPLITS.min(logits.nrows());
                let (mean, deviation) = match protocol {
                    Protocol::Adm => (inception_score::chunked(logits, ADM_CHUNK), None),
                    Protocol::Edm2 => with_some(inception_score::split(logits, splits, None)),
                    _ => with_some(inception_score::split(logits, splits, Some(SEED))),
                };
                scores.push(score("inception_score", metric.label(), mean, deviation));
            }
            Metric::Pr => {
                let (of_reference, of_samples) = (features(reference)?, features(samples)?);
                let k = precision_recall::NEIGHBOURS;
                let (p, r) = precision_recall::precision_recall(&of_reference, &of_samples, k);
                scores.push(score("precision", "Precision", p, None));
                scores.push(score("recall", "Recall", r, None));
                if protocol == Protocol::TorchFidelity {
                    let f = 2.0 * p * r / (p + r).max(1e-5);
                    scores.push(score("f_score", "F-score", f, None));
                }
            }
            Metric::Kid | Metric::KdDinov2 | Metric::KdClip => {
                let key = match metric {
                    Metric::Kid => "kernel_inception_distance",
                    Metric::KdDinov2 => "kernel_distance_dinov2",
                    _ => "kernel_distance_clip",
                };
                let label = metric.label();
                let (x, y) = (features(samples)?, features(reference)?);
                ensure!(x.ncols() == y.ncols(), frechet::FrechetError::Sizes(x.ncols(), y.ncols()));
                let (value, deviation) = if protocol == Protocol::KDiffusion {
                    (kernel::distance(&x, &y, K_DIFFUSION_MAX), None)
                } else {
                    let (parts, wanted) = KID;
                    let size = wanted.min(x.nrows()).min(y.nrows());
                    if size < wanted {
                        notes.push(format!(
                            "{label} is of subsets of {size} images; published ones are of {wanted}"
                        ));
                    }
                    with_some(kernel::subset_distance(&x, &y, parts, size, SEED))
                };
                scores.push(score(key, label, value, deviation));
            }
        }
    }
    notes.extend(bias(metrics, samples));
    Ok((scores, notes))
}

fn with_some((mean, deviation): (f64, f64)) -> (f64, Option<f64>) {
    (mean, Some(deviation))
}

/// Mean and deviation of the distances of disjoint random parts.
fn of_subsets(
    features: &Array2<f64>,
    reference: &Gaussian,
    parts: usize,
    ridge: f64,
) -> Result<(f64, f64)> {
    let size = features.nrows() / parts.max(1);
    ensure!(
        parts >= 2 && size >= 2,
        "--subsets {parts} is not between 2 and half of the {} samples",
        features.nrows()
    );
    let order = RandomState::new(SEED).permutation(features.nrows());
    let distances = order.chunks_exact(size).take(parts).map(|part| -> Result<f64> {
        let part = features.select(Axis(0), part);
        let gaussian = match ridge {
            0.0 => Gaussian::of(&part)?,
            _ => Gaussian::from_statistics(&frechet::statistics(&part, ridge))?,
        };
        Ok(frechet::terms(&gaussian, reference)?.distance())
    });
    let distances = distances.collect::<Result<Vec<f64>>>()?;
    Ok(tintype_metrics::mean_and_deviation(&distances))
}

/// Fréchet distances grow as samples become fewer.
fn bias(metrics: &[Metric], samples: &Evidence) -> Option<String> {
    let n = samples.n.filter(|&n| n < UNBIASED)?;
    let named: Vec<&str> = metrics.iter().filter(|m| m.is_frechet()).map(|m| m.label()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "{} of {n} samples is too high: it falls as samples are added, so compare it only with values at the same number (published ones are at {UNBIASED})",
            named.join(", ")
        )
    })
}
