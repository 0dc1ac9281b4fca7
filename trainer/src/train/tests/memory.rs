//! The memory that a checkpoint takes while it is written.

use std::convert::Infallible;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::Value;
use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, FloatDType, Tensor};

use crate::alone;
use crate::train::adamw::{AdamWConfig, Group, Groups};
use crate::train::checkpoint::tests::state;
use crate::train::comm::Comm;
use crate::train::diffusion::{DiffusionTrainer, Steps, Watchers, fresh};
use crate::train::ema::EmaConfig;
use crate::train::epoch_sampler::{EpochSampler, SampleIndex};
use crate::train::objective::{Compute, Loss, Objective};
use crate::train::recompute::Tape;
use crate::train::record::DataRecord;
use crate::train::saver::{Keep, Saver, Writing};
use crate::train::trainer::Trainer;
use crate::train::warnings::Warnings;

const LAYERS: usize = 8;
/// Values of a layer: four mebibytes.
const LENGTH: usize = 1 << 20;

/// Parameters and nothing else.
#[derive(Module, Debug)]
struct Parameters {
    layers: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<1>>,
}

/// Parameters should be zero.
struct Zero;

impl Objective for Zero {
    type Network = Parameters;
    type Batch = ();

    fn collate(&self, _samples: &[SampleIndex], _step: u64, _batch: usize) -> Result<()> {
        Ok(())
    }

    fn loss(
        &self,
        network: &Parameters,
        _batch: (),
        _compute: Compute,
        _device: &Device,
    ) -> Result<Loss> {
        let squares = network.layers.iter().map(|layer| layer.weight.val().square().sum());
        let total = squares.reduce(|a, b| a + b).context("there are layers")?;
        Ok(Loss { total, terms: Vec::new(), tape: Tape::<3>::new(false).into() })
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn config(&self) -> Value {
        Value::Null
    }

    fn data(&self) -> DataRecord {
        DataRecord::new(1, ["zero".to_string()])
    }

    fn macs(&self) -> f64 {
        0.0
    }
}

/// A trainer after its first step, so that there are an average and moments.
fn trainer() -> Result<DiffusionTrainer<Zero>> {
    let device = Device::flex().autodiff();
    let init = |device: &Device| {
        let layer = |_| Layer { weight: Initializer::Ones.init([LENGTH], device) };
        Ok::<_, Infallible>(Parameters { layers: (0..LAYERS).map(layer).collect() })
    };
    let compute = Compute { precision: FloatDType::F32, recompute: false };
    let emas = [EmaConfig::Constant { decay: 0.9 }];
    let mut trainer = DiffusionTrainer::new(
        Zero,
        fresh(init, 0, &device)?,
        (AdamWConfig::new(0.1, [0.9, 0.99]), emas.as_slice()),
        Steps { batch: 1, accumulate: 1, compute },
        EpochSampler::shuffled(0, 1),
        Comm::alone(),
        Watchers::default(),
        &[],
        &device,
    )?;
    trainer.step(0)?;
    trainer.settle()?;
    Ok(trainer)
}

/// A line of what Linux tells of this process's memory, in bytes.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let value = status.lines().find_map(|text| text.strip_prefix(line)).expect("a line");
    let kibibytes: usize = value.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

#[test]
fn a_checkpoint_is_written_from_one_copy() {
    let name = "train::tests::memory::a_checkpoint_is_written_from_one_copy";
    // Every tensor in a mapping of its own: else freed memory would stay with the process and be used again.
    if alone::said(name, &[("MALLOC_MMAP_THRESHOLD_", "65536")]).is_some() {
        return;
    }
    let run = tempfile::tempdir().expect("a folder");
    let trainer = trainer().expect("a step");
    let (before, most) = (memory("VmRSS:"), memory("VmHWM:"));
    let files = trainer.save().expect("a copy");
    let views = files.iter().flat_map(|file| file.tensors.values());
    let size: usize = views.map(|view| view.len() * view.dtype.size()).sum();
    assert!(size >= 4 * LAYERS * LENGTH * size_of::<f32>(), "weights, average and two moments");
    let mut saver = Saver::new(run.path(), Keep { last: 1, every: 0 });
    saver.start(state(1), files, Writing::PERIODIC).expect("it begins");
    saver.finish(&mut Warnings::new(ProgressBar::hidden())).expect("it is written");
    let taken = memory("VmHWM:") - before;
    let said = format!("{} MiB for {} MiB", taken >> 20, size >> 20);
    assert!(most < before + size, "the peak of the step hides that of the checkpoint");
    assert!(taken > size / 2, "the measure fails: {said}");
    assert!(10 * taken <= 12 * size, "{said}");
}
