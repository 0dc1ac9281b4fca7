//! The training loop: one thread a device, step after step.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use tintype::burn::tensor::Device;
use tintype::files::{Lock, LockError};

use super::checkpoint::{self, State};
use super::comm::Comm;
use super::config::RunConfig;
use super::critical;
use super::housekeeping::Housekeeping;
use super::record::Record;
use super::run::{Ended, LOCK, Run};
use super::trainer::{Report, Trainer};

/// Trains data-parallel, one thread per device; `build` creates a rank's trainer.
///
/// # Errors
///
/// * [`RunError::Held`]: another process trains into the folder.
/// * The folder cannot be written, or `run.batch` does not divide into devices and micro-batches.
/// * A system cannot be built, or a checkpoint there is of another network, seed or batch.
/// * A step fails, or the checkpoint at the end cannot be written. Of earlier ones, previews and the log, failures
///   are warnings.
/// * [`RunError::Diverged`]: [`MOST_SKIPPED`] steps in a row had losses or gradients that are not finite.
/// * [`RunError::Skipped`]: the run ended, and all its steps had.
///
/// # Panics
///
/// If a rank panics.
pub fn train(
    run: &Run,
    devices: &[Device],
    build: impl Fn(&Comm, &Device) -> Result<Box<dyn Trainer>> + Send + Sync + 'static,
) -> Result<Ended> {
    std::fs::create_dir_all(&run.out)
        .with_context(|| format!("--out {} cannot be written", run.out.display()))?;
    check_batch(run.config.run(), devices.len())?;
    let _owner = lock(&run.out)?;
    if let Err(error) = checkpoint::tidy(&run.out) {
        let _ = writeln!(io::stderr(), "warning: {error:#}");
    }
    #[cfg(feature = "cuda")]
    let _collectives = (devices.len() > 1).then(|| {
        use tintype::burn::tensor::distributed as d;
        let config = d::DistributedConfig { all_reduce_op: d::ReduceOperation::Sum };
        let devices = devices.iter().map(|device| device.clone().inner()).collect();
        d::DistributedContext::init(devices, config)
    });
    // Trainers are built one after the other: the CPU's random generator, which initializes weights,
    // is global to the process.
    let build = Arc::new(Mutex::new(build));
    let (sender, ends) = std::sync::mpsc::channel();
    for (comm, device) in Comm::group(devices).into_iter().zip(devices.to_vec()) {
        let (run, build, sender) = (run.clone(), build.clone(), sender.clone());
        let work = move || {
            let system = {
                let build = build.lock().unwrap_or_else(|poison| poison.into_inner());
                build(&comm, &device)
            };
            drop(build); // and with the last one the files that are open for it
            system.and_then(|system| Rank { run: &run, comm, device, system }.train())
        };
        // All of a rank's device work happens in its one thread.
        std::thread::Builder::new()
            .name("training".into())
            .spawn(move || {
                let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let _ = sender.send(end);
            })
            .context("a training thread cannot start")?;
    }
    drop((sender, build));
    // A rank that fails leaves the others waiting for it; the program ends with its error.
    let mut ended = Ended::Done;
    for end in ends {
        if !matches!(end, Ok(Ok(_))) {
            // Rank 0 may be writing a checkpoint, which the end of the process would cut.
            drop(critical::begin());
        }
        // The panic hook has already reported the panic.
        let end = end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if end == Ended::Interrupted {
            ended = Ended::Interrupted;
        }
    }
    Ok(ended)
}

/// Checks that a batch divides into devices and micro-batches.
///
/// # Errors
///
/// If it does not.
pub fn check_batch(run: &RunConfig, devices: usize) -> Result<()> {
    let (batch, parts) = (run.batch, devices * run.accumulate);
    ensure!(
        batch.is_multiple_of(parts),
        "run.batch = {batch} is not a multiple of {parts} (devices times accumulate)"
    );
    Ok(())
}

/// Checks that no other process trains into a folder.
///
/// # Errors
///
/// [`RunError::Held`] if one does; or the folder cannot be written.
pub fn check_free(out: &Path) -> Result<()> {
    lock(out).map(drop)
}

/// Why a run ends without being done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process has the folder.
    #[error("{} is being trained by another process", .0.display())]
    Held(PathBuf),
    /// Too many steps in a row could not change the weights.
    #[error(
        "the training diverged: in {} steps in a row, up to step {step}, a loss or a gradient was not \
         finite ({values}); the last checkpoint is from before them",
        MOST_SKIPPED
    )]
    Diverged {
        /// Steps done.
        step: u64,
        /// Losses, norms and rates of the last one.
        values: String,
    },
    /// No step could change the weights.
    #[error(
        "nothing was learned: in all {steps} steps a loss or a gradient was not finite, so they were skipped"
    )]
    Skipped {
        /// Steps done.
        steps: u64,
    },
}

/// So many skipped steps in a row end a run.
pub const MOST_SKIPPED: u64 = 100;

