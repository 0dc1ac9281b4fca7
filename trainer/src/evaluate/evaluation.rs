//! An evaluation: feature extractors, metrics, samples and reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use tintype::burn::tensor::Device;

use super::cache::Cache;
use super::eval_set::{EvalSet, FeatureSpace};
use super::extraction::{ExtractedFeatures, Keep, Plan};
use super::extractor::{FeatureExtractor, Kind, MAX_DRIFT};
use super::images::Images;
use super::protocol::{Metric, Protocol};
use super::report::{Report, SetInfo};
use super::score::{SetFeatures, scores};
use crate::network::inception;
use crate::rank::Rank;

/// Options of an evaluation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Evaluation protocol.
    pub protocol: Protocol,
    /// Metrics; if empty, all that the protocol and the files allow.
    pub metrics: Vec<Metric>,
    /// Weight files of the feature extractors.
    pub networks: BTreeMap<Kind, PathBuf>,
    /// Also compute Fréchet distances of this many disjoint subsets.
    pub subsets: Option<usize>,
    /// Compute statistics of the samples even if no metric needs them.
    pub statistics: bool,
}

/// Loaded feature extractors and the metrics computed from them.
#[derive(Debug)]
pub struct Evaluation {
    protocol: Protocol,
    /// Metrics to compute.
    pub metrics: Vec<Metric>,
    /// Feature extractors.
    pub extractors: Vec<FeatureExtractor>,
    subsets: Option<usize>,
}

impl Evaluation {
    /// Selects the metrics and loads their feature extractors. A metric that cannot be computed is
    /// reported here, before any long computation.
    ///
    /// # Errors
    ///
    /// * A metric needs a reference, images, statistics or a network that are not given.
    /// * The weights of a network cannot be loaded.
    /// * There is nothing to measure.
    pub fn new(
        options: &Options,
        samples: Option<&EvalSet>,
        reference: Option<&EvalSet>,
        device: &Device,
    ) -> Result<Self> {
        let metrics = metrics(options, samples, reference)?;
        let networks = networks(options, &metrics, samples, reference)?;
        let protocol = options.protocol;
        let open = |(kind, path): (Kind, &Path)| {
            FeatureExtractor::open(kind, path, protocol.preprocess(kind), device)
        };
        let extractors: Vec<_> = networks.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { protocol, metrics, extractors, subsets: options.subsets })
    }

    /// Checks what [`new`](Self::new) checks of options and sets, before the weights are here.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for the weights.
    pub fn check(
        options: &Options,
        samples: Option<&EvalSet>,
        reference: Option<&EvalSet>,
    ) -> Result<()> {
        let metrics = metrics(options, samples, reference)?;
        networks(options, &metrics, samples, reference).map(|_| ())
    }

    /// [`check`](Self::check) before the reference is here, too: of the metrics that are asked for.
    ///
    /// # Errors
    ///
    /// If one cannot be computed of the samples, or needs a network that is not given.
    pub fn check_without_reference(options: &Options, samples: Option<&EvalSet>) -> Result<()> {
        if let Some(set) = samples {
            options.metrics.iter().try_for_each(|metric| check_computable(*metric, set))?;
        }
        check_subsets(options, samples)?;
        if !options.metrics.is_empty() {
            check_parts(options, &options.metrics)?;
        }
        let has_images = samples.is_none_or(|set| set.images.is_some());
        if has_images && options.metrics.is_empty() && options.networks.is_empty() {
            return Err(no_extractor());
        }
        networks(options, &options.metrics, samples, None).map(|_| ())
    }

    /// Plans feature extraction for a set of `n` images.
    pub fn plan<'a>(&'a self, n: usize, cache: Option<&'a Cache>, rank: Rank) -> Plan<'a> {
        let whole = |m: &Metric| !m.is_frechet() && *m != Metric::Is;
        let deficient = n <= inception::FEATURES;
        let features = deficient || self.subsets.is_some() || self.metrics.iter().any(whole);
        let spatial = deficient && self.metrics.contains(&Metric::Sfid);
        let keep = Keep { features, spatial, logits: self.metrics.contains(&Metric::Is) };
        Plan { n, extractors: &self.extractors, keep, cache, rank }
    }

    /// Whether features of the reference's images are needed: its precomputed statistics do not
    /// suffice for every metric.
    pub fn reference_needs_images(&self, reference: &EvalSet) -> bool {
        let unknown = |m: &Metric| m.has_reference() && !has_statistics(*m, reference);
        self.metrics.iter().any(unknown)
    }

    /// Computes the metrics.
    ///
    /// # Errors
    ///
    /// If a set has too few images for a metric, or features and statistics do not fit each other.
    pub fn report(
        &self,
        samples: (&Path, &[(&FeatureExtractor, ExtractedFeatures)], Option<&EvalSet>),
        reference: Option<(&EvalSet, &[(&FeatureExtractor, ExtractedFeatures)])>,
    ) -> Result<Report> {
        let (path, extracted, set) = samples;
        let of_samples = set_features(extracted, set)?;
        let mut infos = vec![SetInfo::new(path, extracted)];
        let mut of_reference = SetFeatures::default();
        if let Some((set, extracted)) = reference {
            of_reference = set_features(extracted, Some(set))?;
            if self.metrics.iter().any(|metric| metric.has_reference()) {
                infos.push(SetInfo::new(&set.path, extracted));
            }
        }
        let (protocol, metrics) = (self.protocol, &self.metrics);
        let (scores, mut notes) =
            scores(protocol, metrics, &of_samples, &of_reference, self.subsets)?;
        notes.extend(SetInfo::notes(&infos));
        let sets = set.into_iter().chain(reference.map(|(set, _)| set));
        notes.extend(sets.filter_map(|set| set.images.as_ref()?.left_out()));
        notes.extend(self.extractors.iter().filter(|e| e.drift > MAX_DRIFT).map(|extractor| {
            format!(
                "this device's {:?} features are {:.0e} off the CPU's, so it does not compute in float32; use --device cpu for numbers to publish",
                extractor.kind, extractor.drift
            )
        }));
        Ok(Report { protocol, extractors: self.describe(), sets: infos, scores, notes })
    }

    fn describe(&self) -> Vec<String> {
        let one = |e: &FeatureExtractor| {
            format!("{:?}: {}, weights {}", e.kind, e.preprocess.name(), e.fingerprint)
        };
        self.extractors.iter().map(one).collect()
    }
}

