//! `tintype evaluate`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::device;
use tintype::model::rae;
use tintype::weights::{Rename, Weights, open_autoencoder, renamed};

use super::Outcome;
use super::events::Reporter;
use super::interrupt::on_interrupt;
use super::metrics::{Evaluator, MetricArgs, of_images, write_json};
use super::numbers::{at_least, seed};
use super::output::check_file;
use super::published::{DownloadArgs, FileOptions, Library, autoencoder_roles};
use crate::data::store::ImageStore;
use crate::evaluate::eval_set::EvalSet;
use crate::evaluate::evaluation::Evaluation;
use crate::evaluate::extractor::{FeatureExtractor, Kind};
use crate::evaluate::protocol::Protocol;
use crate::evaluate::reconstruct::Reconstructor;
use crate::evaluate::report::{metrics, table};
use crate::network::lpips::Lpips;
use crate::rank::Rank;
use tintype::catalogue::Role;
use tintype::files::write_whole;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Samples: a folder, .tar or .zip of images, an .npz with arr_0 (or mu and sigma), or an image
    /// store
    samples: PathBuf,
    /// Reference set, in the same formats, or the name of a published one, such as `adm-reference-256`
    #[arg(long, value_name = "NAME|PATH")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    metrics: MetricArgs,
    /// Evaluate only the first samples
    #[arg(long, value_parser = at_least::<usize>(0), allow_negative_numbers = true)]
    count: Option<usize>,
    /// Reconstruct the images of a store with this autoencoder; computes PSNR, SSIM, rFID (with
    /// --inception) and LPIPS (with --vgg and --lpips). Repeat if encoder and decoder are separate
    /// files, as a RAE's are
    #[arg(long, value_name = "NAME|FILE", num_args = 1, conflicts_with_all = ["reference", "metrics", "dinov2", "clip", "subsets", "cache", "save_stats"])]
    reconstruct: Vec<PathBuf>,
    /// Table of tensor names, if the autoencoder has others than here: a text with lines OLD -> NEW
    #[arg(long, value_name = "FILE", requires = "reconstruct")]
    names: Option<PathBuf>,
    /// Weights of torchvision's VGG16 (`vgg16`, an address or a path), or of VGG16 and LPIPS in one file
    #[arg(long, value_name = "NAME|FILE", requires = "reconstruct")]
    vgg: Option<PathBuf>,
    /// Weights of LPIPS' linear layers (`lpips-vgg`, an address or a path) [default: those in --vgg]
    #[arg(long, value_name = "NAME|FILE", requires = "vgg")]
    lpips: Option<PathBuf>,
    /// Write a grid of the first images and their reconstructions
    #[arg(long, value_name = "FILE.png", requires = "reconstruct")]
    pairs: Option<PathBuf>,
    /// Random seed of the autoencoder's posterior samples
    #[arg(long, default_value_t = 0, requires = "reconstruct", value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    /// Batch size of the feature extractors [default: 8 on the CPU, 64 on a GPU]
    #[arg(long, value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
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
/// If a set, a network or the device is not usable, or what was asked for cannot be measured of
/// them.
pub fn run(args: Args) -> Result<Outcome> {
    let rank = Rank::from_environment()?;
    let chosen = device::choose(&super::local_device(&args.device, rank))?;
    let on = (chosen.found.id.as_str(), &chosen.found.device);
    match args.reconstruct.is_empty() {
        true => compare(args, rank, on),
        false => {
            ensure!(rank.world == 1, "--reconstruct runs in one process");
            reconstruct(args, on)
        }
    }
}

/// Puts files where options have names.
fn fetch(args: &mut Args) -> Result<()> {
    let library = Library::of_process();
    let mut files: Vec<(Role, PathBuf)> = Vec::new();
    for value in &args.reconstruct {
        let roles = autoencoder_roles(&library, value)?;
        files.extend(roles.into_iter().map(|role| (role, value.clone())));
    }
    let mut options = FileOptions::new(&library);
    args.metrics.name_files(&mut options)?;
    options.local("--names", args.names.as_deref());
    options.file("--reference", Role::Reference, &mut args.reference)?;
    options.file("--vgg", Role::Vgg, &mut args.vgg)?;
    options.file("--lpips", Role::Lpips, &mut args.lpips)?;
    for (role, place) in &mut files {
        options.needed("--reconstruct", *role, place)?;
    }
    options.resolve(args.download, args.json)?;
    args.reconstruct = files.into_iter().map(|(_, path)| path).collect();
    Ok(())
}

/// Batch size of the feature extractors.
fn batch_size(args: &Args, id: &str) -> usize {
    args.batch.unwrap_or(if id == "cpu" { 8 } else { 64 }).max(1)
}

