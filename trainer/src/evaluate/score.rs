//! Metrics from the features of samples and of a reference.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, Axis};

use super::eval_set::FeatureSpace;
use super::frechet::{self, Gaussian, Statistics};
use super::numpy::RandomState;
use super::protocol::{Metric, Protocol};
use super::{inception_score, kernel, precision_recall};

/// Samples per chunk of ADM's Inception Score.
const ADM_CHUNK: usize = 5000;
/// Splits of the Inception Score in the other protocols.
const SPLITS: usize = 10;
/// Number and size of KID's subsets.
const KID: (usize, usize) = (100, 1000);
/// Maximum partition size of k-diffusion's KID.
const K_DIFFUSION_MAX: usize = 5000;
/// torch-fidelity's seed.
const SEED: u32 = 2020;
/// Number of samples of published Fréchet distances; fewer samples bias them upwards.
pub const UNBIASED: usize = 50_000;

/// Features and statistics of a set.
#[derive(Clone, Debug, Default)]
pub struct SetFeatures {
    /// Number of images; `None` if only precomputed statistics are available.
    pub n: Option<usize>,
    /// Mean and covariance.
    pub statistics: BTreeMap<FeatureSpace, Statistics>,
    /// Which of the statistics were precomputed; these may be of more images than `n`.
    pub given: BTreeSet<FeatureSpace>,
    /// Features `[n, d]` of every image.
    pub features: BTreeMap<FeatureSpace, Array2<f64>>,
    /// Inception's logits without bias `[n, 1008]`.
    pub logits: Option<Array2<f64>>,
}

impl SetFeatures {
    /// The Gaussian of a Fréchet distance: from the features if the covariance is rank-deficient,
    /// else from the statistics.
    fn gaussian(&self, feature: FeatureSpace, ridge: f64) -> Result<Gaussian> {
        let deficient = |x: &&Array2<f64>| x.nrows() <= x.ncols() && ridge == 0.0;
        if let Some(features) = self.features.get(&feature).filter(deficient)
            && !self.given.contains(&feature)
        {
            return Ok(Gaussian::from_features(features)?);
        }
        let statistics = self.statistics.get(&feature).context("statistics are missing")?;
        let mut statistics = statistics.clone();
        statistics.sigma.diag_mut().mapv_inplace(|v| v + ridge);
        Ok(Gaussian::from_statistics(&statistics)?)
    }
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// JSON key: torch-fidelity's if it exists.
    pub key: String,
    /// Display name.
    pub label: String,
    /// Value.
    pub value: f64,
    /// Population standard deviation over splits or subsets.
    pub deviation: Option<f64>,
}

fn score(key: &str, label: &str, value: f64, deviation: Option<f64>) -> Score {
    Score { key: key.into(), label: label.into(), value, deviation }
}

/// Computes all metrics; returns scores and caveats. `subsets` adds Fréchet distances of that many
/// disjoint random subsets.
///
/// # Errors
///
/// * A metric needs images or logits, and only statistics are known.
/// * Samples and reference have features of different width, or too few for a covariance.
/// * There are fewer than two parts, or parts of fewer than two samples.
pub fn scores(
    protocol: Protocol,
    metrics: &[Metric],
    samples: &SetFeatures,
    reference: &SetFeatures,
    subsets: Option<usize>,
) -> Result<(Vec<Score>, Vec<String>)> {
    let (mut scores, mut notes) = (Vec::new(), Vec::new());
    for &metric in metrics {
        let kind = metric.kind();
        let features = |set: &SetFeatures| {
            set.features.get(&FeatureSpace::Network(kind)).cloned().with_context(|| {
                format!("{} needs images; only statistics are available", metric.name())
            })
        };
        match metric {
            Metric::Fid | Metric::Sfid | Metric::FdDinov2 | Metric::FdClip => {
                let (feature, key) = match metric {
                    Metric::Fid => (FeatureSpace::Network(kind), "frechet_inception_distance"),
                    Metric::Sfid => (FeatureSpace::Spatial, "sfid"),
                    Metric::FdDinov2 => (FeatureSpace::Network(kind), "frechet_distance_dinov2"),
                    _ => (FeatureSpace::Network(kind), "frechet_distance_clip"),
                };
                let label = metric.label();
                let of_reference = reference.gaussian(feature, protocol.ridge())?;
                let of_samples = samples.gaussian(feature, protocol.ridge())?;
                let distance = frechet::terms(&of_samples, &of_reference)?.distance();
                scores.push(score(key, label, distance, None));
                if let Some(parts) = subsets.filter(|_| metric != Metric::Sfid) {
                    let x = features(samples)?;
                    let (mean, deviation) = of_subsets(&x, &of_reference, parts, protocol.ridge())?;
                    let label = format!("{label}, {parts} subsets of {}", x.nrows() / parts);
                    let key = format!("{key}_subsets");
                    scores.push(score(&key, &label, mean, Some(deviation)));
                }
            }
            Metric::Is => {
                let logits = samples.logits.as_ref().context("logits are missing")?;
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
                            "{label} uses subsets of {size} images; published values use {wanted}"
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

/// Mean and standard deviation of the distances of disjoint random subsets.
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

/// The caveat that Fréchet distances of few samples are biased upwards.
fn bias(metrics: &[Metric], samples: &SetFeatures) -> Option<String> {
    let n = samples.n.filter(|&n| n < UNBIASED)?;
    let named: Vec<&str> = metrics.iter().filter(|m| m.is_frechet()).map(|m| m.label()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "{} on {n} samples is biased upwards: compare it only with values at the same number of samples (published values use {UNBIASED})",
            named.join(", ")
        )
    })
}
