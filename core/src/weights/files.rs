//! Checkpoints on disk, memory-mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::WeightsError;
use super::diffusers::{describes_autoencoder, from_diffusers, is_diffusers};
use super::prefixes::{OF_AUTOENCODER, unwrapped};
use super::pytorch::is_pytorch;
use super::rename::Rename;
use super::source::Bytes;
use super::store::{AVERAGES, Weights};
use crate::files::read_text;
use crate::model::rae;

/// Names of weights in a folder, the preferred ones first: forms of one network.
const WEIGHTS: [&str; 6] = [
    "ema.safetensors",
    "model.safetensors.index.json",
    "model.safetensors",
    "model.pt",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// The same as diffusers names them.
const DIFFUSERS: [&str; 5] = [
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
];
/// Ends of the names of weights, for a folder with one file of them.
const ENDINGS: [&str; 5] = ["safetensors", "pt", "pth", "ckpt", "bin"];
/// Files of a folder that an error lists.
const LISTED: usize = 12;
/// How often a run's latest checkpoint is looked for.
const TRIES: usize = 20;
/// End of the name of a shard index.
const INDEX: &str = ".safetensors.index.json";

/// Opens a `.safetensors`, `.pt`, `.ckpt` or `.bin` file, a sharded checkpoint by its
/// `*.safetensors.index.json`, a folder that holds one of them (EMA weights before raw ones,
/// safetensors before PyTorch's; else the only file of weights), or a training run, whose latest checkpoint is taken.
///
/// An autoencoder under diffusers' names is renamed, with the `config.json` that lies beside it
/// ([`from_diffusers`]); a RAE's decoder gets the `config.json` beside it as metadata.
///
/// # Errors
///
/// * [`WeightsError::Io`] where a file cannot be opened, read or mapped
/// * [`WeightsError::Format`] where the folder holds no checkpoint or several, a file is damaged or
///   of no supported container, or a shard lacks a tensor of the index
pub fn open(path: &Path) -> Result<Weights, WeightsError> {
    if path.is_dir() {
        return open_folder(path, |found| Ok(with_averages(open(found)?, found)));
    }
    let is_index = path.to_string_lossy().ends_with(".index.json");
    let weights = if is_index { open_sharded(path)? } else { stored(path, None)? };
    in_our_names(weights, path)
}

/// Opens one of the averages that a checkpoint holds, counted from 1: of a PyTorch file the one that [`open`] takes, then
/// others of the same tensors in the file's order, such as JiT's `model_ema1` and `model_ema2`; of a training run
/// `ema.safetensors`, `ema_2.safetensors` and so on.
///
/// # Errors
///
/// * [`WeightsError::Format`] where it has no such average, which names those that there are
/// * all of [`open`]
pub fn open_average(path: &Path, number: usize) -> Result<Weights, WeightsError> {
    if path.is_dir() {
        return open_folder(path, |found| match found.ends_with(WEIGHTS[0]) {
            true => open_of_run(found, number),
            false => open_average(found, number),
        });
    }
    in_our_names(stored(path, Some(number))?, path)
}

/// An average of a training run, which has a file for each, beside the first of them.
fn open_of_run(first: &Path, number: usize) -> Result<Weights, WeightsError> {
    let path = first.with_file_name(name_in_run(number));
    if path.is_file() {
        return Ok(with_averages(open(&path)?, first));
    }
    let names = names_of_run(first).join(", ");
    let file = first.parent().unwrap_or(first).display().to_string();
    let problem = format!("it holds no average {number}; its averages are {names}");
    Err(WeightsError::Format { file, problem })
}

/// The file of an average of a training run.
fn name_in_run(number: usize) -> String {
    match number {
        1 => WEIGHTS[0].to_string(),
        _ => format!("ema_{number}.safetensors"),
    }
}

/// The files of the averages of a training run, in the order of their numbers.
fn names_of_run(first: &Path) -> Vec<String> {
    let is_there = |name: &String| first.with_file_name(name).is_file();
    (1..).map(name_in_run).take_while(is_there).collect()
}

/// Names the averages that there are to choose from where `found`, by which a folder was opened, is the first of several
/// of a training run.
fn with_averages(mut weights: Weights, found: &Path) -> Weights {
    if found.ends_with(WEIGHTS[0]) {
        let names = names_of_run(found);
        if names.len() > 1 {
            weights.metadata.insert(AVERAGES.into(), json!(names).to_string());
        }
    }
    weights
}

/// Opens an autoencoder, as [`open`] does; from a checkpoint of joint training, which opens as its network, takes
/// the autoencoder ([`autoencoder_in`]).
///
/// # Errors
///
/// All of [`open`].
pub fn open_autoencoder(path: &Path) -> Result<Weights, WeightsError> {
    if path.is_dir() {
        return open_folder(path, open_autoencoder);
    }
    let opened = open(path);
    if opened.as_ref().is_ok_and(is_autoencoder) {
        return opened;
    }
    autoencoder_in(path)?.map_or(opened, Ok)
}

/// Opens the autoencoder that a PyTorch checkpoint holds beside its network
/// ([`pytorch_autoencoder`](Weights::pytorch_autoencoder)); `None` where it holds none, and for other files.
///
/// # Errors
///
/// All of [`open`].
pub fn autoencoder_in(path: &Path) -> Result<Option<Weights>, WeightsError> {
    if path.is_dir() {
        return open_folder(path, autoencoder_in);
    }
    let bytes = map(path)?;
    if !is_pytorch(&bytes) {
        return Ok(None);
    }
    let found = Weights::pytorch_autoencoder(bytes, &path.display().to_string())?;
    found.map(|weights| in_our_names(weights, path)).transpose()
}

fn is_autoencoder(weights: &Weights) -> bool {
    OF_AUTOENCODER.iter().any(|name| weights.contains(name))
}

/// Without prefixes of wrappers, and an autoencoder with the configuration that lies beside it: under CompVis' names
/// where it has diffusers'.
fn in_our_names(weights: Weights, path: &Path) -> Result<Weights, WeightsError> {
    let mut weights = unwrapped(weights)?;
    if is_diffusers(&weights) {
        let config = config_beside(path, describes_autoencoder)?;
        return from_diffusers(weights, config.as_deref());
    }
    if rae::is_decoder(&weights)
        && weights.metadata.get("config").is_none_or(|text| !rae::describes_decoder(text))
        && let Some(config) = config_beside(path, rae::describes_decoder)?
    {
        weights.metadata.insert("config".into(), config);
    }
    Ok(weights)
}

/// Gives the tensors of an opened checkpoint the names of a table. An autoencoder may be under diffusers' names before
/// or after.
///
/// # Errors
///
/// * [`WeightsError::Names`] where two tensors would have one name
/// * [`WeightsError::Io`] and [`WeightsError::Format`] where the `config.json` of an autoencoder cannot be read
pub fn renamed(weights: Weights, names: &mut Rename) -> Result<Weights, WeightsError> {
    if names.is_empty() {
        return Ok(weights);
    }
    let weights = names.apply(weights)?;
    let path = PathBuf::from(&weights.file);
    in_our_names(weights, &path)
}

/// Opens what a folder holds. A run in training may delete a checkpoint after it was found here; there is a later
/// one then.
fn open_folder<T>(
    folder: &Path,
    open: impl Fn(&Path) -> Result<T, WeightsError>,
) -> Result<T, WeightsError> {
    for _ in 1..TRIES {
        let found = in_folder(folder)?;
        let opened = open(&found);
        if opened.is_ok() || found.exists() {
            return opened;
        }
    }
    open(&in_folder(folder)?)
}

/// The checkpoint in a folder; a folder itself where that is a run's.
fn in_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    let preferred =
        |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let mut found: Vec<PathBuf> =
        [preferred(&WEIGHTS), preferred(&DIFFUSERS)].into_iter().flatten().collect();
    if found.is_empty() {
        found = indices(folder);
    }
    if found.is_empty() {
        found.extend(latest_checkpoint(folder));
    }
    if found.is_empty() {
        let is_weights = |name: &String| {
            let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ENDINGS.contains(&ending)) && folder.join(name).is_file()
        };
        found = names_in(folder).iter().filter(|n| is_weights(n)).map(|n| folder.join(n)).collect();
    }
    let problem = match found.as_slice() {
        [file] => return Ok(file.clone()),
        [] => format!(
            "the folder holds none of {}, {} and no other *{INDEX}; {}",
            WEIGHTS.join(", "),
            DIFFUSERS.join(", "),
            listed(&names_in(folder))
        ),
        several => {
            let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
            let names: Vec<String> = several.iter().filter_map(name).collect();
            format!("the folder holds {}; choose one of these files", names.join(" and "))
        }
    };
    Err(WeightsError::Format { file: folder.display().to_string(), problem })
}

