//! What two runs have in common.

use std::collections::BTreeMap;

use serde_json::Value;
use tintype::weights::{Weights, open};

use crate::common::{Workspace, names};

/// Keys of the log that tell of the machine.
const MEASURED: [&str; 3] = ["images_per_second", "model_flop_utilisation", "memory_bytes"];

/// The step of a run's latest checkpoint; 0 before there is one.
pub fn latest_step(workspace: &Workspace, run: &str) -> u64 {
    let folder = workspace.path(run).join("checkpoints");
    if !folder.exists() {
        return 0;
    }
    names(&folder).iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0)
}

/// Lines in a run's log; 0 before there is one.
pub fn lines(workspace: &Workspace, run: &str) -> usize {
    let log = std::fs::read_to_string(workspace.path(run).join("log.jsonl"));
    log.map_or(0, |log| log.lines().count())
}

/// The numbers of each step in a run's log, but for [`MEASURED`] ones.
pub fn log(workspace: &Workspace, run: &str) -> Vec<BTreeMap<String, f64>> {
    let log = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
    let line = |line: &str| -> BTreeMap<String, Value> {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{run}: {e}: {line}"))
    };
    let number = |(name, value): (String, Value)| {
        let number = value.as_f64().unwrap_or_else(|| panic!("{run}: {name} is {value}"));
        (!MEASURED.contains(&name.as_str())).then_some((name, number))
    };
    log.lines()
        .map(line)
        .filter(|line| !line.contains_key("note"))
        .map(|line| line.into_iter().filter_map(number).collect())
        .collect()
}

/// Two logs have the same numbers, but for `tolerance` relative to them.
pub fn assert_same_log(workspace: &Workspace, a: &str, b: &str, tolerance: f64) {
    let (ours, theirs) = (log(workspace, a), log(workspace, b));
    assert!(!ours.is_empty(), "{a} has a log");
    assert_eq!(ours.len(), theirs.len(), "steps of {a} and {b}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.keys().eq(theirs.keys()), "{a}: {ours:?}, {b}: {theirs:?}");
        for (name, x) in ours {
            let y = theirs[name];
            let apart = (x - y).abs();
            assert!(apart <= tolerance * x.abs(), "{name} is {x} in {a} and {y} in {b}: {ours:?}");
        }
    }
}

/// The latest checkpoints of two runs are of the same step, and all their tensors have the same bits.
pub fn assert_same_bits(workspace: &Workspace, a: &str, b: &str) {
    let step = latest_step(workspace, a);
    assert!(step > 0, "{a} has a checkpoint");
    assert_eq!(step, latest_step(workspace, b), "steps of {a} and {b}");
    let folder = |run: &str| workspace.path(run).join(format!("checkpoints/{step:08}"));
    let (ours, theirs) = (folder(a), folder(b));
    let files = names(&ours);
    assert_eq!(files, names(&theirs), "files of {a} and {b}");
    assert!(files.iter().any(|file| file == "optimizer.safetensors"), "{files:?}");
    for file in files.iter().filter(|file| file.ends_with(".safetensors")) {
        let read = |path: &std::path::Path| open(&path.join(file)).expect("it is whole");
        let (ours, theirs) = (read(&ours), read(&theirs));
        let named = |weights: &Weights| weights.tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(named(&ours), named(&theirs), "tensors of {file} in {a} and {b}");
        assert!(!ours.tensors.is_empty(), "{file} of {a} has tensors");
        for (name, our) in &ours.tensors {
            let their = &theirs.tensors[name];
            assert_eq!((our.dtype, &our.shape), (their.dtype, &their.shape), "{file}: {name}");
            let (our, their) = (our.read().expect("it reads"), their.read().expect("it reads"));
            let apart = our.iter().zip(their.iter()).filter(|(x, y)| x != y).count();
            assert_eq!(
                apart,
                0,
                "differing bytes of {} in {name} of {file}, {a} and {b}",
                our.len()
            );
        }
    }
}
