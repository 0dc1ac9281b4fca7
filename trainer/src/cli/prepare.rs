//! `tintype prepare`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tintype::files::read_text;
use tintype::labels::printable;

use super::Outcome;
use super::events::Reporter;
use super::force;
use super::interrupt::on_interrupt;
use super::numbers::at_least;
use crate::data::encode::images_to_hdf5;
use crate::data::prepare::{Plan, Progress, prepare};
use crate::data::source::{Options, Skipped, Source};
use crate::data::store::ImageStore;
use crate::rank::Rank;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dataset: a folder with one subfolder per class, a .tar or .zip of one (or a .tar of .tar
    /// archives, like ImageNet's training set), a folder of WebDataset .tar shards, or Hi-DiT's images.h5
    source: PathBuf,
    /// Output folder of the image store
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Image resolution; images are resized and center-cropped as in ADM
    #[arg(long, default_value_t = 256, value_parser = at_least::<usize>(0), allow_negative_numbers = true)]
    size: usize,
    /// Split: use only images below this subfolder, such as cifar10-train
    #[arg(long, value_name = "FOLDER", visible_alias = "root", alias = "within")]
    split: Option<String>,
    /// Number of folders around the class folders [default: found by itself]
    #[arg(long, value_name = "N")]
    class_depth: Option<usize>,
    /// Keep the labels of class folders without images
    #[arg(long)]
    allow_empty: bool,
    /// Class names: a text file with lines of folder name, space, class name
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Also write Hi-DiT's images.h5 and images_h5.json
    #[arg(long)]
    hdf5: bool,
    /// Replace a store of another source or size; only its own files are removed
    #[arg(long)]
    force: bool,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If an option or the source is not usable, or the store cannot be written or is damaged.
pub fn run(args: Args) -> Result<Outcome> {
    let started = Instant::now();
    if !(8..=8192).contains(&args.size) {
        bail!("--size {} is not between 8 and 8192", args.size);
    }
    let rank = Rank::from_environment()?;
    let options = Options {
        split: args.split.clone(),
        class_depth: args.class_depth,
        allow_empty: args.allow_empty,
        unlabelled: false,
    };
    let mut source = Source::open(&args.source, &options)?;
    let images_h5 = args.out.join("images.h5");
    if args.hdf5 && source.is_read_from(&images_h5) {
        bail!("--hdf5 would replace the source, {}; choose another --out", images_h5.display());
    }
    if let Some(names) = &args.names {
        rename_classes(&mut source.classes, names)?;
    }
    let interrupted =
        on_interrupt("stopping; finished shards are kept, run the same command to resume")?;
    let reporter = Reporter::counting(source.items.len() as u64, "images", args.json);
    reporter.line(&format!("{}: {}", args.source.display(), source.labelled_by));
    reporter.message("preparing".into());
    let plan = Plan {
        side: args.size,
        out: args.out.clone(),
        rank: rank.rank,
        world: rank.world,
        other: force::other(args.force),
    };
    let progress = Progress::default();
    let outcome = reporter.watch(&progress, &interrupted, || prepare(&source, &plan, &progress));
    let outcome = force::offered(outcome)?;
    for Skipped { name, reason } in outcome.skipped.iter().take(5) {
        eprintln!("warning: skipped {}: {}", printable(name), printable(reason));
    }
    if outcome.skipped.len() > 5 {
        let list = args.out.join("skipped.txt");
        eprintln!(
            "warning: {} images were skipped; {} lists them",
            outcome.skipped.len(),
            list.display()
        );
    }
    if progress.stop.into_inner() {
        return Ok(Outcome::Interrupted);
    }
    if !outcome.complete {
        reporter.line("the shards of this process are done; those of other processes are not");
        return Ok(Outcome::Done);
    }
    let store = verified(&args.out, &outcome.read, &reporter)?;
    if args.hdf5 {
        let written = images_to_hdf5(&store, &images_h5, plan.other, &Progress::default());
        force::offered(written)?;
    }
    let empty = without_images(&store);
    if !empty.is_empty() {
        let shown: Vec<String> = empty.iter().take(5).map(|class| printable(class)).collect();
        let more = if empty.len() > 5 { ", …" } else { "" };
        let classes = counted(empty.len(), "class has", "classes have");
        eprintln!("warning: {classes} no images: {}{more}", shown.join(", "));
    }
    if outcome.enlarged > 0 {
        eprintln!(
            "note: {} of {} images are smaller than {} pixels and were enlarged; --size sets the side",
            outcome.enlarged, outcome.images, args.size
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    let classes = store.description.classes.len();
    reporter.event(
        "done",
        json!({"images": outcome.images, "classes": classes, "skipped": outcome.skipped.len(),
               "skipped_by_reason": store.description.skipped_by_reason, "hidden": source.hidden,
               "enlarged": outcome.enlarged, "labelled_by": source.labelled_by,
               "resumed_shards": outcome.resumed, "shards_recorded_as_found": outcome.as_found,
               "seconds": seconds}),
    );
    reporter.line(&format!(
        "{}: {} of {} x {} in {}, {} skipped, {} ignored, {}, {seconds:.1} s",
        args.out.display(),
        counted(outcome.images, "image", "images"),
        args.size,
        args.size,
        counted(classes, "class", "classes"),
        outcome.skipped.len(),
        counted(source.hidden, "hidden file", "hidden files"),
        verification(store.description.shards.len(), outcome.as_found)
    ));
    Ok(Outcome::Done)
}

/// What is known of the checksums of so many shards. Of some there were none to compare with.
fn verification(shards: usize, as_found: usize) -> String {
    let found = counted(as_found, "shard", "shards");
    let found = format!("{found} of earlier runs or other processes recorded as found");
    match as_found {
        0 => "checksums verified".into(),
        all if all == shards => found,
        _ => format!("checksums verified, {found}"),
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Classes of which the store has no image.
fn without_images(store: &ImageStore) -> Vec<&String> {
    let mut has = vec![false; store.description.classes.len()];
    for label in store.labels().iter().flatten() {
        if let Some(has) = has.get_mut(*label) {
            *has = true;
        }
    }
    store
        .description
        .classes
        .iter()
        .zip(has)
        .filter(|(_, has)| !has)
        .map(|(name, _)| name)
        .collect()
}

/// Replaces folder names, such as WordNet IDs, by the class names in a file.
fn rename_classes(classes: &mut [String], file: &Path) -> Result<()> {
    let text =
        read_text(file).with_context(|| format!("--names {} cannot be read", file.display()))?;
    let names: BTreeMap<&str, &str> =
        text.lines().filter_map(|l| l.split_once([' ', '\t'])).collect();
    for class in classes {
        match names.get(class.as_str()) {
            Some(name) => *class = name.trim().to_string(),
            None => bail!("--names {} has no entry for the class {class}", file.display()),
        }
    }
    Ok(())
}

/// Opens the store and verifies the checksums of what has not been read yet.
fn verified(folder: &Path, read: &BTreeSet<String>, reporter: &Reporter) -> Result<ImageStore> {
    let store = ImageStore::open(folder)?;
    reporter.message("verifying".into());
    store.verify_except(read)?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_compared_is_not_called_verified() {
        assert_eq!(verification(3, 0), "checksums verified");
        let one = "1 shard of earlier runs or other processes recorded as found";
        assert_eq!(verification(3, 1), format!("checksums verified, {one}"));
        assert_eq!(verification(1, 1), one);
    }

    #[test]
    fn class_names_are_read_from_a_file_of_notepad() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("names.txt");
        let named = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("it is written");
            let mut classes = vec!["n01".to_string(), "n02".to_string()];
            rename_classes(&mut classes, &file).map(|()| classes)
        };
        let text = "\u{feff}n01 crane\r\nn02\tsmooth newt\r\n";
        assert_eq!(named(text.as_bytes()).expect("names"), ["crane", "smooth newt"]);
        let error = named(b"\xff\xfen\0").expect_err("UTF-16");
        assert!(format!("{error:#}").ends_with("it is UTF-16; save it as UTF-8"), "{error:#}");
        let error = named(b"n01 crane").expect_err("one is missing").to_string();
        assert!(error.ends_with("has no entry for the class n02"), "{error}");
    }
}
