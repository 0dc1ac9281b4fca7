//! Checkpoints: a folder per step, written under a temporary name and renamed, so that a kill at any
//! time leaves the previous one intact.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tintype::files::{rename, sync, sync_folder, write_durably};
use tintype::weights::{SaveError, TensorView, write_safetensors_to};

use super::config::Config;
use super::critical;
use super::record::{Record, differences};

/// Subfolder of a run with its checkpoints.
pub const FOLDER: &str = "checkpoints";
const STATE_FILE: &str = "state.json";
/// How often the latest checkpoint of a run in training is looked for.
const TRIES: usize = 20;
/// How long a machine's view of a shared folder may be old.
const VISIBLE: Duration = Duration::from_secs(60);

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
    /// Whether the evaluation of its step, or of one before, is still to be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_evaluation: bool,
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

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or a folder cannot be written.
    #[error("the checkpoint {} cannot be written; earlier ones are whole", .path.display())]
    Write {
        /// The checkpoint.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It would hold a number that is NaN or infinite.
    #[error(
        "the checkpoint {} is not written, since {tensor} of {file} is not finite; earlier ones are whole",
        .path.display()
    )]
    NotFinite {
        /// The checkpoint.
        path: PathBuf,
        /// The file in it.
        file: &'static str,
        /// The tensor in that.
        tensor: String,
    },
}

impl CheckpointError {
    /// Whether another try may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Write { .. })
    }

    /// Whether the disk is full, or as much of it as somebody may use.
    pub fn is_full(&self) -> bool {
        let full = |e: &io::Error| {
            matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self, Self::Write { source, .. } if full(source))
    }
}

/// Writes the checkpoint of a step, and returns once it would survive a loss of power.
///
/// # Errors
///
/// * [`CheckpointError::Write`] if a file cannot be written or the folder cannot be renamed
/// * [`CheckpointError::NotFinite`] if a tensor holds NaN or an infinite number
///
/// Earlier checkpoints are whole then.
pub fn write(run: &Path, state: &State, files: &[TensorFile]) -> Result<PathBuf, CheckpointError> {
    let path = of_step(run, state.step);
    let failed = |source| CheckpointError::Write { path: path.clone(), source };
    for file in files {
        for (name, view) in &file.tensors {
            if !view.is_finite().map_err(failed)? {
                let (path, tensor) = (path.clone(), name.clone());
                return Err(CheckpointError::NotFinite { path, file: file.name, tensor });
            }
        }
    }
    let temporary = temporary(run, state.step);
    let result = write_into(&temporary, state, files).and_then(|()| place(&temporary, &path));
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result.map_err(failed)?;
    Ok(path)
}

/// Writes the state of a checkpoint again, if there is one of its step.
///
/// # Errors
///
/// If the file cannot be written; the state before is whole then.
pub fn amend(run: &Path, state: &State) -> Result<()> {
    let file = of_step(run, state.step).join(STATE_FILE);
    if file.exists() {
        let text = serde_json::to_vec_pretty(state)?;
        let _whole = critical::begin();
        write_durably(&file, &text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// Whether there is a checkpoint of a step.
pub fn exists(run: &Path, step: u64) -> bool {
    of_step(run, step).join(STATE_FILE).exists()
}

fn of_step(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("{step:08}"))
}

/// The name of a checkpoint that is being written.
fn temporary(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("{step:08}.{}.tmp", std::process::id()))
}

fn write_into(folder: &Path, state: &State, files: &[TensorFile]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for file in files {
        let out = File::create(folder.join(file.name))?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        write_safetensors_to(&mut out, &file.tensors, &file.metadata).map_err(|e| match e {
            SaveError::Io(source) => source,
            format => io::Error::other(format),
        })?;
        sync(&out.into_inner().map_err(|e| e.into_error())?)?;
    }
    // The last one; with its name, those of the others reach the disk.
    write_durably(&folder.join(STATE_FILE), &serde_json::to_vec_pretty(state)?)
        .map_err(|e| e.source)
}

/// Gives a whole checkpoint its name, for good.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    // The same step, from before a resume; it goes once the new one is there.
    let old = path.exists().then(|| hidden(path));
    if let Some(old) = &old {
        rename(path, old)?;
    }
    if let Err(error) = rename(temporary, path) {
        if let Some(old) = &old {
            let _ = rename(old, path);
        }
        return Err(error);
    }
    sync_folder(path)?;
    // The folder of checkpoints may be new, too.
    path.parent().map_or(Ok(()), sync_folder)?;
    if let Some(old) = &old {
        let _ = std::fs::remove_dir_all(old); // else `prune` does
    }
    Ok(())
}

