//! Runs of a trainer that does as it is told: which checkpoints are there after trouble, and what they hold.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tintype::burn::tensor::{Device, Tensor};
use tintype::image::Rgb;
use tintype::weights::{Flat, TensorView, Which, open};

use crate::alone;
use crate::train::checkpoint::tests::names;
use crate::train::checkpoint::{FOLDER, State, TensorFile, latest};
use crate::train::comm::{Comm, Gathered, Group, Numbers};
use crate::train::config::Config;
use crate::train::ranks::{MOST_SKIPPED, RunError, train};
use crate::train::record::DataRecord;
use crate::train::run::{Ended, Run};
use crate::train::trainer::{Report, Trainer};

const CONFIG: &str = r#"
recipe = "hdit"
[model]
preset = "hdit-cifar10"
[data]
images = "none"
[run]
steps = 1
batch = 6
checkpoint_every = 2
keep_last = 1
[optimizer]
lr = 1.0
betas = [0.9, 0.99]
[ema]
decay = 0.9
[preview]
every = 2
[evaluate]
every = 2
reference = "none"
"#;

/// A trainer of one number, which counts the steps that changed it.
#[derive(Clone, Default)]
struct Toy {
    number: f32,
    /// Steps whose gradients are not finite.
    skipped: Range<u64>,
    /// The step whose data cannot be read.
    unreadable: Option<u64>,
    /// The step in which the device fails, and with it the step in flight.
    broken: Option<u64>,
    /// Whether previews and evaluations panic.
    panics: bool,
    /// Whether a step may begin before the one before it is settled, as on a GPU.
    ahead: bool,
    /// The rank and the step in which it is asked to stop.
    asked: Option<(usize, u64)>,
    comm: Option<Comm>,
    /// Steps that are not settled.
    begun: VecDeque<(bool, Gathered)>,
}

impl Trainer for Toy {
    fn step(&mut self, step: u64) -> Result<()> {
        if self.broken == Some(step) {
            self.begun.clear();
            bail!("the device failed in step {step}");
        }
        ensure!(self.unreadable != Some(step), "the data of step {step} cannot be read");
        let skipped = self.skipped.contains(&step);
        if !skipped {
            self.number += 1.0;
        }
        let comm = self.comm.as_ref().expect("it was built");
        if self.asked == Some((comm.rank, step)) {
            comm.ask_to_stop();
        }
        let loss = Tensor::from_floats([1.0], &Device::flex());
        self.begun.push_back((skipped, comm.gather(loss)?));
        assert!(self.begun.len() <= if self.ahead { 2 } else { 1 }, "one step runs ahead at most");
        Ok(())
    }

    fn runs_ahead(&self) -> bool {
        self.ahead
    }

    fn settle(&mut self) -> Result<Report> {
        let (skipped, losses) = self.begun.pop_front().context("all steps were settled")?;
        let Numbers { sums, stop } = losses.read();
        Ok(Report { values: vec![("loss".into(), sums[0])], skipped, stop })
    }

    fn weights(&self, _which: Which) -> Flat {
        let number = Tensor::from_floats([self.number], &Device::flex());
        Flat::from([("number".to_string(), number)])
    }

    fn set_weights(&mut self, weights: Flat) {
        self.number = weights["number"].to_data().iter::<f32>().next().expect("one number");
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        assert!(self.begun.is_empty(), "a later step may have changed what is saved");
        let number = TensorView::from_f32(vec![1], &[self.number]).map_err(anyhow::Error::msg)?;
        let tensors = BTreeMap::from([("number".to_string(), number)]);
        Ok(vec![TensorFile { name: "model.safetensors", tensors, metadata: BTreeMap::new() }])
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        self.number = number(checkpoint)?;
        Ok(())
    }

    fn preview(&mut self) -> Result<Option<Rgb>> {
        assert!(!self.panics && self.begun.is_empty(), "there is no picture");
        Ok(None)
    }

    fn evaluate(&mut self, _stop: &AtomicBool) -> Result<Option<Vec<(String, f64)>>> {
        assert!(!self.panics && self.begun.is_empty(), "there is no metric");
        Ok(None)
    }

    fn data(&self) -> DataRecord {
        DataRecord::new(1, ["toy".to_string()])
    }

    fn architecture(&self) -> Value {
        Value::Null
    }

    fn macs(&self) -> f64 {
        0.0
    }
}

/// The number that a checkpoint holds.
fn number(checkpoint: &Path) -> Result<f32> {
    Ok(open(&checkpoint.join("model.safetensors"))?.tensors["number"].to_f32()[0])
}

/// Trains in a folder, or goes on there, up to a step.
fn run(folder: &TempDir, toy: &Toy, steps: u64) -> Result<Ended> {
    run_ranks(folder, toy, steps, 1)
}

/// The same on several ranks.
fn run_ranks(folder: &TempDir, toy: &Toy, steps: u64, ranks: usize) -> Result<Ended> {
    let mut config = Config::parse(CONFIG)?;
    config.set_steps(steps);
    let interrupted = Arc::new(AtomicBool::new(false));
    let run = Run { config, out: folder.path().into(), interrupted, quiet: true };
    let toy = toy.clone();
    let limit = Duration::from_secs(60);
    let mut group = Group::of_devices(vec![Device::flex(); ranks], limit)?;
    train(&run, &mut group, move |comm, _| {
        let trainer: Box<dyn Trainer> = Box::new(Toy { comm: Some(comm.clone()), ..toy.clone() });
        Ok(trainer)
    })
}

