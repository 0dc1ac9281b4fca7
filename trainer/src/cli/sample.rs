//! `tintype sample`

mod outputs;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::device;
use tintype::files::Identity;
use tintype::generate::{Event, GenerateError, ImageSpec, ModelFiles, Pipeline, Request, Settings};
use tintype::image::Rgb;
use tintype::precision::Precision;
use tintype::sampler::Stop;

use super::Outcome;
use super::events::Reporter;
use super::force;
use super::gather::wait_for_others;
use super::interrupt::on_interrupt;
use super::metrics::{Evaluator, MetricArgs, extracted};
use super::model::PartsArgs;
use super::numbers::{at_least, seed};
use super::published::{DownloadArgs, FileOptions, Library};
use super::sampling::SamplingArgs;
use crate::data::fingerprint::Fingerprint;
use crate::evaluate::eval_set::EvalSet;
use crate::evaluate::evaluation::Evaluation;
use crate::evaluate::extraction::ExtractedFeatures;
use crate::evaluate::extractor::Features;
use crate::evaluate::images::Images;
use crate::rank::Rank;
use crate::samples::{LabelSampling, Samples, labels};
use outputs::{check_folders, check_other_making, identity, model_name, open_sets};
use tintype::catalogue::Role;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of samples
    #[arg(long, default_value_t = 50_000, value_parser = at_least::<usize>(0), allow_negative_numbers = true)]
    count: usize,
    /// Class labels of the samples
    #[arg(long, value_enum, default_value = "equal")]
    labels: LabelSampling,
    /// Random seed
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    parts: PartsArgs,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Dtype of the network: f32, f16 or bf16
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Output folder; PNG files are written to a subfolder named after model and settings
    #[arg(long, value_name = "FOLDER", required_unless_present_any = ["npz", "evaluate"])]
    out: Option<PathBuf>,
    /// Write all samples to an .npz as `arr_0`, the format of ADM's evaluator
    #[arg(long, value_name = "FILE")]
    npz: Option<PathBuf>,
    /// Evaluate the samples against a reference (see `tintype evaluate`); images are written only with
    /// --out or --npz
    #[arg(long, value_name = "REFERENCE")]
    evaluate: Option<PathBuf>,
    #[command(flatten)]
    metrics: MetricArgs,
    /// Batch size [default: 4 on the CPU, 64 on a GPU]
    #[arg(long, value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Replace samples of another model, seed or settings; only their own files are removed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If an option, the model, the reference or the device is not usable, or if samples cannot be