/// The latest checkpoint of a run, if there is one. Changes nothing, so a run in training may be read; where that
/// deletes the checkpoint meanwhile, the next later one is taken.
///
/// # Errors
///
/// If the folder cannot be listed, or the state of the latest checkpoint cannot be read.
pub fn latest(run: &Path) -> Result<Option<(PathBuf, State)>> {
    for _ in 1..TRIES {
        let Some((_, path)) = steps(run)?.pop() else { return Ok(None) };
        let state = read_state(&path);
        if state.is_ok() || path.exists() {
            return Ok(Some((path, state?)));
        }
    }
    bail!("the checkpoints of {} are deleted while they are read", run.display())
}

/// The checkpoint with the state that rank 0 has found, for a rank of another machine, whose view of a shared folder may
/// be a minute old.
///
/// # Errors
///
/// If it does not appear, its state cannot be read, or is that of another run.
pub fn of_rank_0(run: &Path, state: &State) -> Result<PathBuf> {
    let step = state.step;
    let path = of_step(run, step);
    let begun = Instant::now();
    while !exists(run, step) && begun.elapsed() < VISIBLE {
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(
        exists(run, step),
        "rank 0 resumes {}, which is not there on this machine; --out has to be a folder that all machines share",
        path.display()
    );
    // Whether an evaluation is owed is written again later.
    let found = State { owes_evaluation: state.owes_evaluation, ..read_state(&path)? };
    ensure!(
        found == *state,
        "{} is not the checkpoint that rank 0 resumes; --out has to be a folder that all machines share",
        path.display()
    );
    Ok(path)
}

/// Removes what a killed process left of a checkpoint. Only for the owner of a run, while it writes none.
///
/// # Errors
///
/// If the folder cannot be listed, or something in it cannot be removed; the rest is, and the first error is told.
pub fn tidy(run: &Path) -> Result<()> {
    let folder = run.join(FOLDER);
    if !folder.exists() {
        return Ok(());
    }
    let mut removed = Ok(());
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if is_temporary(&path) {
            let gone = std::fs::remove_dir_all(&path);
            let cannot = || format!("{} cannot be deleted", path.display());
            removed = removed.and(gone.with_context(cannot));
        }
    }
    removed
}