/// The metrics to compute: those requested, or those that the protocol's reference tool prints.
fn metrics(
    options: &Options,
    samples: Option<&EvalSet>,
    reference: Option<&EvalSet>,
) -> Result<Vec<Metric>> {
    let networks: Vec<Kind> = options.networks.keys().copied().collect();
    let mut metrics = options.metrics.clone();
    if metrics.is_empty() {
        // Two sets of precomputed statistics are compared without a feature extractor.
        let only_statistics = samples.filter(|set| set.images.is_none());
        let kinds = match only_statistics {
            Some(set) => set.statistics.keys().map(|feature| feature.kind()).collect(),
            None => networks.clone(),
        };
        metrics = options.protocol.metrics(&kinds);
        metrics.retain(|metric| match (metric.has_reference(), reference) {
            (true, Some(set)) => {
                computable(*metric, set) && samples.is_none_or(|s| computable(*metric, s))
            }
            (true, None) => false,
            (false, _) => only_statistics.is_none(),
        });
    }
    metrics.sort();
    metrics.dedup();
    for &metric in &metrics {
        let compared = reference.filter(|_| metric.has_reference());
        if metric.has_reference() && compared.is_none() {
            bail!("{} needs a reference; pass one with --reference", metric.name());
        }
        for set in samples.into_iter().chain(compared) {
            check_computable(metric, set)?;
        }
    }
    if metrics.is_empty() && networks.is_empty() {
        return Err(no_extractor());
    }
    if metrics.is_empty() && !options.statistics {
        bail!(
            "--protocol {} has no metric that works without a reference; pass --reference, --metrics is or --save-stats",
            options.protocol.name()
        );
    }
    check_subsets(options, samples)?;
    check_parts(options, &metrics)?;
    Ok(metrics)
}

