//! `tintype generate`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tintype::device;
use tintype::generate::{
    Event, Fingerprints, GenerateError, ImageSpec, ModelFiles, Origin, Picture, Pipeline, Request,
    Settings, between,
};
use tintype::image::Rgb;
use tintype::labels::printable;
use tintype::model::Architecture;
use tintype::precision::Precision;
use tintype::sampler::Stop;
use tintype::settings::{self, Setting};
use tintype::weights::Part;

use super::Outcome;
use super::events::Reporter;
use super::interrupt::on_interrupt;
use super::model::PartsArgs;
use super::numbers::{at_least, seed, whole};
use super::output::{Output, Place};
use super::published::{DownloadArgs, FileOptions, Library};
use super::sampling::{Quality, SamplingArgs};

/// White pixels between the images of a grid.
const GAP: usize = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Class labels: name, synonym, part of a name or number (see `tintype classes`)
    #[arg(value_name = "CLASS", allow_negative_numbers = true)]
    classes: Vec<String>,
    /// Random seed of the first image of each class; further images use consecutive seeds [default: 0]
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Interpolate between --seed and this seed: --count images per class, both ends included
    #[arg(long, value_name = "SEED", value_parser = settings::seed::parse, allow_negative_numbers = true)]
    to_seed: Option<u64>,
    /// Number of images per class
    #[arg(long, value_parser = whole(Setting::Count), allow_negative_numbers = true)]
    count: Option<usize>,
    /// Steps and sampler together: draft (8 steps), good (16) or best (the authors'); --steps and --sampler
    /// override it [default: best]
    #[arg(long, value_enum)]
    quality: Option<Quality>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    parts: PartsArgs,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Dtype of the network: f32, f16 or bf16 [default: f32, or the image's with --from]
    #[arg(long)]
    precision: Option<Precision>,
    /// Output folder, or a .png file
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Replace files of the same name instead of writing beside them
    #[arg(long)]
    overwrite: bool,
    /// Columns of the image grid; 0 disables it [default: one row per class, with one
    /// image each rows of 8]
    #[arg(long, value_name = "COLUMNS", value_parser = at_least::<usize>(0), allow_negative_numbers = true)]
    grid: Option<usize>,
    /// Also write the pixel stream's image beside the decoded latent (Hi-DiT)
    #[arg(long)]
    compare: bool,
    /// Batch size [default: 1 on the CPU, 8 on a GPU]
    #[arg(long, value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Reproduce this image from the settings in its metadata
    #[arg(long, value_name = "PNG", conflicts_with_all = ["classes", "seed", "to_seed", "count", "quality", "steps", "sampler", "cfg", "cfg_interval", "cfg_channels", "shift", "tau", "times", "cfg_adaptive", "eta", "s_noise", "s_churn", "s_tmin", "s_tmax", "rho", "sigma_min", "sigma_max"])]
    from: Option<PathBuf>,
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
/// If an option, the model or the device is not usable, or a picture cannot be computed or written.
pub fn run(mut args: Args) -> Result<Outcome> {
    let mut output = Output::prepare(&args.out, args.overwrite)?;
    let chosen = device::choose(&args.device)?;
    let library = Library::of_process();
    let origin = args.from.as_deref().map(read_origin).transpose()?;
    let asked = args.precision.or(origin.as_ref().map(|o| o.precision)).unwrap_or_default();
    asked.on(&chosen.found.device)?;
    check_before_downloads(&args, &library, output.place())?;
    // A picture that was made without a guide is made so again.
    let own_guide = origin.as_ref().is_none_or(|origin| origin.weights.guide.is_some());
    let mut options = FileOptions::new(&library);
    options.parts_guided(&mut args.parts, own_guide)?;
    let published = options.resolve(args.download, args.json)?;
    let started = Instant::now();
    let mut files = ModelFiles::open(&args.parts.paths())?;
    for note in files.notes() {
        eprintln!("note: {note}");
    }
    let mut fingerprints = Fingerprints::of(files.parts());
    if let (Some(origin), Some(path)) = (&origin, &args.from) {
        check_origin(origin, path, &fingerprints)?;
    }
    // Validates the request before the weights are loaded.
    let architecture = tintype::model::detect(&files.model)?;
    let mut settings = match &origin {
        Some(origin) => origin.settings,
        None => args.sampling.of_network(&architecture, published.settings, args.quality)?,
    };
    settings.keep_latent = args.compare;
    let guide = files.guide.as_ref().map(tintype::model::detect).transpose()?;
    settings.validate_with(&architecture, guide.as_ref())?;
    if files.guide.is_some() && settings.guidance.scale == 1.0 {
        eprintln!("note: --guide is not used: guidance is off at --cfg 1");
        (files.guide, fingerprints.guide) = (None, None);
    }
    let labels = tintype::labels::Labels::of(&files.model, architecture.num_classes());
    let specs = match &origin {
        Some(origin) => vec![origin.spec],
        None => specs(&args, &labels)?,
    };
    for (given, what) in [(&args.parts.vae, "--vae"), (&args.parts.stats, "--stats")] {
        if given.is_some() && architecture.latent_space().is_none() {
            eprintln!("note: {what} is not used: {} makes pixels", architecture.name());
        }
    }
    check_compare(&args, &architecture)?;
    let reporter = Reporter::new((specs.len() * settings.steps) as u64, args.json);
    let mut classes: Vec<usize> = specs.iter().filter_map(|spec| spec.class).collect();
    classes.dedup();
    for class in &classes {
        reporter.line(&format!("class {class}: {}", printable(&labels.name(*class))));
    }
    reporter.message(format!("loading on {}", chosen.found.id));
    let classes = classes.iter().map(|class| json!({"class": class, "name": labels.name(*class)}));
    reporter.event(
        "loading",
        json!({"model": files.model.file, "device": chosen.found.id, "reason": chosen.reason,
               "classes": classes.collect::<Vec<_>>()}),
    );
    let pipeline = files.load(asked, &chosen.found)?;
    drop(files);
    for (file, report) in pipeline.reports() {
        if !report.unexpected.is_empty() {
            eprintln!("warning: {file}: {report}");
        }
    }
    let batch = args.batch.unwrap_or(if chosen.found.id == "cpu" { 1 } else { 8 }).max(1);
    let mut job = Job {
        pipeline: &pipeline,
        settings,
        reporter: &reporter,
        interrupted: on_interrupt("stopping after this step; finished images are kept")?,
        origin: |spec: ImageSpec| Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            weights: fingerprints.clone(),
            class_name: spec.class.map_or("none".into(), |c| pipeline.labels().name(c)),
            spec,
            settings: Settings { keep_latent: false, ..settings },
            precision: asked,
            device: chosen.found.id.clone(),
        },
        output: &mut output,
        alone: specs.len() == 1,
        finished: Vec::new(),
    };
    let outcome = job.run(&specs, batch)?;
    let Job { finished, .. } = job;
    let evaluations: usize = finished.iter().map(|picture| picture.evaluations).sum();
    write_grid(&args, &mut output, &finished, specs.len())?;
    reporter.finish();
    let seconds = started.elapsed().as_secs_f64();
    reporter.event(
        "done",
        json!({"pictures": finished.len(), "evaluations": evaluations, "seconds": seconds, "interrupted": outcome == Outcome::Interrupted}),
    );
    // Where guidance ends early, how much it saved.
    let spent = match settings.agreement {
        Some(_) => format!(", {evaluations} evaluations"),
        None => String::new(),
    };
    reporter.line(&format!(
        "{} {}{spent} in {seconds:.1} s on {} ({}): {}",
        finished.len(),
        if finished.len() == 1 { "image" } else { "images" },
        chosen.found.id,
        chosen.reason,
        output.summary()
    ));
    Ok(outcome)
}

