//! Checkpoints on disk, memory-mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use super::WeightsError;
use super::store::Weights;

/// Opens a `.safetensors`, `.pt` or `.ckpt` file, a sharded checkpoint by its
/// `*.safetensors.index.json`, a folder that holds one of them (EMA weights before raw ones),
/// or a training run, whose latest checkpoint is taken.
///
/// # Errors
///
/// * [`WeightsError::Io`] where a file cannot be opened, read or mapped
/// * [`WeightsError::Format`] where the folder holds no checkpoint, a file is damaged or of no
///   supported container, or a shard lacks a tensor of the index
pub fn open(path: &Path) -> Result<Weights, WeightsError> {
    let name = path.display().to_string();
    if path.is_dir() {
        let candidates =
            ["ema.safetensors", "model.safetensors.index.json", "model.safetensors", "model.pt"];
        let found = candidates.iter().map(|c| path.join(c)).find(|p| p.is_file());
        let found = found.or_else(|| latest_checkpoint(path));
        return match found {
            Some(file) => open(&file),
            None => Err(WeightsError::Format {
                file: name,
                problem: format!("the folder holds none of {}", candidates.join(", ")),
            }),
        };
    }
    if name.ends_with(".index.json") {
        return open_sharded(path);
    }
    Weights::from_bytes(map(path)?, &name)
}

/// The last folder of a run's `checkpoints`; their names are zero-padded steps.
fn latest_checkpoint(run: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(run.join("checkpoints")).ok()?;
    let is_step = |p: &std::path::PathBuf| {
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
    let text = std::fs::read_to_string(index)
        .map_err(|source| WeightsError::Io { path: file.clone(), source })?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| problem(format!("not a shard index: {e}")))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut all = Weights { file: file.clone(), ..Weights::default() };
    for shard in weight_map.values().collect::<BTreeSet<_>>() {
        if Path::new(shard).components().count() != 1 {
            return Err(problem(format!("shard {shard:?} is not a file beside the index")));
        }
        let weights =
            open(&folder.join(shard))?.filtered(|name| weight_map.get(name) == Some(shard));
        all.metadata.extend(weights.metadata);
        all.tensors.extend(weights.tensors);
        all.unreadable.extend(weights.unreadable);
    }
    match weight_map.keys().find(|name| !all.contains(name)) {
        Some(name) => Err(problem(format!("tensor {name:?} is not in its shard"))),
        None => Ok(all),
    }
}
