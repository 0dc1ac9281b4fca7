//! `tintype compare`: images of several models at the same classes and seeds in one picture, with what they cost.

mod candidate;
mod measure;
mod peak;
mod spec;
mod table;

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tintype::device;
use tintype::generate::Settings;
use tintype::image::Rgb;
use tintype::image::sheet::{self, MOST_PIXELS};
use tintype::labels::{Labels, printable, short};
use tintype::precision::Precision;
use tintype::settings::Setting;

use self::candidate::{Asked, Candidate, classes};
use self::measure::{Measured, Measuring};
use self::spec::Spec;
use self::table::{LINES, table};
use super::Outcome;
use super::events::Reporter;
use super::face::sentence_among_models;
use super::interrupt::on_interrupt;
use super::numbers::{at_least, seed, whole};
use super::output::{Output, Place};
use super::published::{DownloadArgs, FileOptions, Library, entry_named};
use super::sampling::{Quality, SamplingArgs};

/// Key of the text in a picture that says how its rows were made.
const PNG_KEY: &str = "tintype-compare";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Models to compare, a row each: a published model's name, an address, the path of a checkpoint, or `emoji`,
    /// which is inside the program. KEY=VALUE after commas give it other files (config, names, vae, stats, guide), another
    /// average of its file (ema), settings (quality, steps, sampler, cfg, cfg-interval=LOW:HIGH and all others of the
    /// options below) and a label: last.pt,vae=vae.pt,steps=20,label=mine
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Class of the images, by name, synonym, part of a name or number; each gets columns of its own. Every model has
    /// to know it
    #[arg(long = "class", value_name = "CLASS", allow_negative_numbers = true)]
    classes: Vec<String>,
    /// Random seed of the first image of each class; further images use consecutive seeds
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    /// Images of each class and model
    #[arg(long, default_value_t = 1, value_parser = whole(Setting::Count), allow_negative_numbers = true)]
    count: usize,
    /// Steps and sampler of all models together: draft (8 steps), good (16) or best (the authors'); --steps and
    /// --sampler override it [default: best]
    #[arg(long, value_enum)]
    quality: Option<Quality>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Dtype of the networks: f32, f16 or bf16
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Batch size [default: 1 on the CPU, 8 on a GPU]
    #[arg(long, value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    batch: Option<usize>,
    /// The picture, a .png file; or a folder, which gets every image besides
    #[arg(long, default_value = "compare.png")]
    out: PathBuf,
    /// Replace files of the same name instead of writing beside them
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print progress and results as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If an option, a model or the device is not usable, a model does not know a class, or an image cannot be computed or
/// written.
pub fn run(args: Args) -> Result<Outcome> {
    let mut output = Output::prepare(&args.out, args.overwrite)?;
    let chosen = device::choose(&args.device)?;
    args.precision.on(&chosen.found.device)?;
    args.sampling.check()?;
    Setting::Count.check(args.count as f64)?;
    if args.seed.checked_add((args.count as u64).saturating_sub(1)).is_none() {
        bail!("--seed {} --count {}: the last seed is beyond {}", args.seed, args.count, u64::MAX);
    }
    let asked = Asked {
        classes: &args.classes,
        seed: args.seed,
        count: args.count,
        precision: args.precision,
        found: &chosen.found,
    };
    let candidates = candidates(&args, &asked)?;
    check_size(&args, &candidates)?;
    tell_other_names(&args.classes, &candidates);

    let models = candidates.len();
    let steps = candidates.iter().map(|candidate| candidate.model.all_steps(&asked)).sum();
    let reporter = Reporter::new(steps, args.json);
    let interrupted = on_interrupt("stopping after this step; there will be no picture of all")?;
    let batch = args.batch.unwrap_or(if chosen.found.id == "cpu" { 1 } else { 8 });
    let measuring =
        Measuring { asked: &asked, batch, reporter: &reporter, interrupted: &interrupted };
    let mut rows = Vec::with_capacity(models);
    let outcome = measure_all(&measuring, candidates, &mut output, &mut rows);
    reporter.finish();
    if !rows.is_empty() {
        table(&rows).iter().for_each(|line| reporter.line(line));
    }
    let done = rows.len();
    let outcome = outcome.inspect_err(|_| reporter.line(&incomplete(done, models)))?;
    let path = match outcome {
        Outcome::Done => Some(write_sheet(&args, &mut output, rows, &asked)?),
        Outcome::Interrupted => None,
    };
    reporter.event(
        "done",
        json!({"rows": done, "batch": batch, "interrupted": outcome == Outcome::Interrupted,
               "path": path.as_ref().map(|path| path.display().to_string())}),
    );
    reporter.line(&match path {
        Some(_) => format!(
            "on {} ({}), {}, batch size {batch}: {}",
            chosen.found.id,
            chosen.reason,
            args.precision,
            output.summary()
        ),
        None => incomplete(done, models),
    });
    Ok(outcome)
}

/// What there is to say where rows are missing.
fn incomplete(done: usize, models: usize) -> String {
    format!("{done} of {models} models are done; there is no picture of all")
}

/// Measures one model after the other; rows that are done stay where one fails.
fn measure_all(
    measuring: &Measuring<'_>,
    candidates: Vec<Candidate>,
    output: &mut Output,
    rows: &mut Vec<Measured>,
) -> Result<Outcome> {
    let Measuring { asked, reporter, interrupted, .. } = *measuring;
    let mut before = 0;
    for candidate in candidates {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(Outcome::Interrupted);
        }
        let name = candidate.model.name.clone();
        let steps = candidate.model.all_steps(asked);
        reporter.message(format!("loading {} on {}", printable(&name), asked.found.id));
        reporter.event("loading", json!({"name": name, "device": asked.found.id}));
        let Some(row) = among_models(&name, measuring.measure(candidate, before))? else {
            return Ok(Outcome::Interrupted);
        };
        reporter.event("row", row.json(asked));
        write_images(output, rows.len() + 1, &row, asked)?;
        rows.push(row);
        before += steps;
    }
    Ok(Outcome::Done)
}

