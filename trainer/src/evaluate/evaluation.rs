//! A whole evaluation: who judges, what is compared with what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use tintype::burn::tensor::Device;

use super::gather::{Cache, Gathered, Keep, Plan};
use super::judge::{Judge, Kind, MAX_DRIFT};
use super::known::{Feature, Known};
use super::protocol::{Metric, Protocol};
use super::report::{Report, SetInfo};
use super::score::{Evidence, scores};
use crate::network::inception;
use crate::rank::Rank;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose way.
    pub protocol: Protocol,
    /// Which metrics; all that the protocol and the files allow if there are none.
    pub metrics: Vec<Metric>,
    /// Files of the networks' weights.
    pub networks: BTreeMap<Kind, PathBuf>,
    /// Fréchet distances also of this many disjoint parts.
    pub subsets: Option<usize>,
    /// Whether statistics of the samples are wanted, whatever the metrics.
    pub statistics: bool,
}

/// Loaded judges and the metrics that they allow.
#[derive(Debug)]
pub struct Evaluation {
    protocol: Protocol,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Who judges the samples.
    pub judges: Vec<Judge>,
    subsets: Option<usize>,
}

impl Evaluation {
    /// Decides what is measured, and loads the networks for it. Whatever cannot be measured is said
    /// here, before anything long begins.
    ///
    /// # Errors
    ///
    /// * A metric needs a reference, images, statistics or a network that are not given.
    /// * The weights of a network cannot be loaded.
    /// * There is nothing to measure.
    pub fn new(
        options: &Options,
        samples: Option<&Known>,
        reference: Option<&Known>,
        device: &Device,
    ) -> Result<Self> {
        let metrics = metrics(options, samples, reference)?;
        let mut judges = Vec::new();
        // Images must be judged, unless the files say all that a metric needs.
        let judged = |metric: &Metric| {
            samples.is_none_or(|set| set.images.is_some())
                || reference.is_some_and(|set| metric.has_reference() && !known(*metric, set))
        };
        for kind in [Kind::Inception, Kind::DinoV2, Kind::Clip] {
            let metric = metrics.iter().find(|m| m.kind() == kind && judged(m));
            match (options.networks.get(&kind), metric) {
                (Some(path), metric) if metric.is_some() || options.statistics => {
                    let preprocess = options.protocol.preprocess(kind);
                    judges.push(Judge::open(kind, path, preprocess, device)?);
                }
                (None, Some(metric)) => {
                    bail!("{} needs the weights of its network: {}", metric.name(), kind.wanted());
                }
                _ => {}
            }
        }
        let protocol = options.protocol;
        Ok(Self { protocol, metrics, judges, subsets: options.subsets })
    }

    /// How samples are judged.
    pub fn plan<'a>(&'a self, n: usize, cache: Option<&'a Cache>, rank: Rank) -> Plan<'a> {
        let whole = |m: &Metric| !m.is_frechet() && *m != Metric::Is;
        let deficient = n <= inception::FEATURES;
        let features = deficient || self.subsets.is_some() || self.metrics.iter().any(whole);
        let spatial = deficient && self.metrics.contains(&Metric::Sfid);
        let keep = Keep { features, spatial, logits: self.metrics.contains(&Metric::Is) };
        Plan { n, judges: &self.judges, keep, cache, rank }
    }

    /// The judges that must see the reference's images: its file's statistics do not say everything.
    pub fn reference_needs_images(&self, reference: &Known) -> bool {
        let unknown = |m: &Metric| m.has_reference() && !known(*m, reference);
        self.metrics.iter().any(unknown)
    }

    /// The numbers.
    ///
    /// # Errors
    ///
    /// If a set has too few images for a metric, or features and statistics do not fit each other.
    pub fn report(
        &self,
        samples: (&Path, &[(&Judge, Gathered)], Option<&Known>),
        reference: Option<(&Known, &[(&Judge, Gathered)])>,
    ) -> Result<Report> {
        let (path, gathered, known) = samples;
        let of_samples = evidence(gathered, known)?;
        let mut infos = vec![SetInfo::new(path, gathered)];
        let mut of_reference = Evidence::default();
        if let Some((known, gathered)) = reference {
            of_reference = evidence(gathered, Some(known))?;
            if self.metrics.iter().any(|metric| metric.has_reference()) {
                infos.push(SetInfo::new(&known.path, gathered));
            }
        }
        let (protocol, metrics) = (self.protocol, &self.metrics);
        let (scores, mut notes) =
            scores(protocol, metrics, &of_samples, &of_reference, self.subsets)?;
        notes.extend(SetInfo::notes(&infos));
        notes.extend(self.judges.iter().filter(|j| j.drift > MAX_DRIFT).map(|judge| {
            format!(
                "this device's {:?} features are {:.0e} off the CPU's, so it does not compute in float32; use --device cpu for numbers to publish",
                judge.kind, judge.drift
            )
        }));
        Ok(Report { protocol, judges: self.describe(), sets: infos, scores, notes })
    }