/// A generation job and its results.
struct Job<'a, F> {
    pipeline: &'a Pipeline,
    settings: Settings,
    reporter: &'a Reporter,
    interrupted: Arc<AtomicBool>,
    origin: F,
    output: &'a mut Output,
    alone: bool,
    finished: Vec<Picture>,
}

impl<F: Fn(ImageSpec) -> Origin> Job<'_, F> {
    fn run(&mut self, specs: &[ImageSpec], batch: usize) -> Result<Outcome> {
        for (number, images) in specs.chunks(batch).enumerate() {
            let request = Request { settings: self.settings, images: images.to_vec() };
            let before = number * batch;
            let mut failed = None;
            let result =
                pollster::block_on(self.pipeline.generate(&request, &mut async |event: Event<
                    '_,
                >| {
                    self.on_event(event, before, images).map_err(|stop| match stop {
                        Ok(stop) => stop,
                        Err(error) => {
                            failed = Some(error);
                            Stop::Cancelled
                        }
                    })
                }));
            match (result, failed) {
                (_, Some(error)) => return Err(error),
                (Ok(()), None) => {}
                (Err(GenerateError::Stopped(Stop::Cancelled)), None) => {
                    return Ok(Outcome::Interrupted);
                }
                (Err(error), None) => return Err(error.into()),
            }
        }
        Ok(Outcome::Done)
    }

    /// Reports progress and saves images. An inner `Ok` is a cancellation, an inner `Err` a failure.
    fn on_event(
        &mut self,
        event: Event<'_>,
        before: usize,
        images: &[ImageSpec],
    ) -> Result<(), std::result::Result<Stop, anyhow::Error>> {
        match event {
            Event::Step { index, total, time, .. } => {
                if self.interrupted.load(Ordering::Relaxed) {
                    return Err(Ok(Stop::Cancelled));
                }
                let name = |s: &ImageSpec| {
                    s.class.map_or("none".into(), |c| self.pipeline.labels().name(c))
                };
                let mut names: Vec<_> = images.iter().map(name).collect();
                names.dedup();
                self.reporter.message(printable(&names.join(", ")));
                self.reporter
                    .position((before * self.settings.steps + index * images.len()) as u64);
                self.reporter.event(
                    "step",
                    json!({"first_image": before, "step": index, "steps": total, "time": time}),
                );
                Ok(())
            }
            Event::Image(picture) => self.save(picture, before).map_err(Err),
        }
    }

    fn save(&mut self, mut picture: Picture, before: usize) -> Result<()> {
        picture.index += before;
        let origin = (self.origin)(picture.spec);
        let png = origin.to_png(&picture.image)?;
        let path = match self.output.place() {
            Place::File(path) if self.alone => Some(path.clone()),
            Place::File(_) => None, // the grid goes there
            Place::Folder(folder) => Some(folder.join(format!("{}.png", origin.file_stem()))),
        };
        if let Some(path) = path {
            let path = self.output.write(&path, &png)?;
            self.reporter.event(
                "image",
                json!({"index": picture.index, "class": origin.class_name, "number": picture.spec.class,
                       "seed": picture.spec.seed, "blend": picture.spec.blend,
                       "evaluations": picture.evaluations, "path": path.display().to_string()}),
            );
            if let Some(latent) = &picture.latent {
                let pair = Rgb::grid(&[picture.image.clone(), latent.clone()], 2, GAP);
                let path = path.with_extension("compare.png");
                self.output.write(&path, &origin.to_png(&pair)?)?;
            }
        }
        self.finished.push(picture);
        Ok(())
    }
}

