//! Checkpoints written in another thread while the training goes on.
//!
//! A checkpoint is one copy of its tensors in host memory, taken between two steps; from there it is streamed
//! into its files without another one. The next checkpoint waits until the last one is written, so there are
//! never two copies.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tintype::labels::printable;

use super::checkpoint::{self, CheckpointError, State, TensorFile};
use super::critical;
use super::warnings::Warnings;
use crate::patience::VARIABLE;

/// Pauses between the tries of one checkpoint.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1200)];
/// The pause after a checkpoint that could not be written; it doubles with each, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(600);

/// How long the last checkpoint of a run waits for room on the disk, unless [`VARIABLE`] says.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest pause between its tries.
const LONGEST_OF_LAST: Duration = Duration::from_secs(60);

/// How long the last checkpoint of a run waits for room on the disk.
pub fn patience() -> Duration {
    let seconds = std::env::var(VARIABLE).ok().and_then(|text| text.trim().parse::<u64>().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// How a checkpoint is written.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// Whether older ones are deleted afterwards.
    pub prune: bool,
    /// How long it is tried while the disk is full.
    pub patience: Duration,
}

impl Writing {
    /// One of many.
    pub const PERIODIC: Self = Self { prune: true, patience: Duration::ZERO };
}

/// Writes the checkpoints of a run.
#[derive(Debug)]
pub struct Saver {
    run: PathBuf,
    keep: Keep,
    writing: Option<JoinHandle<Ended>>,
    /// Whether there should be a checkpoint.
    owed: bool,
    /// Failures in a row.
    failures: u32,
    /// No periodic checkpoint before.
    not_before: Option<Instant>,
}

/// Which checkpoints stay.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The number of the latest.
    pub last: usize,
    /// Also those at multiples of this step; 0 for none.
    pub every: u64,
}

/// How the writing of a checkpoint ended.
#[derive(Debug)]
struct Ended {
    written: Result<(), CheckpointError>,
    /// Older ones are deleted after it was written.
    pruned: Result<()>,
}

impl Saver {
    /// Of a run's folder.
    pub fn new(run: &Path, keep: Keep) -> Self {
        Self { run: run.into(), keep, writing: None, owed: false, failures: 0, not_before: None }
    }

    /// Notes that a periodic checkpoint is due.
    pub fn owe(&mut self) {
        self.owed = true;
    }

    /// Whether a periodic checkpoint is to be taken now. While steps are skipped it is not: the weights are the
    /// last one's, and would replace the ones before that may still be good.
    pub fn is_due(&self, skipped: bool) -> bool {
        let paused = self.not_before.is_some_and(|at| Instant::now() < at);
        self.owed && !skipped && !paused
    }

    /// Begins to write a checkpoint; the one before was waited for.
    ///
    /// * `writing`: with what patience, and whether older ones are deleted
    ///
    /// # Errors
    ///
    /// If the system starts no thread.
    pub fn start(&mut self, state: State, files: Vec<TensorFile>, writing: Writing) -> Result<()> {
        self.owed = false;
        let (run, keep) = (self.run.clone(), self.keep);
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let spawned = thread.spawn(move || write(&run, keep, &state, files, writing));
        match spawned {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => {
                self.put_off(true);
                return Err(error).context("no thread can be started for the checkpoint");
            }
        }
        Ok(())
    }

    /// Tells how a checkpoint ended whose writing is over, without waiting for it.
    pub fn poll(&mut self, warnings: &mut Warnings) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait(warnings);
        }
    }

    /// Waits until the checkpoint is written; a failure is a warning, and it is tried again later.
    pub fn wait(&mut self, warnings: &mut Warnings) {
        if let Err(error) = self.finish(warnings) {
            warnings.tell("checkpoint", &error);
        }
    }

    /// Waits until the checkpoint is written.
    ///
    /// # Errors
    ///
    /// If it could not be written, or holds a number that is not finite.
    pub fn finish(&mut self, warnings: &mut Warnings) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let Ok(Ended { written, pruned }) = writing.join() else {
            self.put_off(true);
            return Err(anyhow!("the checkpoint was not written, its thread panicked"));
        };
        if let Err(error) = pruned {
            warnings.tell("prune", &error);
        }
        match written {
            Ok(()) => {
                (self.failures, self.not_before) = (0, None);
                Ok(())
            }
            Err(error) => {
                self.put_off(error.may_pass());
                Err(error.into())
            }
        }
    }

    /// After a failure: a pause, and then the next checkpoint at once if that can help.
    fn put_off(&mut self, again: bool) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        self.owed |= again;
    }
}