/// The state of a run at its latest checkpoint, and the number there.
fn last(folder: &TempDir) -> (State, f32) {
    let (checkpoint, state) = latest(folder.path()).expect("it is read").expect("there is one");
    (state, number(&checkpoint).expect("it opens"))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn the_last_good_checkpoint_outlives_skipped_steps() {
    let name = "train::tests::trouble::the_last_good_checkpoint_outlives_skipped_steps";
    if let Some(said) = alone::said(name, &[]) {
        assert!(!said.contains("warning"), "{said}");
        return;
    }
    for ahead in [false, true] {
        let out = folder();
        let steady = Toy { ahead, ..Toy::default() };
        let skipping = Toy { skipped: 4..8, ..steady.clone() };
        assert_eq!(run(&out, &skipping, 8).expect("it ends"), Ended::Done);
        // None at the sixth step, and the one at the end does not take the place of the fourth's.
        assert_eq!(names(out.path()), ["00000004", "00000008"]);
        let (state, number) = last(&out);
        assert_eq!((state.step, state.skipped, number), (8, 4, 4.0));
        // A step that changes something ends that.
        run(&out, &steady, 9).expect("it goes on");
        assert_eq!(names(out.path()), ["00000009"]);
        assert_eq!(last(&out).1, 5.0);
        // A run that diverges.
        let out = folder();
        let diverging = Toy { skipped: 4..u64::MAX, ..steady };
        let error = run(&out, &diverging, 1000).expect_err("it diverges");
        let at = 4 + MOST_SKIPPED;
        let diverged = error.downcast_ref::<RunError>();
        assert!(
            matches!(diverged, Some(RunError::Diverged { step, .. }) if *step == at),
            "{error}"
        );
        assert_eq!(names(out.path()), ["00000004"]);
    }
}

#[test]
fn a_step_that_fails_costs_only_itself() {
    let name = "train::tests::trouble::a_step_that_fails_costs_only_itself";
    if let Some(said) = alone::said(name, &[]) {
        assert!(!said.contains("warning"), "{said}");
        return;
    }
    for ahead in [false, true] {
        let steady = Toy { ahead, ..Toy::default() };
        let failing = |unreadable: u64| Toy { unreadable: Some(unreadable), ..steady.clone() };
        let out = folder();
        let error = run(&out, &failing(5), 8).expect_err("it fails");
        assert_eq!(error.to_string(), "the data of step 5 cannot be read");
        assert_eq!(names(out.path()), ["00000005"]);
        let (state, number) = last(&out);
        assert_eq!((state.step, state.skipped, number), (5, 0, 5.0));
        // The same command goes on there: no step is left out, or made twice.
        run(&out, &steady, 8).expect("it goes on");
        assert_eq!(names(out.path()), ["00000008"]);
        assert_eq!(last(&out).1, 8.0);
        // After skipped steps the checkpoint before them is the better one.
        let out = folder();
        run(&out, &Toy { skipped: 4..6, ..failing(6) }, 8).expect_err("it fails");
        assert_eq!(names(out.path()), ["00000004"]);
        // A device that fails takes the step in flight along; its error is the one that is told.
        let out = folder();
        let broken = Toy { broken: Some(5), ..steady.clone() };
        let error = run(&out, &broken, 8).expect_err("it fails");
        assert_eq!(error.to_string(), "the device failed in step 5");
        // There is nothing to keep.
        let out = folder();
        run(&out, &failing(0), 8).expect_err("it fails");
        assert!(!out.path().join(FOLDER).exists());
    }
}

#[test]
fn all_ranks_stop_after_the_same_step_whichever_was_asked() {
    for (ahead, ranks) in [(false, 2), (true, 2), (true, 3)] {
        for rank in 0..ranks {
            // Asked in the step with the index 3 or 4, of which the fourth is followed by a checkpoint.
            for (step, last_step) in [(3, 4), (4, if ahead { 6 } else { 5 })] {
                let out = folder();
                let toy = Toy { ahead, asked: Some((rank, step)), ..Toy::default() };
                let ended = run_ranks(&out, &toy, 100, ranks).expect("it stops");
                assert_eq!(ended, Ended::Interrupted);
                let (state, number) = last(&out);
                assert_eq!((state.step, number), (last_step, last_step as f32), "{ahead} {rank}");
                // The same command goes on, with another number of ranks, too.
                let steady = Toy { ahead, ..Toy::default() };
                assert_eq!(run(&out, &steady, 9).expect("it goes on"), Ended::Done);
                assert_eq!(last(&out).1, 9.0);
            }
        }
    }
}

#[test]
fn a_run_that_is_stopped_in_its_last_step_owes_the_evaluation() {
    for ahead in [false, true] {
        let out = folder();
        let toy = Toy { ahead, asked: Some((1, 5)), ..Toy::default() };
        let ended = run_ranks(&out, &toy, 6, 2).expect("it ends");
        assert_eq!((ended, last(&out).0.owes_evaluation), (Ended::Interrupted, true));
        let steady = Toy { ahead, ..Toy::default() };
        assert_eq!(run_ranks(&out, &steady, 6, 2).expect("it goes on"), Ended::Done);
        assert!(!last(&out).0.owes_evaluation);
    }
}

#[test]
fn previews_and_evaluations_that_panic_are_warnings() {
    let name = "train::tests::trouble::previews_and_evaluations_that_panic_are_warnings";
    if let Some(said) = alone::said(name, &[]) {
        for warning in [
            "warning: the preview panicked; the training goes on\n",
            "warning: the evaluation panicked; the training goes on\n",
            "warning: 2 evaluations failed\n",
        ] {
            assert_eq!(said.matches(warning).count(), 1, "{said}");
        }
        return;
    }
    let out = folder();
    let panicking = Toy { panics: true, ..Toy::default() };
    assert_eq!(run(&out, &panicking, 4).expect("it ends"), Ended::Done);
    let (state, number) = last(&out);
    assert_eq!((state.step, state.owes_evaluation, number), (4, false, 4.0));
}