/// Writes the image grid if requested.
fn write_grid(args: &Args, output: &mut Output, finished: &[Picture], wanted: usize) -> Result<()> {
    if finished.is_empty() || args.grid == Some(0) || wanted == 1 && args.grid.is_none() {
        return Ok(());
    }
    let path = match output.place() {
        // The image itself is there already, with its settings.
        Place::File(_) if wanted == 1 => return Ok(()),
        Place::File(path) => path.clone(),
        Place::Folder(folder) => folder.join("grid.png"),
    };
    let count = args.count.unwrap_or(1);
    let columns = args.grid.unwrap_or(if count > 1 { count } else { wanted.min(8) });
    let images: Vec<Rgb> = finished
        .iter()
        .map(|p| match &p.latent {
            Some(latent) => Rgb::grid(&[p.image.clone(), latent.clone()], 2, GAP),
            None => p.image.clone(),
        })
        .collect();
    output.write(&path, &Rgb::grid(&images, columns, GAP).to_png(&[])?)?;
    Ok(())
}

/// The requested images.
fn specs(args: &Args, labels: &tintype::labels::Labels) -> Result<Vec<ImageSpec>> {
    let count = args.count.unwrap_or(1);
    Setting::Count.check(count as f64)?;
    let classes = match (args.classes.as_slice(), labels.is_empty()) {
        ([], true) => vec![None],
        ([], false) => bail!("name at least one class; `tintype classes` lists them"),
        (_, true) => bail!("the model is unconditional; pass no class"),
        (names, false) => {
            names.iter().map(|n| Ok(Some(labels.find(n)?))).collect::<Result<Vec<_>>>()?
        }
    };
    let ends = ends(args)?;
    let first = args.seed.unwrap_or(0);
    if ends.is_none() && first.checked_add((count as u64).saturating_sub(1)).is_none() {
        bail!("--seed {first} --count {count}: the last seed is beyond {}", u64::MAX);
    }
    let of_class = |class| match ends {
        Some(ends) => between(class, ends, 0, count),
        None => {
            (0..count as u64).map(|k| ImageSpec::new(class, first.wrapping_add(k), 0)).collect()
        }
    };
    Ok(classes.into_iter().flat_map(of_class).collect())
}

