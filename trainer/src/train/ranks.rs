//! The training loop of each rank, step after step.

use std::io::{self, ErrorKind, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::files::{Lock, LockError};
use tintype::labels::printable;
use tintype::weights::Which;

use super::checkpoint::{self, State};
use super::comm::{Comm, Group};
use super::config::RunConfig;
use super::critical;
use super::housekeeping::Housekeeping;
use super::record::Record;
use super::run::{Ended, LOCK, Run};
use super::trainer::{Report, Trainer};

/// Trains data-parallel: the ranks of this process, one thread per device, with those of other processes; `build` creates
/// a rank's trainer. The process with rank 0 owns the folder and writes into it, all others read.
///
/// # Errors
///
/// * [`RunError::Held`]: another process trains into the folder.
/// * The folder cannot be written, or `run.batch` does not divide into ranks and micro-batches.
/// * A system cannot be built, or a checkpoint there is of another network, seed or batch.
/// * Ranks have other settings or data than rank 0, or cannot be reached.
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
    group: &mut Group,
    build: impl Fn(&Comm, &Device) -> Result<Box<dyn Trainer>> + Send + Sync + 'static,
) -> Result<Ended> {
    check_batch(run.config.run(), group.world())?;
    let _owner = match group.leads() {
        true => own(&run.out)?,
        false => None,
    };
    let limit = group.limit();
    // Trainers are built one after the other: the CPU's random generator, which initializes weights,
    // is global to the process.
    let build = Arc::new(Mutex::new(build));
    let (sender, ends) = std::sync::mpsc::channel();
    for (seat, device) in group.take_seats() {
        let (run, build, sender) = (run.clone(), build.clone(), sender.clone());
        let work = move |kept: &mut Option<Comm>| {
            let comm = seat.take(&device, limit)?;
            *kept = Some(comm.clone());
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
                // To leave a communicator may take long after a failure, which is told first.
                let mut comm = None;
                let end = std::panic::catch_unwind(AssertUnwindSafe(|| work(&mut comm)));
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

/// Takes the folder of a run, and removes what a killed process left there of a checkpoint.
fn own(out: &Path) -> Result<Option<Lock>> {
    std::fs::create_dir_all(out)
        .with_context(|| format!("--out {} cannot be written", out.display()))?;
    let owner = lock(out)?;
    if let Err(error) = checkpoint::tidy(out) {
        let _ = writeln!(io::stderr(), "warning: {}", printable(&format!("{error:#}")));
    }
    Ok(owner)
}

/// Checks that a batch divides into ranks and micro-batches.
///
/// # Errors
///
/// If it does not.
pub fn check_batch(run: &RunConfig, ranks: usize) -> Result<()> {
    let (batch, parts) = (run.batch, ranks * run.accumulate);
    ensure!(
        batch.is_multiple_of(parts),
        "run.batch = {batch} is not a multiple of {parts} (devices or processes, times accumulate)"
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
            let name = printable(&path.display().to_string());
            let _ = writeln!(
                io::stderr(),
                "warning: {name} cannot be locked ({source}); start this run only once at a time"
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
        let (mut state, note) = self.begin()?;
        let config = self.run.config.run();
        let mut housekeeping = match self.comm.rank {
            0 => {
                let (macs, ranks) = (self.system.macs(), self.comm.world);
                Some(Housekeeping::open(self.run, &state, macs, &self.device, ranks))
            }
            _ => None,
        };
        if let (Some(housekeeping), Some(note)) = (&mut housekeeping, note) {
            housekeeping.note(state.step, &note);
        }
        let mut ended = Ended::Done;
        if state.owes_evaluation || state.step >= config.steps {
            if let Some(housekeeping) = &mut housekeeping {
                ended = housekeeping.catch_up(self.system.as_mut(), &mut state);
            }
            self.comm.barrier()?;
        }
        let runs_ahead = self.system.runs_ahead();
        let (mut begun, mut in_a_row) = (state.step, 0);
        // When the device began with the step that is settled next.
        let mut since = Instant::now();
        // The last step, once a rank was asked to stop.
        let mut last = None;
        while state.step < last.unwrap_or(config.steps) {
            let end = last.unwrap_or(config.steps);
            if begun < end {
                if self.run.interrupted.load(Ordering::Relaxed) {
                    self.comm.ask_to_stop();
                }
                if begun == state.step {
                    since = Instant::now();
                }
                if let Err(error) = self.system.step(begun) {
                    if let Some(housekeeping) = &mut housekeeping {
                        while state.step < begun {
                            // Where that fails, too, the device does, and the first error says why.
                            let Ok(report) = self.system.settle() else { return Err(error) };
                            count(&report, &mut state, &mut in_a_row);
                            let (system, took) = (self.system.as_mut(), since.elapsed());
                            housekeeping.step(system, &mut state, &report, took, false, false)?;
                        }
                        housekeeping.rescue(self.system.as_ref(), &state, in_a_row > 0);
                    }
                    return Err(error);
                }
                begun += 1;
            }
            // What looks at the weights needs them as they are after the step that it counts.
            let waits = housekeeping.as_ref().is_some_and(Housekeeping::waits_for_checkpoint);
            let may_run_ahead = |step: u64| runs_ahead && !self.run.config.is_due(step);
            let ahead = u64::from(may_run_ahead(begun) && !waits && begun < end);
            while begun - state.step > ahead {
                let report = self.system.settle()?;
                let took = since.elapsed();
                since = Instant::now();
                count(&report, &mut state, &mut in_a_row);
                if in_a_row >= MOST_SKIPPED {
                    return Err(diverged(state.step, &report).into());
                }
                let asked = match self.comm.world {
                    1 => self.run.interrupted.load(Ordering::Relaxed),
                    _ => report.stop,
                };
                // The same step on all ranks, of which some may have begun the next one.
                if asked && last.is_none() {
                    let next = state.step + u64::from(may_run_ahead(state.step));
                    last = Some(next.min(config.steps));
                }
                let stop = last == Some(state.step);
                let is_settled = begun == state.step;
                if stop
                    || state.step == config.steps
                    || state.step.is_multiple_of(config.checkpoint_every)
                {
                    self.check_replicas(state.step)?;
                }
                if let Some(housekeeping) = &mut housekeeping {
                    let system = self.system.as_mut();
                    ended =
                        housekeeping.step(system, &mut state, &report, took, is_settled, stop)?;
                }
                // Rank 0 may take long over a checkpoint, a preview or an evaluation. None is to outlive the last one.
                if stop || self.run.config.is_due(state.step) {
                    self.comm.barrier()?;
                }
            }
        }
        if last.is_some_and(|last| last < config.steps) {
            return Ok(Ended::Interrupted);
        }
        if state.step > 0 && state.skipped >= state.step {
            return Err(RunError::Skipped { steps: state.step }.into());
        }
        Ok(ended)
    }

    /// The state from which the run begins or goes on, the same on all ranks, and what is to be said about it.
    fn begin(&mut self) -> Result<(State, Option<String>)> {
        let config = self.run.config.run();
        let record = self.record()?;
        // Some verify data or load more networks than others.
        self.comm.barrier()?;
        self.comm.same(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "config": self.run.config.whole()?,
            "data": record.data,
        }))?;
        let state = State {
            step: 0,
            skipped: 0,
            architecture: self.system.architecture(),
            seed: config.seed,
            batch: config.batch,
            record: Some(record),
            owes_evaluation: false,
        };
        let found = match self.comm.rank {
            0 => checkpoint::latest(&self.run.out)?,
            _ => None,
        };
        // The others may see an older listing of a shared folder.
        let of_first = serde_json::to_string(&found.as_ref().map(|(_, state)| state))?;
        let of_first: Option<State> = serde_json::from_str(&self.comm.text_of_first(of_first)?)?;
        let found = match (found, of_first) {
            (None, Some(state)) => Some((checkpoint::of_rank_0(&self.run.out, &state)?, state)),
            (found, _) => found,
        };
        let (state, note) = match found {
            Some((path, found)) => {
                let note = checkpoint::check_same(&found, &state, &path, config.allow_changes)?;
                self.system.restore(&path)?;
                // From here on the settings of now are those of the run.
                (State { record: state.record, ..found }, note)
            }
            None => (state, self.system.initialized().map(String::from)),
        };
        if self.comm.world > 1 {
            self.comm.barrier()?;
            // Fresh weights are drawn on the processor, whose vector code differs between machines.
            let weights = self.comm.broadcast(self.system.weights(Which::All))?;
            self.system.set_weights(weights);
        }
        Ok((state, note))
    }

    /// Checks that all ranks have the same weights, before they are saved or shown.
    fn check_replicas(&self, step: u64) -> Result<()> {
        if self.comm.world == 1 {
            return Ok(());
        }
        let mut checksum = 0;
        for weight in self.system.weights(Which::Trainable).into_values() {
            checksum = crc32c::crc32c_append(checksum, weight.into_data().as_bytes());
        }
        let own = json!({ "weights with the checksum": format!("{checksum:08x}") });
        self.comm.same(&own).with_context(|| {
            format!(
                "after step {step} the ranks' weights differ; all need the same model of processor or GPU, and driver"
            )
        })
    }

    /// What the run records of its data and settings.
    fn record(&self) -> Result<Record> {
        Ok(Record { settings: self.run.config.recorded()?, data: self.system.data() })
    }
}

/// Counts a step that has ended.
fn count(report: &Report, state: &mut State, in_a_row: &mut u64) {
    state.step += 1;
    state.skipped += u64::from(report.skipped);
    *in_a_row = if report.skipped { *in_a_row + 1 } else { 0 };
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
            assert_eq!(said.matches("; start this run only once at a time").count(), 2, "{said}");
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