/// Refuses `--subsets` that there are too few samples for, as far as their number is known.
fn check_subsets(options: &Options, samples: Option<&EvalSet>) -> Result<()> {
    let Some(parts) = options.subsets else { return Ok(()) };
    ensure!(parts >= 2, "--subsets {parts} is not 2 or more");
    let Some(set) = samples else { return Ok(()) };
    let n = set.images.as_ref().map_or(0, Images::len);
    ensure!(parts <= n / 2, "--subsets {parts} is more than half of the {n} samples");
    Ok(())
}

/// Refuses `--subsets` if none of the metrics is computed of parts.
fn check_parts(options: &Options, metrics: &[Metric]) -> Result<()> {
    let has_parts = metrics.iter().any(|metric| metric.is_frechet() && *metric != Metric::Sfid);
    ensure!(
        options.subsets.is_none() || has_parts,
        "--subsets has no effect without fid, fd-dinov2 or fd-clip"
    );
    Ok(())
}

fn no_extractor() -> anyhow::Error {
    anyhow!("evaluation needs a feature extractor: {}", Kind::Inception.wanted())
}

/// The networks whose features are extracted, with their weights.
fn networks<'a>(
    options: &'a Options,
    metrics: &[Metric],
    samples: Option<&EvalSet>,
    reference: Option<&EvalSet>,
) -> Result<Vec<(Kind, &'a Path)>> {
    // Features must be extracted unless precomputed statistics suffice for the metric.
    let needs_features = |metric: &Metric| {
        samples.is_none_or(|set| set.images.is_some())
            || reference.is_some_and(|set| metric.has_reference() && !has_statistics(*metric, set))
    };
    let mut networks = Vec::new();
    for kind in [Kind::Inception, Kind::DinoV2, Kind::Clip] {
        let metric = metrics.iter().find(|m| m.kind() == kind && needs_features(m));
        match (options.networks.get(&kind), metric) {
            (Some(path), metric) if metric.is_some() || options.statistics => {
                networks.push((kind, path.as_path()));
            }
            (None, Some(metric)) => {
                bail!("{} needs the weights of its network: {}", metric.name(), kind.wanted());
            }
            _ => {}
        }
    }
    Ok(networks)
}

/// Whether a set's precomputed statistics suffice for a metric.
fn has_statistics(metric: Metric, set: &EvalSet) -> bool {
    let feature = match metric {
        Metric::Sfid => FeatureSpace::Spatial,
        other => FeatureSpace::Network(other.kind()),
    };
    metric.is_frechet() && set.statistics.contains_key(&feature)
}

/// Whether a metric can be computed on a set.
fn computable(metric: Metric, set: &EvalSet) -> bool {
    set.images.is_some() || has_statistics(metric, set)
}

fn check_computable(metric: Metric, set: &EvalSet) -> Result<()> {
    ensure!(
        computable(metric, set),
        "{} has no images, and no statistics for {}",
        set.path.display(),
        metric.name()
    );
    Ok(())
}

/// Collects extracted features and precomputed statistics of a set. Precomputed statistics take
/// precedence over those of the images: ADM's reference batches hold the statistics of over a million
/// images, but only ten thousand of the images.
///
/// # Errors
///
/// If there are no images, or too few for a covariance.
pub fn set_features(
    extracted: &[(&FeatureExtractor, ExtractedFeatures)],
    set: Option<&EvalSet>,
) -> Result<SetFeatures> {
    let mut features = SetFeatures::default();
    for (extractor, extracted) in extracted {
        let feature = FeatureSpace::Network(extractor.kind);
        features.n = Some(extracted.n);
        features.features.extend(extracted.features().map(|x| (feature, x)));
        features.features.extend(extracted.spatial_features().map(|x| (FeatureSpace::Spatial, x)));
        if extracted.n > 1 {
            features.statistics.insert(feature, extracted.statistics()?);
            if let Some(spatial) = extracted.spatial_statistics() {
                features.statistics.insert(FeatureSpace::Spatial, spatial?);
            }
        }
        if extractor.kind == Kind::Inception {
            features.logits = extracted.logits();
        }
    }
    for (feature, statistics) in set.into_iter().flat_map(|set| &set.statistics) {
        features.statistics.insert(*feature, statistics.clone());
        features.given.insert(*feature);
    }
    Ok(features)
}
