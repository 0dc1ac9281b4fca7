//! What rank 0 does between two steps: log, checkpoints, previews, evaluations. Only the last checkpoint can fail a
//! run.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tintype::burn::tensor::Device;
use tintype::files::write_whole;

use super::checkpoint::{self, State};
use super::progress::ProgressLogger;
use super::run::{Ended, LOCK, Run};
use super::saver::{Keep, Saver, Writing, patience};
use super::trainer::{Report, Trainer};
use super::warnings::Warnings;

/// The housekeeping of a run.
pub struct Housekeeping<'a> {
    run: &'a Run,
    progress: ProgressLogger,
    saver: Saver,
    warnings: Warnings,
    /// Evaluations that failed.
    failed: u64,
}

impl<'a> Housekeeping<'a> {
    /// Of a run that begins or goes on at `state`.
    ///
    /// * `macs`: of one sample's forward pass
    /// * `ranks`: devices like this one that share a step
    pub fn open(run: &'a Run, state: &State, macs: f64, device: &Device, ranks: usize) -> Self {
        let config = run.config.run();
        let keep = Keep { last: config.keep_last, every: config.keep_every };
        let progress = ProgressLogger::open(run, state, macs, device, ranks);
        let warnings = Warnings::new(progress.bar());
        Self { run, progress, saver: Saver::new(&run.out, keep), warnings, failed: 0 }
    }

    /// Tells how the run begins: what was taken from elsewhere, or what is not as it was.
    pub fn note(&mut self, step: u64, note: &str) {
        self.progress.note(step, note, &mut self.warnings);
    }

    /// After a step; `stop` if it is the last one because somebody asked. Tells how the run ends if this was its last
    /// step: interrupted where an evaluation is left.
    ///
    /// * `took`: the time that it took the device
    /// * `is_settled`: no later step has begun, so the weights are those after this one
    ///
    /// # Errors
    ///
    /// If the checkpoint at the end, or where the run is stopped, cannot be written.
    pub fn step(
        &mut self,
        system: &mut dyn Trainer,
        state: &mut State,
        report: &Report,
        took: Duration,
        is_settled: bool,
        stop: bool,
    ) -> Result<Ended> {
        let run = self.run;
        let config = run.config.run();
        let (step, end) = (state.step, state.step == config.steps);
        let due = move |every: u64| end || step.is_multiple_of(every);
        self.progress.step(state, report, took, config.log_every, &mut self.warnings);
        let evaluates = run.config.evaluates_at(step);
        state.owes_evaluation |= evaluates;
        self.saver.poll(&mut self.warnings);
        // The checkpoint first: what follows may take long, and fail.
        if stop || end {
            self.check_lock();
            self.saver.wait(&mut self.warnings);
            // While steps are skipped the weights may be bad already; the ones before stay.
            let writing = Writing { prune: !report.skipped, patience: patience() };
            self.saver.start(state.clone(), system.save()?, writing)?;
            self.saver.finish(&mut self.warnings)?;
        } else {
            if due(config.checkpoint_every) {
                self.check_lock();
                self.saver.owe();
            }
            if is_settled && self.saver.is_due(report.skipped) {
                self.saver.wait(&mut self.warnings);
                let files = guarded("copying the checkpoint", || system.save());
                let started =
                    files.and_then(|f| self.saver.start(state.clone(), f, Writing::PERIODIC));
                if let Err(error) = started {
                    self.warnings.tell("checkpoint", &error);
                }
            }
        }
        if run.config.preview_every().is_some_and(due)
            && let Err(error) = guarded("the preview", || self.preview(system, step))
        {
            self.warnings.tell("preview", &error);
        }
        if evaluates && !stop {
            self.evaluate(system, state);
        }
        if end && self.failed > 0 {
            let (n, s) = (self.failed, if self.failed == 1 { "" } else { "s" });
            self.warnings.say(&format!("{n} evaluation{s} failed"));
        }
        Ok(self.ended(state, stop))
    }

    /// Whether a checkpoint is to be taken as soon as no step is in flight.
    pub fn waits_for_checkpoint(&self) -> bool {
        self.saver.is_due(false)
    }

    /// Before the first step: the evaluation that an interruption left. Tells how a run ends that has no more steps.
    pub fn catch_up(&mut self, system: &mut dyn Trainer, state: &mut State) -> Ended {
        if state.owes_evaluation && self.run.config.evaluate_every().is_some() {
            self.evaluate(system, state);
        }
        self.ended(state, false)
    }

    /// After a step that failed: keeps what was reached before, unless its steps were skipped (`skipped`).
    pub fn rescue(&mut self, system: &dyn Trainer, state: &State, skipped: bool) {
        self.saver.wait(&mut self.warnings);
        if skipped || state.step == 0 || checkpoint::exists(&self.run.out, state.step) {
            return;
        }
        let files = guarded("copying the checkpoint", || system.save());
        let written = files
            .and_then(|files| self.saver.start(state.clone(), files, Writing::PERIODIC))
            .and_then(|()| self.saver.finish(&mut self.warnings));
        if let Err(error) = written {
            self.warnings.say(&format!("{error:#}"));
        }
    }

    /// * `stop`: a rank was asked to stop
    fn ended(&self, state: &State, stop: bool) -> Ended {
        let stopped = stop || self.run.interrupted.load(Ordering::Relaxed);
        match stopped && state.owes_evaluation && self.run.config.evaluate_every().is_some() {
            true => Ended::Interrupted,
            false => Ended::Done,
        }
    }

    /// Measures samples, and notes in the checkpoint of this step that it is done.
    fn evaluate(&mut self, system: &mut dyn Trainer, state: &mut State) {
        let stop = &self.run.interrupted;
        match guarded("the evaluation", || system.evaluate(stop)) {
            Ok(Some(values)) => {
                self.progress.evaluated(state.step, &values, &mut self.warnings);
            }
            Ok(None) if stop.load(Ordering::Relaxed) => return,
            Ok(None) => {}
            Err(error) => {
                self.failed += 1;
                self.warnings.tell("evaluation", &error);
            }
        }
        state.owes_evaluation = false;
        self.saver.wait(&mut self.warnings);
        if let Err(error) = checkpoint::amend(&self.run.out, state) {
            self.warnings.tell("checkpoint", &error);
        }
    }

    /// Notices that somebody deleted the folder, or the lock in it.
    fn check_lock(&mut self) {
        let lock = self.run.out.join(LOCK);
        if !lock.exists() {
            let gone = anyhow!(
                "{} was deleted, so another process may train into the folder, too",
                lock.display()
            );
            self.warnings.tell("lock", &gone);
        }
    }

    fn preview(&self, system: &mut dyn Trainer, step: u64) -> Result<()> {
        let Some(picture) = system.preview()? else { return Ok(()) };
        let folder = self.run.out.join("previews");
        std::fs::create_dir_all(&folder)?;
        write_whole(&folder.join(format!("{step:08}.png")), &picture.to_png(&[])?)?;
        Ok(())
    }
}

/// Work that does not end the run when it panics; the panic hook has reported it.
fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|_panic| Err(anyhow!("{what} panicked")))
}
