//! `tintype classes`

use std::io::Write;

use anyhow::{Result, bail};
use tintype::generate::ModelFiles;
use tintype::labels::{Labels, printable};
use tintype::model::detect;

use super::model::ModelArgs;
use super::published::{DownloadArgs, FileOptions, Library, entry_named};
use super::terminal::shown_json;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show only classes that contain this text
    #[arg(default_value = "")]
    search: String,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If the model cannot be read, no class contains the text, or standard output cannot be written.
pub fn run(mut args: Args) -> Result<()> {
    let labels = labels(&mut args)?;
    let found = labels.search(&args.search);
    if found.is_empty() {
        // The same error as in `generate`, with near matches.
        match labels.find(&args.search) {
            Err(error) => bail!(error),
            Ok(_) => bail!("the model has no classes"),
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let list: Vec<_> = found
            .iter()
            .map(|(class, name)| serde_json::json!({"class": class, "name": name}))
            .collect();
        writeln!(out, "{}", shown_json(&serde_json::Value::Array(list).to_string()))?;
        return Ok(());
    }
    for (class, name) in found {
        writeln!(out, "{class:>4}  {}", printable(name))?;
    }
    Ok(())
}

/// ImageNet's classes of a published model, for which nothing needs to be fetched; else those of the checkpoint.
fn labels(args: &mut Args) -> Result<Labels> {
    let library = Library::of_process();
    let published = args.model.model.as_deref().map(|value| entry_named(&library, value));
    if published.transpose()?.flatten().is_some_and(|entry| entry.classes == Some(1000)) {
        return Ok(Labels::imagenet());
    }
    let mut options = FileOptions::new(&library);
    options.model(&mut args.model)?;
    // Standard output is one JSON document.
    options.resolve(args.download, false)?;
    let files = ModelFiles::open(&args.model.paths())?;
    for note in &files.notes {
        eprintln!("note: {note}");
    }
    let classes = detect(&files.model)?.num_classes();
    Ok(Labels::of(&files.model, classes))
}
