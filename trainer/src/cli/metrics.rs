//! Evaluation options shared by `evaluate` and `sample --evaluate`, and output of the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::events::Reporter;
use super::numbers::at_least;
use super::output::{check_file, check_folder};
use super::published::FileOptions;
use crate::data::fingerprint::Fingerprint;
use crate::evaluate::cache::Cache;
use crate::evaluate::eval_set::{EvalSet, claim, claim_part, save};
use crate::evaluate::evaluation::{Evaluation, Options, set_features};
use crate::evaluate::extraction::{self, ExtractedFeatures};
use crate::evaluate::extractor::{FeatureExtractor, Kind};
use crate::evaluate::images::Images;
use crate::evaluate::protocol::{Metric, Protocol};
use crate::rank::Rank;
use tintype::catalogue::Role;
use tintype::files::{Identity, write_whole};

/// What `--save-stats` does not do.
const REPLACES_NONE: &str = "--save-stats replaces no other file; choose another name or remove it";

/// Evaluation options.
#[derive(Debug, clap::Args)]
pub struct MetricArgs {
    /// Evaluation protocol: resizing, normalization and splits of a reference tool
    /// [default: adm; pytorch-fid with --reconstruct]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Metrics, comma-separated [default: those of the protocol]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub metrics: Vec<Metric>,
    /// Weights of FID's Inception-v3, from pytorch-fid or torch-fidelity: `inception`, an address or a path
    #[arg(long, value_name = "NAME|FILE")]
    pub inception: Option<PathBuf>,
    /// Weights of DINOv2 (ViT-L/14 for FD-DINOv2), in the original, transformers or timm format: `dinov2-l`, an
    /// address or a path
    #[arg(long, value_name = "NAME|FILE")]
    pub dinov2: Option<PathBuf>,
    /// Weights of CLIP, as a state dict with OpenAI's tensor names
    #[arg(long, value_name = "FILE")]
    pub clip: Option<PathBuf>,
    /// Also compute Fréchet distances of this many disjoint random subsets of the samples
    #[arg(long, value_name = "PARTS", value_parser = at_least::<usize>(0), allow_negative_numbers = true)]
    pub subsets: Option<usize>,
    /// Feature cache: features are extracted once per set of images, an interrupted run resumes, and
    /// several processes share the work
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Write mean and covariance of the samples' features in pytorch-fid's format
    #[arg(long, value_name = "FILE.npz")]
    pub save_stats: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE.json")]
    pub output_json: Option<PathBuf>,
}

