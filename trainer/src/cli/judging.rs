//! Options of evaluation, which `evaluate` and `sample --evaluate` share, and what is done with the
//! result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Outcome;
use super::events::Reporter;
use crate::evaluate::evaluation::{Evaluation, Options, evidence};
use crate::evaluate::gather::{self, Cache, Gathered};
use crate::evaluate::images::Images;
use crate::evaluate::judge::{Judge, Kind};
use crate::evaluate::known::{Known, save};
use crate::evaluate::protocol::{Metric, Protocol};
use crate::rank::Rank;
use tintype::files::write_whole;

/// How samples are judged.
#[derive(Debug, clap::Args)]
pub struct JudgingArgs {
    /// Whose way to resize, scale and split; numbers compare with that tool's
    /// [default: adm; pytorch-fid with --reconstruct]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// What to measure, separated by commas [default: what the protocol's tool prints]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub metrics: Vec<Metric>,
    /// Weights of FID's Inception-v3: pytorch-fid's or torch-fidelity's file
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// Weights of DINOv2, for FD-DINOv2 those of ViT-L/14: the authors' file, transformers' or timm's
    #[arg(long, value_name = "FILE")]
    pub dinov2: Option<PathBuf>,
    /// Weights of CLIP in OpenAI's names
    #[arg(long, value_name = "FILE")]
    pub clip: Option<PathBuf>,
    /// Measure Fréchet distances of this many disjoint random parts of the samples, too
    #[arg(long, value_name = "PARTS")]
    pub subsets: Option<usize>,
    /// Folder where what networks say of images is kept: the same images are not judged twice, a
    /// stopped run goes on, and several processes share the work
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Write mean and covariance of the samples' features, as pytorch-fid does
    #[arg(long, value_name = "FILE.npz")]
    pub save_stats: Option<PathBuf>,
    /// Write the result for programs
    #[arg(long, value_name = "FILE.json")]
    pub output_json: Option<PathBuf>,
}

impl JudgingArgs {
    /// What is wanted.
    ///
    /// # Errors
    ///
    /// If `--save-stats` does not end in `.npz`.
    pub fn options(&self) -> Result<Options> {
        if let Some(path) = &self.save_stats
            && path.extension().is_none_or(|e| e != "npz")
        {
            bail!("--save-stats {} does not end in .npz", path.display());
        }
        Ok(Options {
            protocol: self.protocol.unwrap_or(Protocol::Adm),
            metrics: self.metrics.clone(),
            networks: self.networks(),
            subsets: self.subsets,
            statistics: self.save_stats.is_some(),
        })
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

/// Judging sets of images and comparing them.
pub struct Judging<'a> {
    pub args: &'a JudgingArgs,
    pub evaluation: &'a Evaluation,
    pub rank: Rank,
    /// Images judged together.
    pub batch: usize,
    pub interrupted: &'a AtomicBool,
    pub json: bool,
}

impl Judging<'_> {
    /// What each judge says of a set; `None` where it was stopped. Other processes than the first
    /// hold only a part, and say so.
    ///
    /// # Errors
    ///
    /// If an image cannot be read, or the cache cannot be written or read.
    pub fn images(&self, images: Option<&Images>, message: &str) -> Result<Option<Vec<Gathered>>> {
        let Some(images) = images else { return Ok(Some(Vec::new())) };
        let cache = self.cache(&images.fingerprint());
        let plan = self.evaluation.plan(images.len(), cache.as_ref(), self.rank);
        let todo: usize = plan.missing().iter().map(|range| range.len()).sum();
        let reporter = Reporter::counting(todo as u64, "images", self.json);
        reporter.message(message.into());
        let started = Instant::now();
        let there = images.len() - todo;
        let progress = |done: usize| reporter.position((done - there) as u64);
        let outcome = plan.judge_images(images, self.batch, self.interrupted, &progress)?;
        reporter.finish();
        if todo > 0 && !matches!(outcome, gather::Outcome::Stopped) {
            let seconds = started.elapsed().as_secs_f64();
            let path = images.path().display().to_string();
            let rate = todo as f64 / seconds.max(1e-9);
            reporter.line(&format!(
                "{path}: {todo} images judged in {seconds:.1} s ({rate:.1} images/s)"
            ));
            reporter.event(
                "judged",
                json!({"path": path, "images": todo, "seconds": seconds, "images_per_second": rate}),
            );
        }
        Ok(gathered(outcome))
    }

    /// The place of a set's rows, if they are kept.
    pub fn cache(&self, set: &str) -> Option<Cache> {
        self.args.cache.as_deref().map(|root| Cache::new(root, set))
    }

    /// Judges the reference where its statistics are not enough, and tells the numbers. `sampling`
    /// says how samples were made, where that is known.
    ///
    /// # Errors
    ///
    /// If the reference cannot be judged, a metric cannot be computed, or a result cannot be
    /// written.
    pub fn compare(
        &self,
        (path, of_samples, known): (&Path, Vec<Gathered>, Option<&Known>),
        reference: Option<&Known>,
        sampling: Option<&Value>,
    ) -> Result<Outcome> {
        let needed = reference.filter(|set| self.evaluation.reference_needs_images(set));
        let images = needed.and_then(|set| set.images.as_ref());
        let Some(of_reference) = self.images(images, "judging the reference")? else {
            return Ok(Outcome::Interrupted);
        };
        let reporter = Reporter::counting(0, "images", self.json);
        if self.rank.rank > 0 {
            reporter.finish();
            reporter.line("this process's part is judged; the first process has the result");
            return Ok(Outcome::Done);
        }
        reporter.message("computing distances".into());
        let with_judges = |gathered: Vec<Gathered>| -> Vec<(&Judge, Gathered)> {
            self.evaluation.judges.iter().zip(gathered).collect()
        };
        let (of_samples, of_reference) = (with_judges(of_samples), with_judges(of_reference));
        if let Some(path) = &self.args.save_stats {
            save(path, &evidence(&of_samples, None)?.statistics)?;
        }
        let reference = reference.map(|set| (set, of_reference.as_slice()));
        let report = self.evaluation.report((path, &of_samples, known), reference)?;
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

/// What came of judging; `None` where it was stopped.
pub fn gathered(outcome: gather::Outcome) -> Option<Vec<Gathered>> {
    match outcome {
        gather::Outcome::Done(gathered) => Some(gathered),
        gather::Outcome::Partial => Some(Vec::new()),
        gather::Outcome::Stopped => None,
    }
}

/// Writes a result.
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