    fn describe(&self) -> Vec<String> {
        let one =
            |j: &Judge| format!("{:?}: {}, weights {}", j.kind, j.preprocess.name(), j.fingerprint);
        self.judges.iter().map(one).collect()
    }
}

/// What is measured: what was asked for, or what the protocol's tool would print of these sets.
fn metrics(
    options: &Options,
    samples: Option<&Known>,
    reference: Option<&Known>,
) -> Result<Vec<Metric>> {
    let networks: Vec<Kind> = options.networks.keys().copied().collect();
    let mut metrics = options.metrics.clone();
    if metrics.is_empty() {
        // Two files of statistics are compared without any network.
        let only_statistics = samples.filter(|set| set.images.is_none());
        let kinds = match only_statistics {
            Some(set) => set.statistics.keys().map(|feature| feature.kind()).collect(),
            None => networks.clone(),
        };
        metrics = options.protocol.metrics(&kinds);
        metrics.retain(|metric| match (metric.has_reference(), reference) {
            (true, Some(set)) => can(*metric, set) && samples.is_none_or(|s| can(*metric, s)),
            (true, None) => false,
            (false, _) => only_statistics.is_none(),
        });
    }
    metrics.sort();
    metrics.dedup();
    for &metric in &metrics {
        let compared = reference.filter(|_| metric.has_reference());
        if metric.has_reference() && compared.is_none() {
            bail!("{} compares with a reference; name one with --reference", metric.name());
        }
        for set in samples.into_iter().chain(compared) {
            ensure!(
                can(metric, set),
                "{} has no images and no statistics that {} could use",
                set.path.display(),
                metric.name()
            );
        }
    }
    if metrics.is_empty() && networks.is_empty() {
        bail!("a network must judge the images: {}", Kind::Inception.wanted());
    }
    if metrics.is_empty() && !options.statistics {
        bail!(
            "without --reference there is nothing to measure for --protocol {}; name a reference, or ask for --metrics is, or --save-stats",
            options.protocol.name()
        );
    }
    Ok(metrics)
}

/// Whether a set's file says all that a metric needs.
fn known(metric: Metric, set: &Known) -> bool {
    let feature = match metric {
        Metric::Sfid => Feature::Spatial,
        other => Feature::Of(other.kind()),
    };
    metric.is_frechet() && set.statistics.contains_key(&feature)
}

/// Whether a metric can be had of a set at all.
fn can(metric: Metric, set: &Known) -> bool {
    set.images.is_some() || known(metric, set)
}

/// What judges and the file say of a set. The file's statistics win over those of its images: ADM's
/// reference batches bring the statistics of a million images and ten thousand of the images.
///
/// # Errors
///
/// If no image was judged, or there are too few for a covariance.
pub fn evidence(gathered: &[(&Judge, Gathered)], known: Option<&Known>) -> Result<Evidence> {
    let mut evidence = Evidence::default();
    for (judge, gathered) in gathered {
        let feature = Feature::Of(judge.kind);
        evidence.n = Some(gathered.n);
        evidence.features.extend(gathered.features().map(|x| (feature, x)));
        evidence.features.extend(gathered.spatial_features().map(|x| (Feature::Spatial, x)));
        if gathered.n > 1 {
            evidence.statistics.insert(feature, gathered.statistics()?);
            if let Some(spatial) = gathered.spatial_statistics() {
                evidence.statistics.insert(Feature::Spatial, spatial?);
            }
        }
        if judge.kind == Kind::Inception {
            evidence.logits = gathered.logits();
        }
    }
    for (feature, statistics) in known.into_iter().flat_map(|known| &known.statistics) {
        evidence.statistics.insert(*feature, statistics.clone());
        evidence.given.insert(*feature);
    }
    Ok(evidence)
}