/// Whether a path is a checkpoint that was being written or deleted, such as `00000004.123.tmp`.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let step = name.strip_suffix(".tmp").and_then(|name| name.split('.').next());
    step.is_some_and(|step| step.parse::<u64>().is_ok()) && path.is_dir()
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
    let folder = run.join(FOLDER);
    if !folder.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Ok(step) = name.parse() {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Deletes all but the last `keep_last` checkpoints and those at multiples of `keep_every`. Only for the owner of
/// a run, while it writes none.
///
/// # Errors
///
/// If the folder cannot be listed, or a checkpoint cannot be deleted; the others are, and the first error is told.
pub fn prune(run: &Path, keep_last: usize, keep_every: u64) -> Result<()> {
    let all = steps(run)?;
    let old = all.len().saturating_sub(keep_last.max(1));
    let mut deleted = Ok(());
    for (step, path) in &all[..old] {
        if keep_every == 0 || !step.is_multiple_of(keep_every) {
            let cannot = || format!("{} cannot be deleted", path.display());
            deleted = deleted.and(delete(path).with_context(cannot));
        }
    }
    // What could not be deleted the last time.
    let tidied = tidy(run);
    deleted.and(tidied)
}

/// Renames a checkpoint before deleting its files, so that a kill leaves no partial one.
fn delete(path: &Path) -> io::Result<()> {
    let hidden = hidden(path);
    if hidden.exists() {
        std::fs::remove_dir_all(&hidden)?;
    }
    // Once: what Windows refuses while a reader has a file of it open, `prune` does after the next checkpoint.
    std::fs::rename(path, &hidden)?;
    std::fs::remove_dir_all(&hidden)
}

/// The name of a checkpoint that is about to be deleted.
fn hidden(path: &Path) -> PathBuf {
    path.with_extension(format!("old-{}.tmp", std::process::id()))
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
            "{path} is of another network (there → now): {}; choose another --out, or set init.from to the checkpoint",
            differences(&found.architecture, &wanted.architecture).join(", ")
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

/// Checks that a run may go on with the seed, the batch size and the settings of a configuration, before its data and
/// its network are there to be compared.
///
/// # Errors
///
/// As [`check_same`].
pub fn check_settings(found: &State, config: &Config, path: &Path) -> Result<()> {
    let run = config.run();
    let settings = config.recorded()?;
    let record = found.record.as_ref().map(|then| Record { settings, data: then.data.clone() });
    let wanted = State { seed: run.seed, batch: run.batch, record, ..found.clone() };
    check_same(found, &wanted, path, run.allow_changes).map(|_note| ())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The state of a run after so many steps.
    pub fn state(step: u64) -> State {
        State {
            step,
            skipped: 0,
            architecture: Value::Null,
            seed: 0,
            batch: 1,
            record: None,
            owes_evaluation: false,
        }
    }

    /// A checkpoint of one tensor.
    pub fn files(values: &[f32]) -> Vec<TensorFile> {
        let view = TensorView::from_f32(vec![values.len()], values).expect("they fit");
        let tensors = BTreeMap::from([("weight".to_string(), view)]);
        vec![TensorFile { name: "model.safetensors", tensors, metadata: BTreeMap::new() }]
    }

    /// What is in a run's folder of checkpoints.
    pub fn names(run: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(run.join(FOLDER)).expect("a folder");
        let name = |e: io::Result<std::fs::DirEntry>| e.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(|e| name(e).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Lets the next try to write a checkpoint of [`files`] meet a full disk; it takes that away with its other traces.
    #[cfg(target_os = "linux")]
    pub fn fill_disk(run: &Path, step: u64) {
        let folder = temporary(run, step);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("model.safetensors");
        std::os::unix::fs::symlink("/dev/full", file).expect("a link");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_from_other_trouble_and_keeps_the_checkpoint_before() {
        let run = tempfile::tempdir().expect("a folder");
        write(run.path(), &state(1), &files(&[1.0])).expect("it writes");
        fill_disk(run.path(), 2);
        let error = write(run.path(), &state(2), &files(&[2.0])).expect_err("it is full");
        assert!(error.is_full() && error.may_pass(), "{error}");
        assert_eq!(names(run.path()), ["00000001"]);
        write(run.path(), &state(2), &files(&[2.0])).expect("there is room");
        assert_eq!(names(run.path()), ["00000001", "00000002"]);
    }

    #[test]
    fn weights_that_are_not_finite_are_not_written() {
        let run = tempfile::tempdir().expect("a folder");
        write(run.path(), &state(1), &files(&[1.0, 2.0])).expect("it writes");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = write(run.path(), &state(2), &files(&[1.0, bad])).expect_err("not finite");
            assert!(!error.may_pass() && error.to_string().contains("weight of model"), "{error}");
        }
        write(run.path(), &state(3), &files(&[f32::MAX, f32::MIN])).expect("these are");
        assert_eq!(names(run.path()), ["00000001", "00000003"]);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_deleted_keeps_no_other() {
        let run = tempfile::tempdir().expect("a folder");
        for step in 1..=4 {
            write(run.path(), &state(step), &files(&[1.0])).expect("it writes");
        }
        let folder = run.path().join(FOLDER);
        std::fs::create_dir(folder.join("00000009.1.tmp")).expect("a folder");
        // The names that they would have meanwhile are those of files.
        for step in [1, 2] {
            std::fs::write(hidden(&of_step(run.path(), step)), "x").expect("it is written");
        }
        let error = prune(run.path(), 1, 0).expect_err("two stay");
        assert!(error.to_string().contains("00000001 cannot be deleted"), "{error:#}");
        let left = names(run.path());
        let checkpoints: Vec<_> = left.iter().filter(|name| !name.contains(".old-")).collect();
        assert_eq!(checkpoints, ["00000001", "00000002", "00000004"]);
    }

    #[test]
    fn a_step_is_replaced_and_pruned_as_a_whole() {
        let run = tempfile::tempdir().expect("a folder");
        for values in [[1.0, 2.0], [3.0, 4.0]] {
            let path = write(run.path(), &state(1), &files(&values)).expect("it writes");
            let written = tintype::weights::open(&path.join("model.safetensors")).expect("a file");
            assert_eq!(written.tensors["weight"].to_f32(), values);
        }
        assert_eq!(names(run.path()), ["00000001"]);
        write(run.path(), &state(2), &files(&[5.0])).expect("it writes");
        let left = run.path().join(FOLDER).join("00000003.1.tmp");
        std::fs::create_dir(&left).expect("a folder");
        let (path, found) = latest(run.path()).expect("it is read").expect("there is one");
        assert_eq!((found.step, names(run.path()).len()), (2, 3), "reading changes nothing");
        assert!(path.ends_with("00000002"));
        // What somebody else left is not ours.
        let foreign = run.path().join(FOLDER).join("foo.tmp");
        std::fs::write(&foreign, "x").expect("it is written");
        prune(run.path(), 1, 0).expect("it deletes");
        assert_eq!(names(run.path()), ["00000002", "foo.tmp"]);
        amend(run.path(), &State { owes_evaluation: true, ..state(2) }).expect("it is written");
        let (_, found) = latest(run.path()).expect("it is read").expect("there is one");
        assert!(found.owes_evaluation && exists(run.path(), 2) && !exists(run.path(), 3));
    }
}