impl Drop for Saver {
    /// A run that ends with an error still ends its checkpoint.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}

/// When a checkpoint that could not be written is tried again.
struct Tries {
    patience: Duration,
    short: std::array::IntoIter<Duration, 2>,
    /// The last pause while the disk is full.
    longer: Option<Duration>,
}

impl Tries {
    /// * `patience`: how long while the disk is full
    fn new(patience: Duration) -> Self {
        Self { patience, short: PAUSES.into_iter(), longer: None }
    }

    /// The pause before the next one, after an error; `None` to give up.
    ///
    /// * `took`: the time since the first one began
    fn pause(&mut self, error: &CheckpointError, took: Duration) -> Option<Duration> {
        if let Some(pause) = self.short.next() {
            return error.may_pass().then_some(pause);
        }
        if !error.is_full() || took >= self.patience {
            return None;
        }
        let pause = match self.longer {
            Some(last) => last.saturating_mul(2).min(LONGEST_OF_LAST),
            None => FIRST,
        };
        self.longer = Some(pause);
        Some(pause.min(self.patience))
    }
}

/// Writes a checkpoint, in several tries, and deletes older ones once it is on the disk.
fn write(run: &Path, keep: Keep, state: &State, files: Vec<TensorFile>, writing: Writing) -> Ended {
    let begun = Instant::now();
    let mut tries = Tries::new(writing.patience);
    let written = loop {
        let whole = critical::begin();
        let written = checkpoint::write(run, state, &files);
        drop(whole);
        let error = match written {
            Ok(_) => break Ok(()),
            Err(error) => error,
        };
        let (took, told) = (begun.elapsed(), tries.longer.is_some());
        let Some(pause) = tries.pause(&error, took) else { break Err(error) };
        if tries.longer.is_some() && !told {
            let left = writing.patience.saturating_sub(took).as_secs();
            let _ = writeln!(
                io::stderr(),
                "warning: {}: the disk is full; make room in the next {left} s; a second interrupt gives up",
                printable(&error.to_string())
            );
        }
        // A signal that ends the program is not held up here.
        std::thread::sleep(pause);
    };
    drop(files);
    let pruned = match written {
        Ok(()) if writing.prune => checkpoint::prune(run, keep.last, keep.every),
        _ => Ok(()),
    };
    Ended { written, pruned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_waited_for_with_growing_pauses() {
        let failed = |kind: io::ErrorKind| CheckpointError::Write {
            path: "00000004".into(),
            source: kind.into(),
        };
        // In milliseconds, if the tries themselves take no time.
        let pauses = |error: &CheckpointError, patience: u64| -> Vec<u128> {
            let mut tries = Tries::new(Duration::from_secs(patience));
            let (mut pauses, mut took) = (Vec::new(), Duration::ZERO);
            while let Some(pause) = tries.pause(error, took) {
                took += pause;
                pauses.push(pause.as_millis());
            }
            pauses
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let full = failed(kind);
            let expected: [u128; 8] = [300, 1200, 5_000, 10_000, 20_000, 40_000, 60_000, 60_000];
            assert_eq!(pauses(&full, 150), expected, "{kind}");
            assert_eq!(pauses(&full, 2), [300, 1200, 2_000], "{kind}");
            assert_eq!(pauses(&full, 0), [300, 1200], "{kind}");
        }
        assert_eq!(pauses(&failed(io::ErrorKind::PermissionDenied), 150), [300, 1200]);
        let (file, tensor) = ("model.safetensors", "weight".into());
        let bad = CheckpointError::NotFinite { path: "00000004".into(), file, tensor };
        assert!(pauses(&bad, 150).is_empty(), "it would be the same");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_checkpoint_is_written_once_there_is_room_again() {
        use crate::train::checkpoint::tests::{files, fill_disk, names, state};
        use indicatif::ProgressBar;

        let run = tempfile::tempdir().expect("a folder");
        let mut warnings = Warnings::new(ProgressBar::hidden());
        let mut saver = Saver::new(run.path(), Keep { last: 1, every: 0 });
        let mut save = |step: u64| {
            let begun = saver.start(state(step), files(&[1.0]), Writing::PERIODIC);
            begun.and_then(|()| saver.finish(&mut warnings)).expect("it is written");
        };
        save(1);
        fill_disk(run.path(), 2);
        save(2);
        assert_eq!(names(run.path()), ["00000002"]);
    }
}
