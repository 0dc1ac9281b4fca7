//! Metrics of a network in training: its samples against a reference, by the protocols of `evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tintype::burn::tensor::Device;
use tintype::generate::{ImageSpec, LatentStats};
use tintype::weights::Weights;

use super::preview::{Imager, Wish};
use crate::evaluate::eval_set::EvalSet;
use crate::evaluate::evaluation::{Evaluation, Options};
use crate::evaluate::extraction::{ExtractedFeatures, Outcome};
use crate::evaluate::extractor::{FeatureExtractor, Kind};
use crate::evaluate::protocol::{Metric, Protocol};
use crate::rank::Rank;

/// The table `[evaluate]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateConfig {
    /// Training steps between evaluations.
    pub every: u64,
    /// Number of samples, spread over the classes.
    #[serde(default = "default_samples")]
    pub samples: usize,
    /// Images, or an `.npz` of statistics.
    pub reference: PathBuf,
    /// Evaluation protocol.
    #[serde(default = "default_protocol")]
    pub protocol: Protocol,
    /// Weights of FID's Inception-v3.
    #[serde(default)]
    pub inception: Option<PathBuf>,
    /// Weights of a DINOv2.
    #[serde(default)]
    pub dinov2: Option<PathBuf>,
    /// Weights of a CLIP.
    #[serde(default)]
    pub clip: Option<PathBuf>,
    /// Sampling steps; default: as in `generate`.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Guidance scale; default: as in `generate`.
    #[serde(default)]
    pub cfg: Option<f64>,
    /// Images at a time.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Seed of the samples, the same at every evaluation.
    #[serde(default, deserialize_with = "tintype::settings::seed::deserialize")]
    pub seed: u64,
    /// Autoencoder checkpoint, for latent diffusion; default: `preview.vae`.
    #[serde(default)]
    pub vae: Option<PathBuf>,
}

fn default_samples() -> usize {
    2_000
}
fn default_protocol() -> Protocol {
    Protocol::Adm
}
fn default_batch() -> usize {
    16
}

impl EvaluateConfig {
    /// Checks that there is a feature extractor.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.networks().is_empty(),
            "the table [evaluate] has no feature extractor; set evaluate.inception, evaluate.dinov2 or evaluate.clip to its weights"
        );
        Ok(())
    }

    /// The feature extractors whose weights are given.
    fn networks(&self) -> BTreeMap<Kind, PathBuf> {
        let files = [
            (Kind::Inception, &self.inception),
            (Kind::DinoV2, &self.dinov2),
            (Kind::Clip, &self.clip),
        ];
        files.into_iter().filter_map(|(kind, path)| Some((kind, path.clone()?))).collect()
    }
}

/// The Fréchet distances and their names in the log.
const METRICS: [(Metric, &str, &str); 3] = [
    (Metric::Fid, "frechet_inception_distance", "fid"),
    (Metric::FdDinov2, "frechet_distance_dinov2", "fd_dinov2"),
    (Metric::FdClip, "frechet_distance_clip", "fd_clip"),
];

/// Measures samples.
#[derive(Debug)]
pub struct SampleEvaluator {
    config: EvaluateConfig,
    imager: Imager,
    evaluation: Evaluation,
    reference: EvalSet,
    /// Features of the reference's images once they are extracted.
    of_reference: Option<Vec<ExtractedFeatures>>,
}

impl SampleEvaluator {
    /// Opens the reference, the feature extractors and the autoencoder.
    ///
    /// # Errors
    ///
    /// * A file cannot be read, or no feature extractor is given.
    /// * A metric cannot be computed with the reference.
    pub fn open(
        config: EvaluateConfig,
        stats: Option<&LatentStats>,
        device: &Device,
    ) -> Result<Self> {
        config.check()?;
        let networks = config.networks();
        let metrics = METRICS.iter().map(|(metric, ..)| *metric);
        let options = Options {
            protocol: config.protocol,
            metrics: metrics.filter(|metric| networks.contains_key(&metric.kind())).collect(),
            networks,
            subsets: None,
            statistics: false,
        };
        let reference = EvalSet::open(&config.reference, None).context("evaluate.reference")?;
        let evaluation = Evaluation::new(&options, None, Some(&reference), device)
            .context("the table [evaluate]")?;
        let imager = Imager::open(config.vae.as_deref(), stats)?;
        Ok(Self { config, imager, evaluation, reference, of_reference: None })
    }

    /// The metrics of a network's samples by their names in the log; `None` if `stop` was set.
    ///
    /// # Errors
    ///
    /// * An image of the reference cannot be read.
    /// * The samples cannot be generated, or the settings do not fit the network.
    /// * A metric cannot be computed.
    pub fn evaluate(
        &mut self,
        model: &Weights,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<(String, f64)>>> {
        if self.of_reference.is_none() {
            let Some(features) = self.extract_reference(stop)? else { return Ok(None) };
            self.of_reference = Some(features);
        }
        let EvaluateConfig { samples, batch, steps, cfg, seed, .. } = self.config;
        let plan = self.evaluation.plan(samples, None, Rank::ALONE);
        let mut extracted = vec![ExtractedFeatures::default(); plan.extractors.len()];
        let spec = |i: usize, class| ImageSpec::new(class, seed, i as u64);
        let wish = Wish { count: samples, batch, steps, cfg, spec: &spec };
        let mut done = 0;
        self.imager.generate(model, device, &wish, &mut |images| {
            done += images.len();
            for (all, rows) in extracted.iter_mut().zip(plan.extract_features(&images)) {
                all.add(rows, plan.keep);
            }
            Ok(!stop.load(Ordering::Relaxed))
        })?;
        if done < samples {
            return Ok(None);
        }
        let of_samples = self.with_extractors(extracted);
        let of_reference = self.with_extractors(self.of_reference.clone().unwrap_or_default());
        let report = self.evaluation.report(
            (Path::new("the samples"), of_samples.as_slice(), None),
            Some((&self.reference, of_reference.as_slice())),
        )?;
        let name = |key: &str| METRICS.iter().find(|metric| metric.1 == key).map(|m| m.2);
        let values = report.scores.iter().filter_map(|s| Some((name(&s.key)?.into(), s.value)));
        Ok(Some(values.collect()))
    }

    /// Features of the reference's images, where its statistics do not suffice.
    fn extract_reference(&self, stop: &AtomicBool) -> Result<Option<Vec<ExtractedFeatures>>> {
        let images = self.reference.images.as_ref();
        let needed = images.filter(|_| self.evaluation.reference_needs_images(&self.reference));
        let Some(images) = needed else { return Ok(Some(Vec::new())) };
        let plan = self.evaluation.plan(images.len(), None, Rank::ALONE);
        match plan.extract_images(images, self.config.batch, stop, &|_| ())? {
            Outcome::Done(features) => Ok(Some(features)),
            Outcome::Partial | Outcome::Stopped => Ok(None),
        }
    }

    fn with_extractors(
        &self,
        features: Vec<ExtractedFeatures>,
    ) -> Vec<(&FeatureExtractor, ExtractedFeatures)> {
        self.evaluation.extractors.iter().zip(features).collect()
    }
}
