//! Steps that begin before the one before them is settled.

use std::convert::Infallible;

use anyhow::Result;
use serde_json::Value;
use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::weights::{Which, flat};

use crate::train::adamw::{AdamWConfig, Group, Groups};
use crate::train::comm::Comm;
use crate::train::diffusion::{DiffusionTrainer, Steps, Watchers, fresh};
use crate::train::ema::EmaConfig;
use crate::train::epoch_sampler::{EpochSampler, SampleIndex};
use crate::train::objective::{Compute, Loss, Objective};
use crate::train::recompute::Tape;
use crate::train::record::DataRecord;
use crate::train::trainer::{Report, Trainer};

#[derive(Module, Debug)]
struct Row {
    weight: Param<Tensor<1>>,
    /// Not trained, but averaged.
    table: Param<Tensor<1>>,
}

/// Values should be zero. The loss of some steps is not finite.
struct Zero {
    bad: Vec<u64>,
}

impl Objective for Zero {
    type Network = Row;
    type Batch = u64;

    fn collate(&self, _samples: &[SampleIndex], step: u64, _batch: usize) -> Result<u64> {
        Ok(step)
    }

    fn loss(&self, network: &Row, step: u64, _compute: Compute, _device: &Device) -> Result<Loss> {
        let factor = if self.bad.contains(&step) { f64::NAN } else { 1.0 };
        let total = network.weight.val().square().sum() * factor;
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

/// What a step may have besides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Muon,
    MicroBatches,
    SeveralAverages,
}

fn trainer(bad: &[u64], kind: Kind, device: &Device) -> Result<DiffusionTrainer<Zero>> {
    let init = |device: &Device| {
        let row = |value: f64| Initializer::Constant { value }.init::<1, _>([3], device);
        let (weight, table) = (row(1.0), row(2.0));
        Ok::<_, Infallible>(Row { weight, table: table.set_require_grad(false) })
    };
    let optimizer = AdamWConfig { max_grad_norm: Some(1.0), ..AdamWConfig::new(0.1, [0.9, 0.99]) };
    let optimizer = AdamWConfig { muon: kind == Kind::Muon, ..optimizer };
    // The decay depends on the number of updates.
    let emas = [
        EmaConfig::Inverse { power: 0.75, max_value: 0.999 },
        EmaConfig::Constant { decay: 0.5 },
        EmaConfig::HalfLife { half_life: 10.0 },
    ];
    let emas = if kind == Kind::SeveralAverages { &emas[..] } else { &emas[..1] };
    let accumulate = if kind == Kind::MicroBatches { 2 } else { 1 };
    let batch = accumulate;
    DiffusionTrainer::new(
        Zero { bad: bad.to_vec() },
        fresh(init, 0, device)?,
        (optimizer, emas),
        Steps {
            batch,
            accumulate,
            compute: Compute { precision: FloatDType::F32, recompute: false },
        },
        EpochSampler::shuffled(0, 1),
        Comm::alone(),
        Watchers::default(),
        &[],
        device,
    )
}

/// Bits of weights, averages and moments, and the reports.
fn after(
    bad: &[u64],
    steps: u64,
    ahead: bool,
    kind: Kind,
    device: &Device,
) -> (Vec<Vec<u32>>, Vec<Report>) {
    let mut trainer = trainer(bad, kind, device).expect("it is made");
    let mut reports = Vec::new();
    for step in 0..steps {
        trainer.step(step).expect("a step");
        if !ahead || step > 0 {
            reports.push(trainer.settle().expect("one is in flight"));
        }
    }
    while reports.len() < steps as usize {
        reports.push(trainer.settle().expect("one is in flight"));
    }
    assert!(trainer.settle().is_err(), "all were settled");
    let mut bits = Vec::new();
    let values = |x: &Tensor<1>| x.to_data().iter::<f32>().map(f32::to_bits).collect();
    bits.extend(flat(trainer.network(), Which::All).values().map(values));
    for ema in &trainer.emas {
        bits.extend(ema.values.values().map(values));
    }
    for (name, view) in trainer.optimizer.to_tensors() {
        bits.push(match name.starts_with("steps.") {
            true => view.to_i64().iter().map(|&steps| steps as u32).collect(),
            false => view.to_f32().iter().map(|value| value.to_bits()).collect(),
        });
    }
    bits.push(vec![trainer.emas[0].updates as u32]);
    (bits, reports)
}

#[test]
fn a_step_ahead_changes_nothing_whichever_steps_are_skipped() {
    let kinds = [Kind::Plain, Kind::Muon, Kind::MicroBatches, Kind::SeveralAverages];
    for (device, kind) in devices().iter().flat_map(|device| kinds.map(|kind| (device, kind))) {
        for bad in [&[][..], &[0], &[2, 3], &[0, 1, 2, 3, 4, 5]] {
            let at_once = after(bad, 6, false, kind, device);
            let ahead = after(bad, 6, true, kind, device);
            assert_eq!(ahead.0, at_once.0, "{kind:?} {bad:?}");
            let skipped = |reports: &[Report]| -> Vec<bool> {
                reports.iter().map(|report| report.skipped).collect()
            };
            let expected: Vec<bool> = (0..6).map(|step| bad.contains(&step)).collect();
            assert_eq!([skipped(&at_once.1), skipped(&ahead.1)], [expected.clone(), expected]);
        }
        // Skipped steps leave no trace: the weights are those of as many good ones.
        let without = after(&[], 4, false, kind, device).0;
        assert_eq!(after(&[1, 3], 6, true, kind, device).0, without, "{kind:?}");
    }
}

/// The processor, and a GPU where there is one.
fn devices() -> Vec<Device> {
    let gpu = tintype::device::choose("wgpu").ok().map(|chosen| chosen.found.device);
    gpu.into_iter().chain([Device::flex()]).map(Device::autodiff).collect()
}
