//! Runs of a trainer that does as it is told: which checkpoints are there after trouble, and what they hold.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tintype::burn::tensor::Device;
use tintype::image::Rgb;
use tintype::weights::{TensorView, open};

use crate::alone;
use crate::train::checkpoint::tests::names;
use crate::train::checkpoint::{FOLDER, State, TensorFile, latest};
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
batch = 1
checkpoint_every = 2
keep_last = 1
[optimizer]
lr = 1.0
betas = [0.9, 0.99]
[ema]
decay = 0.9
[preview]
every = 1
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
    /// Whether previews and evaluations panic.
    panics: bool,
}

impl Trainer for Toy {
    fn step(&mut self, step: u64) -> Result<Report> {
        ensure!(self.unreadable != Some(step), "the data of step {step} cannot be read");
        let skipped = self.skipped.contains(&step);
        if !skipped {
            self.number += 1.0;
        }
        Ok(Report { values: vec![("loss".into(), 1.0)], skipped })
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let number = TensorView::from_f32(vec![1], &[self.number]).map_err(anyhow::Error::msg)?;
        let tensors = BTreeMap::from([("number".to_string(), number)]);
        Ok(vec![TensorFile { name: "model.safetensors", tensors, metadata: BTreeMap::new() }])
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        self.number = number(checkpoint)?;
        Ok(())
    }

    fn preview(&mut self) -> Result<Option<Rgb>> {
        assert!(!self.panics, "there is no picture");
        Ok(None)
    }

    fn evaluate(&mut self, _stop: &AtomicBool) -> Result<Option<Vec<(String, f64)>>> {
        assert!(!self.panics, "there is no metric");
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
    let mut config = Config::parse(CONFIG)?;
    config.set_steps(steps);
    let interrupted = Arc::new(AtomicBool::new(false));
    let run = Run { config, out: folder.path().into(), interrupted, quiet: true };
    let toy = toy.clone();
    train(&run, &[Device::flex()], move |_, _| {
        let trainer: Box<dyn Trainer> = Box::new(toy.clone());
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
    let out = folder();
    let skipping = Toy { skipped: 4..8, ..Toy::default() };
    assert_eq!(run(&out, &skipping, 8).expect("it ends"), Ended::Done);
    // None at the sixth step, and the one at the end does not take the place of the fourth's.
    assert_eq!(names(out.path()), ["00000004", "00000008"]);
    let (state, number) = last(&out);
    assert_eq!((state.step, state.skipped, number), (8, 4, 4.0));
    // A step that changes something ends that.
    run(&out, &Toy::default(), 9).expect("it goes on");
    assert_eq!(names(out.path()), ["00000009"]);
    assert_eq!(last(&out).1, 5.0);
    // A run that diverges.
    let out = folder();
    let diverging = Toy { skipped: 4..u64::MAX, ..Toy::default() };
    let error = run(&out, &diverging, 1000).expect_err("it diverges");
    let at = 4 + MOST_SKIPPED;
    let diverged = error.downcast_ref::<RunError>();
    assert!(matches!(diverged, Some(RunError::Diverged { step, .. }) if *step == at), "{error}");
    assert_eq!(names(out.path()), ["00000004"]);
}

#[test]
fn a_step_that_fails_costs_only_itself() {
    let name = "train::tests::trouble::a_step_that_fails_costs_only_itself";
    if let Some(said) = alone::said(name, &[]) {
        assert!(!said.contains("warning"), "{said}");
        return;
    }
    let failing = |unreadable: u64| Toy { unreadable: Some(unreadable), ..Toy::default() };
    let out = folder();
    let error = run(&out, &failing(5), 8).expect_err("it fails");
    assert_eq!(error.to_string(), "the data of step 5 cannot be read");
    assert_eq!(names(out.path()), ["00000005"]);
    let (state, number) = last(&out);
    assert_eq!((state.step, state.skipped, number), (5, 0, 5.0));
    // The same command goes on there: no step is left out, or made twice.
    run(&out, &Toy::default(), 8).expect("it goes on");
    assert_eq!(names(out.path()), ["00000008"]);
    assert_eq!(last(&out).1, 8.0);
    // After skipped steps the checkpoint before them is the better one.
    let out = folder();
    run(&out, &Toy { skipped: 4..6, ..failing(6) }, 8).expect_err("it fails");
    assert_eq!(names(out.path()), ["00000004"]);
    // There is nothing to keep.
    let out = folder();
    run(&out, &failing(0), 8).expect_err("it fails");
    assert!(!out.path().join(FOLDER).exists());
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
