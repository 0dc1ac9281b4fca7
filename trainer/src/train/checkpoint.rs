//! Checkpoints: a folder per step, written under a temporary name and renamed, so that a kill at any
//! time leaves the previous one intact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tintype::weights::{TensorView, write_safetensors};

use super::record::Record;
use tintype::files::write_durably;

/// Subfolder of a run with its checkpoints.
pub const FOLDER: &str = "checkpoints";
const STATE_FILE: &str = "state.json";

/// The state of a run besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Steps skipped because of non-finite gradients.
    pub skipped: u64,
    /// Recipe and architecture; must match to resume.
    pub architecture: Value,
    /// Random seed.
    pub seed: u64,
    /// Global batch size.
    pub batch: usize,
    /// Its data and settings; earlier versions did not write it.
    #[serde(default)]
    pub record: Option<Record>,
}

/// One file of a checkpoint.
#[derive(Debug)]
pub struct TensorFile {
    /// Its name, such as `model.safetensors`.
    pub name: &'static str,
    /// Its tensors.
    pub tensors: BTreeMap<String, TensorView>,
    /// Its metadata; the configuration makes it open in `generate`.
    pub metadata: BTreeMap<String, String>,
}

/// Writes the checkpoint of a step.
///
/// # Errors
///
/// If a file cannot be written or the folder cannot be renamed; earlier checkpoints are then whole.
pub fn write(run: &Path, state: &State, files: &[TensorFile]) -> Result<PathBuf> {
    let folder = run.join(FOLDER);
    let path = folder.join(format!("{:08}", state.step));
    let temporary = folder.join(format!("{:08}.{}.tmp", state.step, std::process::id()));
    let result = write_into(&temporary, state, files).and_then(|()| {
        if path.exists() {
            delete(&path)?; // the same step, from before a resume
        }
        Ok(std::fs::rename(&temporary, &path)?)
    });
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result.with_context(|| {
        format!("the checkpoint {} cannot be written; earlier ones are whole", path.display())
    })?;
    Ok(path)
}

fn write_into(folder: &Path, state: &State, files: &[TensorFile]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for file in files {
        let bytes = write_safetensors(&file.tensors, &file.metadata).map_err(anyhow::Error::msg)?;
        write_durably(&folder.join(file.name), &bytes)?;
    }
    Ok(write_durably(&folder.join(STATE_FILE), &serde_json::to_vec_pretty(state)?)?)
}

/// The latest checkpoint of a run, if there is one; removes partially written ones.
///
/// # Errors
///
/// If the folder cannot be listed, a leftover of a killed process cannot be removed, or the state
/// of the latest checkpoint cannot be read.
pub fn latest(run: &Path) -> Result<Option<(PathBuf, State)>> {
    let folder = run.join(FOLDER);
    if !folder.exists() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "tmp") {
            std::fs::remove_dir_all(&path)?;
        }
    }
    match steps(run)?.pop() {
        Some((_, path)) => {
            let state = read_state(&path)?;
            Ok(Some((path, state)))
        }
        None => Ok(None),
    }
}

/// The state of a checkpoint.
///
/// # Errors
///
/// If the file is missing, unreadable, or not a checkpoint's state.
fn read_state(checkpoint: &Path) -> Result<State> {
    let file = checkpoint.join(STATE_FILE);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a checkpoint's state", file.display()))
}

/// All checkpoints of a run by their step, the latest last.
fn steps(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run.join(FOLDER))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Ok(step) = name.parse() {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Deletes all but the last `keep_last` checkpoints and those at multiples of `keep_every`.
///
/// # Errors
///
/// If the folder cannot be listed, or a checkpoint cannot be deleted.
pub fn prune(run: &Path, keep_last: usize, keep_every: u64) -> Result<()> {
    let all = steps(run)?;
    let old = all.len().saturating_sub(keep_last.max(1));
    for (step, path) in &all[..old] {
        if keep_every == 0 || !step.is_multiple_of(keep_every) {
            delete(path).with_context(|| format!("{} cannot be deleted", path.display()))?;
        }
    }
    Ok(())
}

/// Renames a checkpoint before deleting its files, so that a kill leaves no partial one.
fn delete(path: &Path) -> std::io::Result<()> {
    let hidden = path.with_extension(format!("{}.tmp", std::process::id()));
    if hidden.exists() {
        std::fs::remove_dir_all(&hidden)?;
    }
    std::fs::rename(path, &hidden)?;
    std::fs::remove_dir_all(&hidden)
}

/// Checks that architecture, seed and batch size match those of the run being resumed, and what it records of
/// data and settings unless `allow_changes`. Returns a note about what is not compared, or is another one now.
///
/// # Errors
///
/// If the architecture, the seed or the batch differs, or the data or a setting and changes are not allowed.
pub fn check_same(
    found: &State,
    wanted: &State,
    path: &Path,
    allow_changes: bool,
) -> Result<Option<String>> {
    let path = path.display();
    if found.architecture != wanted.architecture {
        bail!(
            "{path} is of another network ({} instead of {}); choose another --out, or set init.from to the checkpoint",
            found.architecture,
            wanted.architecture
        );
    }
    if (found.seed, found.batch) != (wanted.seed, wanted.batch) {
        bail!(
            "{path} was trained with seed {} and batch {}, the configuration says {} and {}; a run keeps both",
            found.seed,
            found.batch,
            wanted.seed,
            wanted.batch
        );
    }
    let (Some(recorded), Some(now)) = (&found.record, &wanted.record) else {
        return Ok(Some(format!(
            "{path} does not record its data, loss, EMA and optimizer settings; they are not compared"
        )));
    };
    let differences = recorded.differences(now).join(", ");
    if differences.is_empty() {
        return Ok(None);
    }
    if !allow_changes {
        bail!(
            "{path} was trained with other data or settings (recorded → now): {differences}; choose another --out, or set run.allow_changes = true to go on with the new ones"
        );
    }
    Ok(Some(format!("going on with other data or settings (recorded → now): {differences}")))
}