/// The names of what is in a folder, sorted, without hidden ones: macOS keeps `._NAME` beside a file on foreign disks.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// What is in a folder, in words.
fn listed(names: &[String]) -> String {
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match names {
        [] => "it is empty".into(),
        names => format!("in it: {}{more}", names[..names.len().min(LISTED)].join(", ")),
    }
}

/// All shard indices in a folder.
fn indices(folder: &Path) -> Vec<PathBuf> {
    let names = names_in(folder).into_iter().filter(|name| name.ends_with(INDEX));
    names.map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// The text of the `config.json` beside an autoencoder, where there is one that describes it.
fn config_beside(file: &Path, describes: fn(&str) -> bool) -> Result<Option<String>, WeightsError> {
    let path = file.with_file_name("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let io = |source| WeightsError::Io { path: path.display().to_string(), source };
    let text = read_text(&path).map_err(io)?;
    Ok(Some(text).filter(|text| describes(text)))
}

/// Whether the text of a configuration is that of an autoencoder, and of no network: diffusers' words, or those of
/// transformers' ViT-MAE, which a RAE's decoder is.
pub fn is_autoencoder_config(text: &str) -> bool {
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    is_json && (describes_autoencoder(text) || rae::describes_decoder(text))
}

/// A file's tensors under the names that they have there; of a PyTorch file the average of a number, where one is asked
/// for.
fn stored(path: &Path, average: Option<usize>) -> Result<Weights, WeightsError> {
    let file = path.display().to_string();
    Weights::as_stored(Bytes::Mapped(Arc::new(map(path)?)), &file, average)
}

/// The last folder of a run's `checkpoints`; their names are zero-padded steps.
fn latest_checkpoint(run: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(run.join("checkpoints")).ok()?;
    let is_step = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
    };
    entries.filter_map(|e| Some(e.ok()?.path())).filter(is_step).max()
}

fn map(path: &Path) -> Result<memmap2::Mmap, WeightsError> {
    let io = |source| WeightsError::Io { path: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the file must not be truncated while it is mapped. Checkpoints are written under a
    // temporary name and renamed, so a complete file under its final name does not change.
    unsafe { memmap2::Mmap::map(&file) }.map_err(io)
}

fn open_sharded(index: &Path) -> Result<Weights, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let file = index.display().to_string();
    let problem = |problem: String| WeightsError::Format { file: file.clone(), problem };
    let text =
        read_text(index).map_err(|source| WeightsError::Io { path: file.clone(), source })?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| problem(format!("not a shard index: {e}")))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut all = Weights { file: file.clone(), ..Weights::default() };
    for shard in weight_map.values().collect::<BTreeSet<_>>() {
        if Path::new(shard).components().count() != 1 {
            return Err(problem(format!("shard {shard:?} is not a file beside the index")));
        }
        let weights =
            stored(&folder.join(shard), None)?.filtered(|name| weight_map.get(name) == Some(shard));
        all.metadata.extend(weights.metadata);
        let before = all.tensors.len();
        let tensors = weights.tensors.into_iter();
        all.tensors.extend(tensors.map(|(name, view)| (name, view.behind(before))));
        all.unreadable.extend(weights.unreadable);
    }
    match weight_map.keys().find(|name| !all.contains(name)) {
        Some(name) => Err(problem(format!("tensor {name:?} is not in its shard"))),
        None => Ok(all),
    }
}