/// computed, written or measured.
pub fn run(mut args: Args) -> Result<Outcome> {
    let rank = Rank::from_environment()?;
    ensure!((1..=10_000_000).contains(&args.count), "--count is not between 1 and 10000000");
    let chosen = device::choose(&super::local_device(&args.device, rank))?;
    args.precision.on(&chosen.found.device)?;
    let library = Library::of_process();
    check_before_downloads(&args, &library)?;
    let reference = match &args.evaluate {
        Some(reference) => {
            let record = args.npz.as_deref().map(Samples::record_of_npz);
            args.metrics.check_distinct(&[
                ("--npz", args.npz.as_deref()),
                ("the record of --npz", record.as_deref()),
                ("--evaluate", Some(reference.as_path())),
            ])?;
            args.metrics.check(None, Some(reference.as_path()))?
        }
        None => None,
    };
    let mut options = FileOptions::new(&library);
    options.parts(&mut args.parts)?;
    options.file("--evaluate", Role::Reference, &mut args.evaluate)?;
    args.metrics.name_files(&mut options)?;
    if options.has_missing() {
        check_folders(args.out.as_deref(), args.npz.as_deref())?;
    }
    let published = options.resolve(args.download, args.json)?;
    let mut files = ModelFiles::open(&args.parts.paths())?;
    if rank.rank == 0 {
        for note in files.notes() {
            eprintln!("note: {note}");
        }
    }
    let architecture = tintype::model::detect(&files.model)?;
    let settings = args.sampling.of_network(&architecture, published.settings, None)?;
    let guide = files.guide.as_ref().map(tintype::model::detect).transpose()?;
    settings.validate_with(&architecture, guide.as_ref())?;
    if files.guide.is_some() && settings.guidance.scale == 1.0 {
        if rank.rank == 0 {
            eprintln!("note: --guide is not used: guidance is off at --cfg 1");
        }
        (files.guide, args.parts.guide) = (None, None);
    }
    let classes = match architecture.num_classes() {
        0 => vec![None; args.count],
        k => labels(args.labels, args.count, k, args.seed)?.into_iter().map(Some).collect(),
    };
    let comparison = match &args.evaluate {
        Some(path) => {
            let reference = reference.map_or_else(|| EvalSet::open(path, None), Ok)?;
            let device = &chosen.found.device;
            Some(ReferenceEvaluation::new(reference, &args.metrics, device)?)
        }
        None => None,
    };
    let direct = args.out.is_none() && args.npz.is_none();
    let total = if direct { args.count } else { rank.share(args.count).len() };
    let reporter = Reporter::counting(total as u64, "samples", args.json);
    reporter.message(format!("loading on {}", chosen.found.id));
    let pipeline = files.load(args.precision, &chosen.found)?;
    let identity = identity(&args, &settings, Some(&files));
    let what = json!(identity);
    let named = model_name(args.parts.model.model.as_deref(), &files.model.file);
    let sets = open_sets(&args, &settings, &pipeline, &identity, rank, &named);
    let sets = force::offered(sets)?;
    drop(files);
    let batch = args.batch.unwrap_or(if chosen.found.id == "cpu" { 4 } else { 64 }).max(1);
    let interrupted = on_interrupt("stopping after this step; finished samples are kept")?;
    let job = Job {
        pipeline: &pipeline,
        settings,
        classes: &classes,
        seed: args.seed,
        sets: &sets,
        reporter: &reporter,
        interrupted: &interrupted,
    };
    let evaluator = comparison.as_ref().map(|comparison| Evaluator {
        args: &args.metrics,
        evaluation: &comparison.evaluation,
        rank,
        batch: args.batch.unwrap_or(if chosen.found.id == "cpu" { 8 } else { 64 }).max(1),
        interrupted: &interrupted,
        json: args.json,
        identity: identity.clone(),
    });
    if let Some(evaluator) = &evaluator {
        evaluator.claim_statistics()?;
    }
    if let (true, Some(comparison), Some(evaluator)) = (direct, &comparison, &evaluator) {
        reporter.message(format!("sampling and extracting features on {}", chosen.found.id));
        let Some(extracted) = job.extract_features(args.count, batch, evaluator, &identity)? else {
            reporter.finish();
            return Ok(Outcome::Interrupted);
        };
        reporter.finish();
        let name = PathBuf::from(format!("samples of {}", named.0));
        return evaluator.compare(
            (&name, extracted, None),
            Some(&comparison.reference),
            Some(&what),
        );
    }
    if job.files(args.count, batch, rank, &chosen.found.id)? == Outcome::Interrupted {
        return Ok(Outcome::Interrupted);
    }
    let (Some(comparison), Some(evaluator), Some(set), 0) =
        (&comparison, evaluator, sets.first(), rank.rank)
    else {
        return Ok(Outcome::Done);
    };
    // All samples are written; extracting their features is fast compared with sampling.
    let evaluator = Evaluator { rank: Rank::ALONE, ..evaluator };
    let images = Images::open(set.path(), Some(args.count))?;
    let extracted = evaluator
        .images(images.as_ref(), &format!("extracting features on {}", chosen.found.id))?;
    let Some(extracted) = extracted else { return Ok(Outcome::Interrupted) };
    evaluator.compare((set.path(), extracted, None), Some(&comparison.reference), Some(&what))
}

/// The reference and the evaluation against it.
struct ReferenceEvaluation {
    reference: EvalSet,
    evaluation: Evaluation,
}

impl ReferenceEvaluation {
    fn new(reference: EvalSet, args: &MetricArgs, device: &Device) -> Result<Self> {
        let evaluation = Evaluation::new(&args.options(), None, Some(&reference), device)?;
        Ok(Self { reference, evaluation })
    }
}

/// What can be refused before gigabytes are fetched: settings, labels and samples of another making, as far as the
/// catalogue tells what the network is.
fn check_before_downloads(args: &Args, library: &Library) -> Result<()> {
    args.sampling.check()?;
    if let (None, Some(option)) = (&args.evaluate, args.metrics.given()) {
        bail!("{option} has no effect without --evaluate");
    }
    let is_npz = |path: &&PathBuf| path.extension().is_some_and(|e| e == "npz");
    if let Some(other) = args.npz.as_ref().filter(|path| !is_npz(path)) {
        bail!("--npz {} does not end in .npz", other.display());
    }
    let Some(entry) = library.network(&args.parts)? else { return Ok(()) };
    if let Some(classes) = entry.classes.filter(|classes| *classes > 0) {
        labels(args.labels, args.count, classes, args.seed)?;
    }
    let network = entry.known_network().map(|preset| preset.architecture);
    let has_guide = library.has_guide(entry, &args.parts)?;
    let usual = entry.sampling.or_else(|| Some(network.as_ref()?.default_settings()));
    let Some(usual) = usual else { return Ok(()) };
    let settings = args.sampling.settings(usual)?;
    if let Some(network) = &network {
        settings.validate_with(network, has_guide.then_some(network))?;
    }
    match library.catalogue()?.file(entry, Role::Network) {
        Some((_, file)) if !args.force && !has_guide => {
            let named = model_name(Some(&library.downloader.place(file)), "");
            check_other_making(args, &settings, &named)
        }
        _ => Ok(()),
    }
}