impl MetricArgs {
    /// Feature extractors that are named, and not given as files.
    ///
    /// # Errors
    ///
    /// If a name is not one of a feature extractor of this kind.
    pub fn name_files<'a>(&'a mut self, options: &mut FileOptions<'a>) -> Result<()> {
        options.local("--clip", self.clip.as_deref());
        options.file("--inception", Role::Inception, &mut self.inception)?;
        options.file("--dinov2", Role::DinoV2, &mut self.dinov2)
    }

    /// Options of the evaluation.
    pub fn options(&self) -> Options {
        Options {
            protocol: self.protocol.unwrap_or(Protocol::Adm),
            metrics: self.metrics.clone(),
            networks: self.networks(),
            subsets: self.subsets,
            statistics: self.save_stats.is_some(),
        }
    }

    /// Refuses what can be told before anything is fetched: outputs that cannot be written, and metrics that cannot be
    /// computed of samples and reference. Returns the reference if it is here.
    ///
    /// # Errors
    ///
    /// If there is such an output or metric, or the reference is here and cannot be read.
    pub fn check(
        &self,
        samples: Option<&EvalSet>,
        reference: Option<&Path>,
    ) -> Result<Option<EvalSet>> {
        self.check_outputs()?;
        if let Some(path) = &self.save_stats {
            let images = samples.and_then(|set| set.images.as_ref());
            let known = images.map(of_images).unwrap_or_default();
            claim_part(path, &known).context(REPLACES_NONE)?;
        }
        if let (Some(_), Some(set)) = (&self.save_stats, samples) {
            let images = set.images.as_ref().map_or(0, Images::len);
            let path = set.path.display();
            ensure!(images > 1, "--save-stats needs at least 2 images; {path} has {images}");
        }
        let here = reference.filter(|path| path.exists());
        let here = here.map(|path| EvalSet::open(path, None)).transpose()?;
        match reference.is_some() && here.is_none() {
            true => Evaluation::check_without_reference(&self.options(), samples)?,
            false => Evaluation::check(&self.options(), samples, here.as_ref())?,
        }
        Ok(here)
    }

    /// Refuses a result that would replace another output or an input: `others`, with what each is called.
    ///
    /// # Errors
    ///
    /// If two are the same file.
    pub fn check_distinct(&self, others: &[(&str, Option<&Path>)]) -> Result<()> {
        let own = [
            ("--save-stats", self.save_stats.as_deref()),
            ("--output-json", self.output_json.as_deref()),
        ];
        for (i, (option, path)) in own.iter().enumerate() {
            // A folder is refused for itself.
            let Some(path) = path.filter(|path| !path.is_dir()) else { continue };
            for (other, there) in own[..i].iter().chain(others) {
                if there.is_some_and(|there| is_same_file(path, there)) {
                    bail!("{option} would replace {other}, {}", path.display());
                }
            }
        }
        Ok(())
    }

    /// Makes sure that results can be written.
    ///
    /// # Errors
    ///
    /// If one cannot, or `--save-stats` does not end in `.npz`.
    pub fn check_outputs(&self) -> Result<()> {
        if let Some(path) = &self.save_stats {
            if path.extension().is_none_or(|e| e != "npz") {
                bail!("--save-stats {} does not end in .npz", path.display());
            }
            check_file("--save-stats", path)?;
        }
        if let Some(path) = &self.output_json {
            check_file("--output-json", path)?;
        }
        match &self.cache {
            Some(folder) => check_folder("--cache", folder, folder),
            None => Ok(()),
        }
    }

    /// The first of these options that is given.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            ("--protocol", self.protocol.is_some()),
            ("--metrics", !self.metrics.is_empty()),
            ("--inception", self.inception.is_some()),
            ("--dinov2", self.dinov2.is_some()),
            ("--clip", self.clip.is_some()),
            ("--subsets", self.subsets.is_some()),
            ("--cache", self.cache.is_some()),
            ("--save-stats", self.save_stats.is_some()),
            ("--output-json", self.output_json.is_some()),
        ];
        options.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    fn networks(&self) -> BTreeMap<Kind, PathBuf> {
        let files = [
            (Kind::Inception, &self.inception),
            (Kind::DinoV2, &self.dinov2),
            (Kind::Clip, &self.clip),
        ];
        files.into_iter().filter_map(|(kind, path)| Some((kind, path.clone()?))).collect()
    }
}

/// Extracts features of sets and computes metrics.
pub struct Evaluator<'a> {
    pub args: &'a MetricArgs,
    pub evaluation: &'a Evaluation,
    pub rank: Rank,
    /// Batch size of the feature extractors.
    pub batch: usize,
    pub interrupted: &'a AtomicBool,
    pub json: bool,
    /// What the samples are.
    pub identity: Identity,
}

