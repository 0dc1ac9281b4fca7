//! `tintype convert`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tintype::weights::{Dtype, Weights, write_safetensors};

use super::model::{AverageArgs, NamesArgs};
use super::output::check_file;
use super::published::{DownloadArgs, FileOptions, Library};
use crate::data::made::sweep;
use tintype::files::{read_text, write_durably};
use tintype::generate::bytes;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path of the checkpoint: .pt, .ckpt, .bin, .safetensors, a shard index or a folder; or an address, or a
    /// published model's name
    input: PathBuf,
    /// Path of the .safetensors file to write
    output: PathBuf,
    /// Dtype of the floating-point tensors [default: unchanged]
    #[arg(long, value_enum)]
    dtype: Option<Format>,
    /// Model configuration to embed in the metadata
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    average: AverageArgs,
    #[command(flatten)]
    names: NamesArgs,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    download: DownloadArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    F32,
    F16,
    Bf16,
}

/// Runs the command.
///
/// # Errors
///
/// If the checkpoint, the table of names or one of the tensors to write cannot be read, a value does not fit into the dtype, or
/// the output exists or cannot be written.
pub fn run(mut args: Args) -> Result<()> {
    if args.output.extension().is_none_or(|e| e != "safetensors") {
        bail!("{} does not end in .safetensors", args.output.display());
    }
    if args.output.exists() && !args.force {
        bail!("{} exists; --force replaces it", args.output.display());
    }
    let library = Library::of_process();
    let mut options = FileOptions::new(&library);
    options.any(&mut args.input)?;
    options.local("--config", args.config.as_deref());
    options.local("--names", args.names.names.as_deref());
    check_file("OUTPUT", &args.output)?;
    options.resolve(args.download, false)?;
    let mut weights = args.names.apply(args.average.open(&args.input)?)?;
    check_readable(&weights)?;
    if let Some(note) = weights.raw_note() {
        eprintln!("note: {note}");
    }
    if let Some(names) = weights.take_left_out() {
        eprintln!("note: {}: {names}: no tensors, left out", weights.file);
    }
    if let Some(path) = &args.config {
        let text = read_text(path).with_context(|| format!("{} cannot be read", path.display()))?;
        if !is_mapping(&text) {
            bail!("--config {}: it is neither a JSON object nor a YAML mapping", path.display());
        }
        weights.set_config(&text);
    }
    if let Some(format) = args.dtype {
        let dtype = match format {
            Format::F32 => Dtype::F32,
            Format::F16 => Dtype::F16,
            Format::Bf16 => Dtype::BF16,
        };
        for (name, view) in &mut weights.tensors {
            if view.dtype.is_float() {
                *view = view.converted(dtype).with_context(|| {
                    format!("tensor {name:?} does not fit into {format:?}; use bf16 or f32")
                })?;
            }
        }
    }
    weights.metadata.insert("format".into(), "pt".into());
    let content = write_safetensors(&weights.tensors, &weights.metadata)
        .map_err(|e| anyhow::anyhow!("{}: {e}", args.output.display()))?;
    if let (Some(folder), Some(name)) = (args.output.parent(), args.output.file_name()) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        sweep(folder, |left| name == left)?;
    }
    let tensors = weights.tensors.len();
    // It may be its own output, and Windows replaces no file that is mapped.
    drop(weights);
    write_durably(&args.output, &content)?;
    let size = bytes(content.len() as u64);
    println!("{}: {tensors} tensors, {size}", args.output.display());
    Ok(())
}

/// Whether a configuration is a JSON object or, by its first line, a YAML mapping.
fn is_mapping(text: &str) -> bool {
    let text = text.trim_start();
    if text.starts_with('{') {
        return serde_json::from_str::<serde_json::Value>(text).is_ok();
    }
    let is_key = |line: &str| {
        let key = line.split_once(':').map(|(key, rest)| (key.trim(), rest));
        key.is_some_and(|(key, rest)| {
            !key.is_empty()
                && !key.contains('<')
                && (rest.is_empty() || rest.starts_with([' ', '\t']))
        })
    };
    let skipped = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---"
    };
    text.lines().find(skipped).is_some_and(is_key)
}

/// Tensors that are named before "and N more".
const NAMED: usize = 8;

/// Fails with the names of the tensors that cannot be read, and so not written.
fn check_readable(weights: &Weights) -> Result<()> {
    let unreadable = &weights.unreadable;
    if unreadable.is_empty() {
        return Ok(());
    }
    let named = unreadable.iter().take(NAMED).map(|(name, why)| format!("tensor {name:?}: {why}"));
    let more = match unreadable.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named.collect::<Vec<_>>().join("; ");
    bail!("{}: {named}{more}; they cannot be converted", weights.file)
}