/// Evaluates samples.
fn compare(mut args: Args, rank: Rank, (id, device): (&str, &Device)) -> Result<Outcome> {
    // What needs no weights is refused before gigabytes are fetched.
    args.metrics.check_distinct(&[
        ("the samples", Some(args.samples.as_path())),
        ("--reference", args.reference.as_deref()),
    ])?;
    let samples = EvalSet::open(&args.samples, args.count)?;
    let reference = args.metrics.check(Some(&samples), args.reference.as_deref())?;
    fetch(&mut args)?;
    let reference = match (reference, &args.reference) {
        (None, Some(path)) => Some(EvalSet::open(path, None)?),
        (reference, _) => reference,
    };
    let options = args.metrics.options();
    let evaluation = Evaluation::new(&options, Some(&samples), reference.as_ref(), device)?;
    let interrupted = on_interrupt(match args.metrics.cache {
        Some(_) => "stopping; extracted features are kept, run the same command to resume",
        None => "stopping",
    })?;
    let evaluator = Evaluator {
        args: &args.metrics,
        evaluation: &evaluation,
        rank,
        batch: batch_size(&args, id),
        interrupted: &interrupted,
        json: args.json,
        identity: samples.images.as_ref().map(of_images).unwrap_or_default(),
    };
    evaluator.claim_statistics()?;
    // Features of sample images are always extracted: the bias note needs their number.
    let extracted =
        evaluator.images(samples.images.as_ref(), &format!("extracting features on {id}"))?;
    let Some(of_samples) = extracted else { return Ok(Outcome::Interrupted) };
    evaluator.compare((&args.samples, of_samples, Some(&samples)), reference.as_ref(), None)
}

/// Evaluates reconstructions.
fn reconstruct(mut args: Args, (id, device): (&str, &Device)) -> Result<Outcome> {
    // What needs no weights is refused before gigabytes are fetched.
    args.metrics.check_outputs()?;
    args.metrics.check_distinct(&[("--pairs", args.pairs.as_deref())])?;
    if let Some(path) = &args.pairs {
        check_file("--pairs", path)?;
    }
    let store = ImageStore::open_verified(&args.samples)?;
    let count = args.count.unwrap_or(store.len());
    if count == 0 {
        bail!("{} has no images", args.samples.display());
    }
    ensure!(
        count <= store.len(),
        "{} has {} images, not {count}",
        args.samples.display(),
        store.len()
    );
    if args.metrics.inception.is_some() && count < 2 {
        bail!("rFID needs at least 2 images");
    }
    ensure!(
        args.vgg.is_none() || store.side() >= Lpips::SMALLEST,
        "images of {} pixels are too small for LPIPS, which needs {}; leave out --vgg",
        store.side(),
        Lpips::SMALLEST
    );
    fetch(&mut args)?;
    let batch = batch_size(&args, id);
    let protocol = args.metrics.protocol.unwrap_or(Protocol::PytorchFid);
    let preprocess = protocol.preprocess(Kind::Inception);
    let extractor = match &args.metrics.inception {
        Some(path) => Some(FeatureExtractor::open(Kind::Inception, path, preprocess, device)?),
        None => None,
    };
    let lpips = match &args.vgg {
        Some(vgg) => Some(Lpips::open(vgg, args.lpips.as_ref().unwrap_or(vgg), device)?),
        None => None,
    };
    let mut names = args.names.as_deref().map(Rename::open).transpose()?.unwrap_or_default();
    let mut files = args.reconstruct.iter().map(|path| -> Result<Weights> {
        // The names tell the halves of a RAE apart.
        Ok(rae::as_whole(renamed(open_autoencoder(path)?, &mut names)?))
    });
    let mut weights = files.next().context("no autoencoder was given")??;
    for file in files {
        let file = file?;
        weights.tensors.extend(file.tensors);
        weights.unreadable.extend(file.unreadable);
        for (key, text) in file.metadata {
            weights.metadata.entry(key).or_insert(text);
        }
    }
    if let Some(note) = names.note() {
        eprintln!("note: {note}");
    }
    let reconstructor = Reconstructor::new(&weights, lpips, extractor, args.seed, device)?;
    let interrupted = on_interrupt("stopping")?;
    let reporter = Reporter::counting(count as u64, "images", args.json);
    reporter.message(format!("reconstructing on {id}"));
    let started = Instant::now();
    let progress = |done: usize| reporter.position(done as u64);
    let Some(quality) = reconstructor.run(&store, count, batch, &interrupted, &progress)? else {
        return Ok(Outcome::Interrupted);
    };
    reporter.finish();
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &args.pairs {
        write_whole(path, &quality.pairs.to_png(&[])?)?;
    }
    let result = json!({
        "version": env!("CARGO_PKG_VERSION"), "protocol": protocol,
        "sets": {"samples": {"path": args.samples.display().to_string(), "images": count,
                             "sizes": [[store.side(), store.side()]]}},
        "autoencoder": weights.fingerprint(), "metrics": metrics(&quality.scores),
        "notes": quality.notes,
    });
    if let Some(path) = &args.metrics.output_json {
        write_json(path, &result)?;
    }
    reporter.event("evaluated", result);
    let mut text = format!(
        "{}: {count} images of {} × {} in {seconds:.1} s ({:.1} images/s on {id})\n\n",
        args.samples.display(),
        store.side(),
        store.side(),
        count as f64 / seconds.max(1e-9)
    );
    table(&mut text, &quality.scores)?;
    for note in &quality.notes {
        text.push_str(&format!("\nnote: {note}."));
    }
    reporter.line(text.trim_end());
    Ok(Outcome::Done)
}