impl Evaluator<'_> {
    /// Extracts features of a set, one entry per extractor; returns `None` if cancelled. Empty on
    /// ranks other than 0.
    ///
    /// # Errors
    ///
    /// If an image cannot be read, or the cache cannot be written or read.
    pub fn images(
        &self,
        images: Option<&Images>,
        message: &str,
    ) -> Result<Option<Vec<ExtractedFeatures>>> {
        let Some(images) = images else { return Ok(Some(Vec::new())) };
        let cache = self.cache(images.fingerprint(), of_images(images));
        let plan = self.evaluation.plan(images.len(), cache.as_ref(), self.rank);
        let todo: usize = plan.missing().iter().map(|range| range.len()).sum();
        let reporter = Reporter::counting(todo as u64, "images", self.json);
        reporter.message(message.into());
        let started = Instant::now();
        let there = images.len() - todo;
        let progress = |done: usize| reporter.position((done - there) as u64);
        let outcome = plan.extract_images(images, self.batch, self.interrupted, &progress)?;
        reporter.finish();
        if todo > 0 && !matches!(outcome, extraction::Outcome::Stopped) {
            let seconds = started.elapsed().as_secs_f64();
            let path = images.path().display().to_string();
            let rate = todo as f64 / seconds.max(1e-9);
            reporter.line(&format!(
                "{path}: features of {todo} images in {seconds:.1} s ({rate:.1} images/s)"
            ));
            reporter.event(
                "extracted",
                json!({"path": path, "images": todo, "seconds": seconds, "images_per_second": rate}),
            );
        }
        Ok(extracted(outcome))
    }

    /// The feature cache of a set, with `--cache`.
    pub fn cache(&self, set: Fingerprint, identity: Identity) -> Option<Cache> {
        self.args.cache.as_deref().map(|root| Cache::new(root, set, identity))
    }

    /// What the statistics of the samples are made from.
    fn of_statistics(&self) -> Identity {
        let keys: Vec<String> = self.evaluation.extractors.iter().map(|e| e.key()).collect();
        self.identity.clone().with("extractors", keys)
    }

    /// Makes sure, before hours of work, that `--save-stats` replaces no statistics of another making.
    ///
    /// # Errors
    ///
    /// If it would.
    pub fn claim_statistics(&self) -> Result<()> {
        match &self.args.save_stats {
            Some(path) => claim(path, &self.of_statistics()).context(REPLACES_NONE),
            None => Ok(()),
        }
    }

    /// Extracts the reference's features if its statistics do not suffice, computes the metrics and
    /// reports them. `sampling` describes how the samples were generated, if known.
    ///
    /// # Errors
    ///
    /// If features of the reference cannot be extracted, a metric cannot be computed, or a result cannot be
    /// written.
    pub fn compare(
        &self,
        (path, of_samples, set): (&Path, Vec<ExtractedFeatures>, Option<&EvalSet>),
        reference: Option<&EvalSet>,
        sampling: Option<&Value>,
    ) -> Result<Outcome> {
        let needed = reference.filter(|set| self.evaluation.reference_needs_images(set));
        let images = needed.and_then(|set| set.images.as_ref());
        let Some(of_reference) = self.images(images, "extracting features of the reference")?
        else {
            return Ok(Outcome::Interrupted);
        };
        let reporter = Reporter::counting(0, "images", self.json);
        if self.rank.rank > 0 {
            reporter.finish();
            reporter.line("features of this process are extracted; rank 0 reports the result");
            return Ok(Outcome::Done);
        }
        reporter.message("computing metrics".into());
        let with_extractors =
            |extracted: Vec<ExtractedFeatures>| -> Vec<(&FeatureExtractor, ExtractedFeatures)> {
                self.evaluation.extractors.iter().zip(extracted).collect()
            };
        let (of_samples, of_reference) =
            (with_extractors(of_samples), with_extractors(of_reference));
        if let Some(path) = &self.args.save_stats {
            // Hours have passed, and another program may have written a file of that name.
            self.claim_statistics()?;
            let statistics = set_features(&of_samples, None)?.statistics;
            ensure!(!statistics.is_empty(), "--save-stats needs at least 2 images");
            save(path, &statistics, &self.of_statistics())?;
        }
        let reference = reference.map(|set| (set, of_reference.as_slice()));
        let report = self.evaluation.report((path, &of_samples, set), reference)?;
        let mut result = report.json();
        if let (Some(sampling), Some(result)) = (sampling, result.as_object_mut()) {
            result.insert("sampling".into(), sampling.clone());
        }
        if let Some(path) = &self.args.output_json {
            write_json(path, &result)?;
        }
        reporter.finish();
        reporter.event("evaluated", result);
        reporter.line(report.to_string().trim_end());
        Ok(Outcome::Done)
    }
}

/// Whether two paths lead to one file, which need not be there yet.
fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((std::path::absolute(a), std::path::absolute(b)), (Ok(a), Ok(b)) if a == b)
        || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// What a set of images is.
pub fn of_images(images: &Images) -> Identity {
    let set = images.fingerprint().to_string();
    Identity::default().with("set", set).with("images", images.len())
}

/// The features of an extraction; `None` if it was cancelled.
pub fn extracted(outcome: extraction::Outcome) -> Option<Vec<ExtractedFeatures>> {
    match outcome {
        extraction::Outcome::Done(extracted) => Some(extracted),
        extraction::Outcome::Partial => Some(Vec::new()),
        extraction::Outcome::Stopped => None,
    }
}

/// Writes a result as JSON.
///
/// # Errors
///
/// If the file or its folder cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be written", folder.display()))?;
    }
    Ok(write_whole(path, format!("{value:#}\n").as_bytes())?)
}
