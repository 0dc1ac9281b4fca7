//! Where samples go, and what they are made from.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use tintype::diffusion::guidance::Guidance;
use tintype::files::Identity;
use tintype::generate::{ModelFiles, Pipeline, Settings};
use tintype::weights::Weights;

use super::Args;
use crate::cli::force;
use crate::cli::output::{check_file, check_folder};
use crate::rank::Rank;
use crate::samples::{Replace, Samples};
use crate::train::run::is_run;

/// Refuses samples of another count, seed or settings, before the weights are here.
pub(super) fn check_other_making(
    args: &Args,
    settings: &Settings,
    model: &(String, u64),
) -> Result<()> {
    let identity = identity(args, settings, None);
    let folder = args.out.as_ref().map(|out| out.join(folder_name(args, settings, model)));
    let records = [
        folder.as_deref().map(Samples::record_of_folder),
        args.npz.as_deref().map(Samples::record_of_npz),
    ];
    let compare = |record: PathBuf| -> Result<()> { Ok(identity.check_known(&record)?) };
    force::offered(records.into_iter().flatten().try_for_each(compare))
}

/// Makes sure that outputs can be written.
pub(super) fn check_folders(out: Option<&Path>, npz: Option<&Path>) -> Result<()> {
    if let Some(out) = out {
        check_folder("--out", out, out)?;
    }
    match npz {
        Some(npz) => check_file("--npz", npz),
        None => Ok(()),
    }
}

/// What the samples are made from; without files, what is known before they are opened.
pub(super) fn identity(args: &Args, settings: &Settings, files: Option<&ModelFiles>) -> Identity {
    let mut identity = Identity::default().with("version", env!("CARGO_PKG_VERSION"));
    if let Some(files) = files {
        identity = identity
            .with("model", files.model.fingerprint())
            .with("autoencoder", files.vae.as_ref().map(Weights::fingerprint))
            .with("statistics", files.stats.as_ref().map(Weights::fingerprint));
    }
    let identity = identity
        .with("count", args.count)
        .with("labels", format!("{:?}", args.labels).to_lowercase())
        .with("seed", args.seed)
        .with("settings", json!(settings))
        .with("precision", json!(args.precision));
    match files.and_then(|files| files.guide.as_ref()) {
        Some(guide) => identity.with("guide", guide.fingerprint()),
        None => identity,
    }
}

/// The name of the folder of PNG files, as in the reference implementation but for the average and the guide.
fn folder_name(args: &Args, settings: &Settings, (model, step): &(String, u64)) -> String {
    let Guidance { scale, low, high, .. } = settings.guidance;
    let guide = args.parts.guide.as_deref().map(|path| model_name(Some(path), "").0);
    let guide = guide.map_or(String::new(), |guide| format!("-guide-{guide}"));
    let average = args.parts.model.average.ema;
    let average = average.map_or(String::new(), |number| format!("-ema{number}"));
    format!(
        "{model}{average}_{step:07}_cfg{scale}-{low}-{}{guide}-labelsampling-{}",
        if high > 1e9 { f64::INFINITY } else { high },
        format!("{:?}", args.labels).to_lowercase()
    )
}

/// Opens the outputs.
pub(super) fn open_sets(
    args: &Args,
    settings: &Settings,
    pipeline: &Pipeline,
    identity: &Identity,
    rank: Rank,
    model: &(String, u64),
) -> Result<Vec<Samples>> {
    let replace = Replace::by(rank, force::other(args.force));
    let mut sets = Vec::new();
    if let Some(out) = &args.out {
        let folder = out.join(folder_name(args, settings, model));
        sets.push(Samples::folder(&folder, identity, replace)?);
    }
    if let Some(npz) = &args.npz {
        sets.push(Samples::npz(npz, args.count, pipeline.image_size(), identity, replace)?);
    }
    Ok(sets)
}

/// Name and training step of a model, from its path and the file that was opened.
pub(super) fn model_name(path: Option<&Path>, opened: &str) -> (String, u64) {
    let Some(path) = path else { return ("emoji".into(), 0) };
    let name =
        |p: &Path| p.file_stem().map_or("model".into(), |n| n.to_string_lossy().into_owned());
    let step = |folder: &Path| name(folder).parse::<u64>().ok();
    if is_run(path) {
        return (name(path), Path::new(opened).parent().and_then(step).unwrap_or(0));
    }
    let of_run =
        |checkpoint: &Path| Some((name(checkpoint.parent()?.parent()?), step(checkpoint)?));
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    folder.and_then(of_run).unwrap_or_else(|| (name(path), 0))
}