/// Takes the folder of a run for this process; `None` where the file system knows no locks.
fn lock(out: &Path) -> Result<Option<Lock>> {
    settle(out, Lock::take(&out.join(LOCK)))
}

/// What a try to lock a folder means for its run.
fn settle(out: &Path, taken: Result<Lock, LockError>) -> Result<Option<Lock>> {
    match taken {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held(_)) => Err(RunError::Held(out.into()).into()),
        Err(LockError::Io { path, source }) if path.is_file() && !is_refused(&source) => {
            let name = path.display();
            let _ = writeln!(
                io::stderr(),
                "warning: {name} cannot be locked ({source}); train in one process only"
            );
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("--out {} cannot be written", out.display()))
        }
    }
}

/// Whether a folder cannot be written at all.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// A rank of the training.
struct Rank<'a> {
    run: &'a Run,
    comm: Comm,
    device: Device,
    system: Box<dyn Trainer>,
}

impl Rank<'_> {
    fn train(mut self) -> Result<Ended> {
        let config = self.run.config.run();
        let mut state = State {
            step: 0,
            skipped: 0,
            architecture: self.system.architecture(),
            seed: config.seed,
            batch: config.batch,
            record: Some(self.record()?),
            owes_evaluation: false,
        };
        let note = match checkpoint::latest(&self.run.out)? {
            Some((path, found)) => {
                let note = checkpoint::check_same(&found, &state, &path, config.allow_changes)?;
                self.system.restore(&path)?;
                // From here on the settings of now are those of the run.
                state = State { record: state.record, ..found };
                note
            }
            None => self.system.initialized().map(String::from),
        };
        let mut housekeeping = match self.comm.rank {
            0 => Some(Housekeeping::open(self.run, &state, self.system.macs(), &self.device)),
            _ => None,
        };
        if let (Some(housekeeping), Some(note)) = (&mut housekeeping, note) {
            housekeeping.note(state.step, &note);
        }
        let mut ended = Ended::Done;
        if let Some(housekeeping) = &mut housekeeping {
            ended = housekeeping.catch_up(self.system.as_mut(), &mut state);
        }
        let mut in_a_row = 0;
        while state.step < config.steps {
            let report = match self.system.step(state.step) {
                Ok(report) => report,
                Err(error) => {
                    if let Some(housekeeping) = &mut housekeeping {
                        housekeeping.rescue(self.system.as_ref(), &state, in_a_row > 0);
                    }
                    return Err(error);
                }
            };
            state.step += 1;
            state.skipped += u64::from(report.skipped);
            in_a_row = if report.skipped { in_a_row + 1 } else { 0 };
            if in_a_row >= MOST_SKIPPED {
                return Err(diverged(state.step, &report).into());
            }
            let asked = self.run.interrupted.load(Ordering::Relaxed) && self.comm.rank == 0;
            let stop = self.comm.sum_numbers(&[f64::from(u8::from(asked))])[0] > 0.0;
            if let Some(housekeeping) = &mut housekeeping {
                ended = housekeeping.step(self.system.as_mut(), &mut state, &report, stop)?;
            }
            if stop && state.step < config.steps {
                return Ok(Ended::Interrupted);
            }
        }
        // Of the others' ends, none is to come before the first rank's checkpoint.
        if self.comm.rank == 0 && state.step > 0 && state.skipped >= state.step {
            return Err(RunError::Skipped { steps: state.step }.into());
        }
        Ok(ended)
    }

    /// What the run records of its data and settings.
    fn record(&self) -> Result<Record> {
        Ok(Record { settings: self.run.config.recorded()?, data: self.system.data() })
    }
}

fn diverged(step: u64, report: &Report) -> RunError {
    let values: Vec<String> =
        report.values.iter().map(|(name, value)| format!("{name} {value}")).collect();
    RunError::Diverged { step, values: values.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone;

    #[test]
    fn a_run_goes_on_where_the_file_system_has_no_locks() {
        let name = "train::ranks::tests::a_run_goes_on_where_the_file_system_has_no_locks";
        if let Some(said) = alone::said(name, &[]) {
            assert_eq!(said.matches("warning: ").count(), 2, "{said}");
            assert_eq!(said.matches("; train in one process only").count(), 2, "{said}");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LOCK);
        let fails = |kind: ErrorKind| {
            settle(folder.path(), Err(LockError::Io { path: path.clone(), source: kind.into() }))
        };
        let error = fails(ErrorKind::Unsupported).expect_err("the file could not be created");
        assert!(error.to_string().ends_with("cannot be written"), "{error}");
        std::fs::write(&path, "").expect("it is written");
        for kind in [ErrorKind::Unsupported, ErrorKind::Other] {
            assert!(matches!(fails(kind), Ok(None)), "{kind}");
        }
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            assert!(fails(kind).is_err(), "{kind}");
        }
        let error = settle(folder.path(), Err(LockError::Held(path.clone())));
        let error = error.expect_err("somebody has it");
        assert!(matches!(error.downcast_ref::<RunError>(), Some(RunError::Held(_))), "{error}");
    }
}