/// The result, whose error names the model.
fn among_models<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| anyhow!("{}: {}", printable(name), sentence_among_models(&error)))
}

/// All models, looked into; what is not on this machine is fetched before, once that is agreed to.
fn candidates(args: &Args, asked: &Asked<'_>) -> Result<Vec<Candidate>> {
    let library = Library::of_process();
    let mut specs = Vec::with_capacity(args.models.len());
    for text in &args.models {
        let spec = Spec::parse(text, &args.sampling, args.quality);
        specs.push(spec.with_context(|| printable(text))?);
    }
    let mut published = Vec::with_capacity(specs.len());
    for spec in &specs {
        published.push(among_models(&spec.name, before_downloads(spec, &library, asked))?);
    }
    let mut options = FileOptions::of_keys(&library);
    for Spec { name, parts, .. } in &mut specs {
        among_models(name, options.parts(parts))?;
    }
    options.resolve(args.download, args.json)?;
    let open = |(spec, published): (&Spec, Option<Settings>)| {
        among_models(&spec.name, Candidate::open(spec, published, asked))
    };
    specs.iter().zip(published).map(open).collect()
}

/// The settings that a published name brings. What can be refused before gigabytes are fetched is refused: settings,
/// and classes of a published model of ImageNet.
fn before_downloads(spec: &Spec, library: &Library, asked: &Asked<'_>) -> Result<Option<Settings>> {
    spec.sampling.check()?;
    if let Some(entry) = library.network(&spec.parts)? {
        if let Some(preset) = entry.known_network() {
            let network = &preset.architecture;
            let guide = library.has_guide(entry, &spec.parts)?.then_some(network);
            spec.settings(network, entry.sampling)?.validate_with(network, guide)?;
        }
        if entry.classes == Some(1000) {
            classes(asked.classes, &Labels::imagenet())?;
        }
    }
    let model = spec.parts.model.model.as_deref();
    let entry = model.map(|value| entry_named(library, value)).transpose()?.flatten();
    Ok(entry.and_then(|entry| entry.sampling))
}

/// Refuses a picture that no memory should have to hold.
fn check_size(args: &Args, candidates: &[Candidate]) -> Result<()> {
    let side = |k: usize| candidates.iter().map(|c| c.model.image_size[k]).max().unwrap_or(0);
    let columns = args.classes.len().max(1).saturating_mul(args.count);
    let pixels = sheet::pixels([columns, candidates.len()], [0, 1].map(side), LINES);
    ensure!(
        pixels <= MOST_PIXELS,
        "{} × {columns} images with captions are a picture of {} million pixels; {} million are the most",
        candidates.len(),
        pixels / 1_000_000,
        MOST_PIXELS / 1_000_000
    );
    Ok(())
}

/// Says where a class has other names in other models: a number may mean another one there.
fn tell_other_names(asked: &[String], candidates: &[Candidate]) {
    for (place, class) in asked.iter().enumerate() {
        let names: Vec<(&str, String)> = candidates
            .iter()
            .filter_map(|Candidate { model, .. }| {
                let class = model.classes.get(place).copied().flatten()?;
                Some((model.name.as_str(), short(&model.labels.name(class)).to_lowercase()))
            })
            .collect();
        if names.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            let of_model = |(model, name): &(&str, String)| format!("{name} in {model}");
            let all = names.iter().map(of_model).collect::<Vec<_>>().join(", ");
            eprintln!("note: --class {}: {}", printable(class), printable(&all));
        }
    }
}

/// Writes a row's images where a folder was asked for, as `generate` does, with the number of their row before their
/// names.
fn write_images(
    output: &mut Output,
    number: usize,
    row: &Measured,
    asked: &Asked<'_>,
) -> Result<()> {
    let Place::Folder(folder) = output.place().clone() else { return Ok(()) };
    for picture in &row.pictures {
        let origin = row.model.origin(picture.spec, asked);
        let path = folder.join(format!("{number}-{}.png", origin.file_stem()));
        output.write(&path, &origin.to_png(&picture.image)?)?;
    }
    Ok(())
}

/// Writes the picture of all rows; its path.
fn write_sheet(
    args: &Args,
    output: &mut Output,
    rows: Vec<Measured>,
    asked: &Asked<'_>,
) -> Result<PathBuf> {
    let made: Vec<Value> = rows.iter().map(|row| row.json(asked)).collect();
    let heads = heads(args);
    let rows = rows.into_iter().map(|row| sheet::Row {
        caption: row.caption(),
        pictures: row.pictures.into_iter().map(|picture| picture.image).collect::<Vec<Rgb>>(),
    });
    let sheet = sheet::draw(&heads, &rows.collect::<Vec<_>>());
    let path = match output.place() {
        Place::File(path) => path.clone(),
        Place::Folder(folder) => folder.join("compare.png"),
    };
    let png = sheet.to_png(&[(PNG_KEY, &Value::Array(made).to_string())])?;
    Ok(output.write(&path, &png)?)
}

/// Class and seed of each column.
fn heads(args: &Args) -> Vec<String> {
    let (first, count) = (args.seed, args.count as u64);
    let seeds = || (0..count).map(move |k| format!("seed {}", first.wrapping_add(k)));
    match args.classes.as_slice() {
        [] => seeds().collect(),
        classes => {
            let of_class = |class| seeds().map(move |seed| format!("{class}, {seed}"));
            classes.iter().flat_map(of_class).collect()
        }
    }
}