struct Job<'a> {
    pipeline: &'a Pipeline,
    settings: Settings,
    classes: &'a [Option<usize>],
    seed: u64,
    sets: &'a [Samples],
    reporter: &'a Reporter,
    interrupted: &'a AtomicBool,
}

impl Job<'_> {
    /// Writes the missing samples of this rank.
    fn files(&self, count: usize, batch: usize, rank: Rank, id: &str) -> Result<Outcome> {
        let share = rank.share(count);
        let mut missing = Vec::new();
        for set in self.sets {
            missing.extend(set.missing(share.clone())?);
        }
        missing.sort_unstable();
        missing.dedup();
        let there = share.len() - missing.len();
        self.reporter.message(format!("sampling on {id}"));
        let started = Instant::now();
        let made = self.write(&missing, batch, there)?;
        let seconds = started.elapsed().as_secs_f64();
        let rate = made as f64 / seconds.max(1e-9);
        if made < missing.len() {
            self.reporter.finish();
            let text = format!("{} of {} samples are done", there + made, share.len());
            self.reporter.line(&text);
            return Ok(Outcome::Interrupted);
        }
        if rank.rank == 0 {
            wait_for_others(self.sets, count, rank, self.reporter, self.interrupted)?;
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            self.sets.iter().try_for_each(Samples::finish)?;
        }
        self.reporter.finish();
        let done = json!({"made": made, "seconds": seconds, "images_per_second": rate});
        self.reporter.event("done", done);
        self.reporter.line(&format!(
            "{made} samples in {seconds:.1} s ({rate:.2} samples/s on {id}), {there} already existed"
        ));
        Ok(Outcome::Done)
    }

    /// Generates the missing samples; another thread encodes and writes while the device computes.
    fn write(&self, missing: &[usize], batch: usize, there: usize) -> Result<usize> {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Vec<(usize, Rgb)>>(2);
            let writer = scope.spawn(move || -> Result<()> {
                for images in receiver {
                    self.sets.iter().try_for_each(|set| set.write(&images))?;
                }
                Ok(())
            });
            let mut made = 0;
            for indices in missing.chunks(batch) {
                let Some(images) = self.batch(indices)? else { break };
                let n = images.len();
                if sender.send(images).is_err() {
                    break; // the writer failed; its error comes below
                }
                made += n;
                self.reporter.position((there + made) as u64);
            }
            drop(sender);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(made)
        })
    }

    /// Generates samples and extracts their features without writing them; returns `None` if
    /// cancelled.
    fn extract_features(
        &self,
        count: usize,
        batch: usize,
        evaluator: &Evaluator<'_>,
        identity: &Identity,
    ) -> Result<Option<Vec<ExtractedFeatures>>> {
        let cache = evaluator.cache(Fingerprint::of(&identity.text()), identity.clone());
        let plan = evaluator.evaluation.plan(count, cache.as_ref(), evaluator.rank);
        let missing = plan.missing();
        let mut done = count - missing.iter().map(|range| range.len()).sum::<usize>();
        let outcome = plan.run(&missing, self.interrupted, &mut |range| {
            let mut rows = vec![Features::default(); plan.extractors.len()];
            let indices: Vec<usize> = range.collect();
            for indices in indices.chunks(batch) {
                let Some(mut images) = self.batch(indices)? else { return Ok(None) };
                images.sort_by_key(|(index, _)| *index);
                let images: Vec<Rgb> = images.into_iter().map(|(_, image)| image).collect();
                for (rows, new) in rows.iter_mut().zip(plan.extract_features(&images)) {
                    rows.append(new);
                }
                done += indices.len();
                self.reporter.position(done as u64);
            }
            Ok(Some(rows))
        })?;
        Ok(extracted(outcome))
    }

    /// Generates a batch of samples; returns `None` if cancelled.
    fn batch(&self, indices: &[usize]) -> Result<Option<Vec<(usize, Rgb)>>> {
        let spec = |&i: &usize| ImageSpec::new(self.classes[i], self.seed, i as u64);
        let request =
            Request { settings: self.settings, images: indices.iter().map(spec).collect() };
        let mut images = Vec::with_capacity(indices.len());
        let result =
            pollster::block_on(self.pipeline.generate(&request, &mut async |event: Event<'_>| {
                if self.interrupted.load(Ordering::Relaxed) {
                    return Err(Stop::Cancelled);
                }
                if let Event::Image(picture) = event {
                    images.push((indices[picture.index], picture.image));
                }
                Ok(())
            }));
        match result {
            Ok(()) => Ok(Some(images)),
            Err(GenerateError::Stopped(Stop::Cancelled)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
