//! What rank 0 does between two steps: log, previews, checkpoints. Only the last checkpoint can fail a run.

use anyhow::Result;
use tintype::burn::tensor::Device;
use tintype::files::write_whole;

use super::checkpoint::State;
use super::progress::ProgressLogger;
use super::run::Run;
use super::saver::{Keep, Saver};
use super::trainer::{Report, Trainer};
use super::warnings::Warnings;

/// The housekeeping of a run.
pub struct Housekeeping<'a> {
    run: &'a Run,
    progress: ProgressLogger,
    saver: Saver,
    warnings: Warnings,
}

impl<'a> Housekeeping<'a> {
    /// Of a run that begins or goes on at `state`.
    ///
    /// * `macs`: of one sample's forward pass
    pub fn open(run: &'a Run, state: &State, macs: f64, device: &Device) -> Self {
        let config = run.config.run();
        let keep = Keep { last: config.keep_last, every: config.keep_every };
        let progress = ProgressLogger::open(run, state, macs, device);
        let warnings = Warnings::new(progress.bar());
        Self { run, progress, saver: Saver::new(&run.out, keep), warnings }
    }

    /// Tells how the run begins: what was taken from elsewhere, or what is not as it was.
    pub fn note(&mut self, step: u64, note: &str) {
        self.progress.note(step, note, &mut self.warnings);
    }

    /// After a step; `stop` if it is the last one because somebody asked.
    ///
    /// # Errors
    ///
    /// If the checkpoint at the end, or where the run is stopped, cannot be written.
    pub fn step(
        &mut self,
        system: &mut dyn Trainer,
        state: &State,
        report: &Report,
        stop: bool,
    ) -> Result<()> {
        let run = self.run;
        let config = run.config.run();
        let end = state.step == config.steps;
        let due = |every: u64| end || state.step.is_multiple_of(every);
        self.progress.step(state, report, config.log_every, &mut self.warnings);
        if run.config.preview_every().is_some_and(due)
            && let Err(error) = self.preview(system, state.step)
        {
            self.warnings.tell("preview", &error);
        }
        if run.config.evaluate_every().is_some_and(due) && !stop {
            match system.evaluate(&run.interrupted) {
                Ok(Some(values)) => {
                    self.progress.evaluated(state.step, &values, &mut self.warnings);
                }
                Ok(None) => {}
                Err(error) => self.warnings.tell("evaluation", &error),
            }
        }
        self.saver.poll(&mut self.warnings);
        if stop || end {
            self.saver.wait(&mut self.warnings);
            self.saver.start(state.clone(), system.save()?)?;
            return self.saver.finish(&mut self.warnings);
        }
        if due(config.checkpoint_every) {
            self.saver.owe();
        }
        if self.saver.is_due(report.skipped) {
            self.saver.wait(&mut self.warnings);
            let started = system.save().and_then(|files| self.saver.start(state.clone(), files));
            if let Err(error) = started {
                self.warnings.tell("checkpoint", &error);
            }
        }
        Ok(())
    }

    fn preview(&self, system: &mut dyn Trainer, step: u64) -> Result<()> {
        let Some(picture) = system.preview()? else { return Ok(()) };
        let folder = self.run.out.join("previews");
        std::fs::create_dir_all(&folder)?;
        write_whole(&folder.join(format!("{step:08}.png")), &picture.to_png(&[])?)?;
        Ok(())
    }
}