/// The seeds to interpolate between, if there are two.
fn ends(args: &Args) -> Result<Option<[u64; 2]>> {
    let Some(to) = args.to_seed else { return Ok(None) };
    let from = args.seed.unwrap_or(0);
    if args.count.unwrap_or(1) < 2 {
        bail!("--to-seed {to}: interpolation needs --count 2 or more; both ends are images");
    }
    if from == to {
        bail!("--to-seed {to}: interpolation needs two seeds; --seed is {from}, too");
    }
    Ok(Some([from, to]))
}

fn check_compare(args: &Args, architecture: &Architecture) -> Result<()> {
    if args.compare && architecture.process().gate().is_none() {
        bail!("--compare needs a Hi-DiT, which generates both pixels and a latent");
    }
    Ok(())
}

/// What can be refused before gigabytes are fetched: several images in one file, settings, an
/// interpolation without its ends, classes of a published model of ImageNet.
fn check_before_downloads(args: &Args, library: &Library, place: &Place) -> Result<()> {
    args.sampling.check()?;
    ends(args)?;
    let images = args.classes.len().max(1).saturating_mul(args.count.unwrap_or(1));
    if images > 1 && args.grid == Some(0) && matches!(place, Place::File(_)) {
        bail!("--out {}: several images need a folder or a grid", args.out.display());
    }
    let Some(entry) = library.network(&args.parts)?.filter(|_| args.from.is_none()) else {
        return Ok(());
    };
    if let Some(preset) = entry.known_network() {
        let network = &preset.architecture;
        let guide = library.has_guide(entry, &args.parts)?.then_some(network);
        check_compare(args, network)?;
        let settings = args.sampling.of_network(network, entry.sampling, args.quality)?;
        settings.validate_with(network, guide)?;
    }
    if entry.classes == Some(1000) {
        specs(args, &tintype::labels::Labels::imagenet())?;
    }
    Ok(())
}

/// Reads the settings in an image's metadata.
fn read_origin(path: &Path) -> Result<Origin> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("--from {name} cannot be read"))?;
    Origin::read(&bytes).with_context(|| format!("--from {name}"))
}

/// An image is made again with the files that made it.
fn check_origin(origin: &Origin, path: &Path, now: &Fingerprints) -> Result<()> {
    let name = path.display();
    match origin.weights.other_part(now) {
        None => {}
        Some(Part::Autoencoder) => {
            bail!("--from {name} was decoded by another autoencoder; pass it with --vae");
        }
        Some(Part::Statistics) => {
            bail!("--from {name} was made with other latent statistics; pass them with --stats");
        }
        Some(Part::Guide) => match (&origin.weights.guide, &now.guide) {
            (None, _) => bail!("--from {name} was made without a guide; leave --guide out"),
            (_, None) => bail!("--from {name} was made with a guide; pass it with --guide"),
            _ => bail!("--from {name} was made with another guide; pass it with --guide"),
        },
        Some(_) => {
            bail!("--from {name} was generated by another model; pass that model with --model");
        }
    }
    Ok(())
}
