//! Settings: what a run keeps, what it begins with, its learning rate, its averages, its evaluation.

use std::collections::BTreeMap;

use serde_json::Value;
use tintype::burn::tensor::Device;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{TensorView, open, snapshot, write_safetensors};

use crate::common::{Workspace, names, tiny_dino};
use crate::runs::{assert_same, hdit, values};

/// All lines of a run's log that have a key, with their step.
pub fn logged(workspace: &Workspace, run: &str, key: &str) -> Vec<(u64, Value)> {
    let log = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let found = lines
        .filter_map(|line| Some((line["step"].as_u64().expect("a step"), line.get(key)?.clone())));
    found.collect()
}

fn says(sentence: &str, words: &[&str]) {
    // Windows' paths have other separators.
    let sentence = sentence.replace('\\', "/");
    for word in words {
        assert!(sentence.contains(word), "{sentence:?} lacks {word:?}");
    }
}

#[test]
fn a_run_notices_other_data_and_settings() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    let other = |from: &str, to: &str| {
        let text = hdit("", "").replace(from, to);
        assert_ne!(text, hdit("", ""), "{from}");
        workspace.write("other.toml", &text);
    };
    let refused = |from: &str, to: &str, words: &[&str]| {
        other(from, to);
        let said = workspace.refused("train other.toml --out run --device cpu --quiet");
        says(&said, words);
        says(&said, &["run.allow_changes = true"]);
    };
    refused("augment_prob = 0.12", "augment_prob = 0.2", &["loss.augment_prob 0.12 → 0.2"]);
    refused("lr = 5e-3", "lr = 1e-3", &["optimizer.lr 0.005 → 0.001"]);
    refused("power = 0.6667", "power = 0.75", &["ema.power 0.6667 → 0.75"]);
    workspace.succeeds("prepare images/ash --out fewer --size 16");
    refused("images = \"store\"", "images = \"fewer\"", &["data.items 24 → 8"]);
    // The same number of images, other ones.
    std::fs::rename(workspace.path("images/ash"), workspace.path("images/zelkova")).expect("moved");
    workspace.succeeds("prepare images --out renamed --size 16");
    refused("images = \"store\"", "images = \"renamed\"", &["data.fingerprint"]);
    // What does not change the result may change.
    other(
        "log_every = 1\ncheckpoint_every = 2",
        "log_every = 2\ncheckpoint_every = 3\nkeep_last = 9",
    );
    workspace.succeeds("train other.toml --out run --device cpu --quiet --steps 3");
    // What is meant is accepted, said, and from then on the run's own.
    other("lr = 5e-3", "lr = 1e-3");
    let meant = hdit("", "allow_changes = true").replace("lr = 5e-3", "lr = 1e-3");
    workspace.write("meant.toml", &meant);
    let said = workspace.succeeds("train meant.toml --out run --device cpu --quiet --steps 4");
    says(&said, &["optimizer.lr 0.005 → 0.001"]);
    let notes = logged(&workspace, "run", "note");
    assert!(matches!(notes.as_slice(), [(3, _)]), "{notes:?}");
    let said = workspace.succeeds("train other.toml --out run --device cpu --quiet --steps 5");
    assert!(!said.contains("note"), "{said}");
    // A checkpoint of an earlier version.
    let state = workspace.path("run/checkpoints/00000005/state.json");
    let text = std::fs::read_to_string(&state).expect("a state");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value.as_object_mut().expect("a table").remove("record").expect("a record");
    std::fs::write(&state, value.to_string()).expect("it is written");
    let said = workspace.succeeds("train run.toml --out run --device cpu --quiet");
    says(&said, &["00000005 does not record"]);
}

#[test]
fn holes_in_the_optimizer_are_noticed() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    let file = workspace.path("run/checkpoints/00000002/optimizer.safetensors");
    let whole = open(&file).expect("an optimizer");
    let metadata = whole.metadata.clone();
    let tensors: BTreeMap<String, TensorView> = whole
        .tensors
        .iter()
        .map(|(name, view)| {
            let view = match name.starts_with("steps.") {
                true => {
                    let steps = view.to_i64()[0].to_le_bytes().to_vec();
                    TensorView::from_bytes(view.dtype, vec![], steps).expect("a number")
                }
                false => TensorView::from_f32(view.shape.clone(), &view.to_f32()).expect("values"),
            };
            (name.clone(), view)
        })
        .collect();
    drop(whole);
    let with = |change: &dyn Fn(&mut BTreeMap<String, TensorView>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        let bytes = write_safetensors(&tensors, &metadata).expect("it fits");
        std::fs::remove_file(&file).expect("it is removed");
        std::fs::write(&file, bytes).expect("it is written");
    };
    let line = "train run.toml --out run --device cpu --quiet";
    let name = "patch_out.proj.weight";
    with(&|tensors| drop(tensors.remove(&format!("second.{name}")).expect("a moment")));
    says(&workspace.refused(line), &["optimizer.safetensors", "second.patch_out.proj.weight"]);
    with(&|tensors| tensors.retain(|tensor, _| !tensor.ends_with(name)));
    says(&workspace.refused(line), &["optimizer.safetensors", "moments of"]);
    let short = TensorView::from_f32(vec![1], &[0.0]).expect("a value");
    with(&|tensors| {
        tensors.insert(format!("first.{name}"), short.clone());
    });
    says(&workspace.refused(line), &["first.patch_out.proj.weight has 1 values"]);
    with(&|_| {});
    workspace.succeeds(line);
}

#[test]
fn a_network_is_tuned_to_other_classes_and_keeps_its_average() {
    let workspace = Workspace::prepared();
    workspace.write("base.toml", &hdit("", ""));
    workspace.succeeds("train base.toml --out base --device cpu --quiet --steps 2");
    let from = |model: &str, init: &str| {
        let text = hdit(model, "").replace("num_classes = 3\nnum", "num");
        workspace.write("tuned.toml", &format!("{text}[init]\nfrom = \"base\"\n{init}"));
    };
    let line = |run: &str| format!("train tuned.toml --out {run} --device cpu --quiet --steps 1");
    from("", "");
    let said = workspace.succeeds(&line("same"));
    assert!(!said.contains("initialized"), "{said}");
    says(&said, &["init.from base/checkpoints/00000002", "tensors taken"]);
    // Two updates there and one here.
    let ema = workspace.latest("same", "ema.safetensors");
    assert_eq!(ema.metadata.get("ema_updates").map(String::as_str), Some("3"));
    from("num_classes = 5", "");
    let said = workspace.succeeds(&line("more"));
    says(&said, &["initialized again: class_emb.weight (4 rows there, 6 here)"]);
    let notes = logged(&workspace, "more", "note");
    assert!(matches!(notes.as_slice(), [(0, Value::String(_))]), "{notes:?}");
    // Resumed, nothing is taken from there.
    let said = workspace.succeeds("train tuned.toml --out more --device cpu --quiet --steps 2");
    assert!(!said.contains("init.from"), "{said}");
    from("", "reinit = [\"mapping.\"]");
    let said = workspace.succeeds(&line("mapping"));
    says(&said, &["initialized again: mapping."]);
    workspace.write("names.txt", "blocks.* -> levels.*\n");
    from("", "names = \"names.txt\"");
    let said = workspace.succeeds(&line("names"));
    says(&said, &["tensors taken; names.txt: no tensor takes line 1 (blocks.* -> levels.*)"]);
    from("", "reinit = [\"nothing.\"]");
    says(&workspace.refused(&line("x")), &["init.reinit", "nothing."]);
    from("", "");
    let text = std::fs::read_to_string(workspace.path("tuned.toml")).expect("a configuration");
    workspace.write("tuned.toml", &text.replace("mapping_width = 16", "mapping_width = 32"));
    says(&workspace.refused(&line("x")), &["has shape", "init.reinit"]);
}

#[test]
fn learning_rates_follow_their_schedule_over_a_resume() {
    let workspace = Workspace::prepared();
    let cosine = "lr = 5e-3\nschedule = \"cosine\"\nwarmup_steps = 2\nfinal_lr = 1e-3";
    workspace.write("run.toml", &hdit("", "").replace("lr = 5e-3", cosine));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet --steps 3");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "whole", "parts");
    let rates: Vec<f64> =
        logged(&workspace, "parts", "lr").iter().map(|line| line.1.as_f64().expect("lr")).collect();
    let half = |share: f64| 1e-3 + 4e-3 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
    let expected = [2.5e-3, 5e-3, 5e-3, half(0.25), half(0.5), half(0.75)];
    assert_eq!(rates.len(), expected.len());
    for (rate, expected) in rates.iter().zip(expected) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
    // Another end of the schedule is another schedule.
    let longer = hdit("", "").replace("lr = 5e-3", cosine).replace("steps = 6", "steps = 8");
    workspace.write("longer.toml", &longer);
    let refused = workspace.refused("train longer.toml --out parts --device cpu --quiet");
    says(&refused, &["optimizer.decay_steps 6 → 8"]);
}

#[test]
fn a_run_keeps_several_averages() {
    let workspace = Workspace::prepared();
    let one = "[ema]\npower = 0.6667\nmax_value = 0.9999\n";
    let two = "[[ema]]\npower = 0.6667\nmax_value = 0.9999\n[[ema]]\ndecay = 0.5\n";
    workspace.write("one.toml", &hdit("", ""));
    workspace.write("two.toml", &hdit("", "").replace(one, two));
    workspace.succeeds("train one.toml --out one --device cpu --quiet");
    workspace.succeeds("train two.toml --out two --device cpu --quiet");
    workspace.succeeds("train two.toml --out parts --device cpu --quiet --steps 3");
    workspace.succeeds("train two.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "one", "two");
    assert_same(&workspace, "two", "parts");
    let ema = |run: &str, file: &str| values(&workspace.latest(run, file));
    assert_eq!(ema("two", "ema_2.safetensors"), ema("parts", "ema_2.safetensors"));
    assert_ne!(ema("two", "ema_2.safetensors"), ema("two", "ema.safetensors"));
    assert!(!workspace.path("one/checkpoints/00000006/ema_2.safetensors").exists());
    // Programs that make images take the first.
    let file = open(&workspace.path("two")).expect("a run").file;
    assert!(file.ends_with("ema.safetensors"), "{file}");
    says(&workspace.refused("train two.toml --out one --device cpu --quiet"), &["ema."]);
}

/// A tiny DINOv2 with random weights.
pub fn write_extractor(workspace: &Workspace) {
    let dino = tiny_dino(224);
    let random = |(name, view): (String, TensorView)| {
        let key = ImageKey::new(view.len() as u64, 0);
        let values: Vec<f32> =
            normals(key, Stream::Noise, 0, view.len()).iter().map(|v| v * 0.1).collect();
        (name, TensorView::from_f32(view.shape.clone(), &values).expect("it fits"))
    };
    let weights = snapshot(&dino.init(&Device::flex()).expect("it fits"));
    let weights: BTreeMap<String, TensorView> = weights.into_iter().map(random).collect();
    let bytes = write_safetensors(&weights, &BTreeMap::new()).expect("it fits");
    std::fs::write(workspace.path("dino.safetensors"), bytes).expect("it is written");
}

#[test]
fn samples_are_evaluated_during_training() {
    let workspace = Workspace::prepared();
    write_extractor(&workspace);
    let table = |steps: usize| {
        format!(
            "[evaluate]\nevery = 3\nsamples = 6\nreference = \"store\"\ndinov2 = \"dino.safetensors\"\nsteps = {steps}\nbatch = 4\n"
        )
    };
    let base = hdit("", "tensorboard = true");
    workspace.write("plain.toml", &hdit("", ""));
    workspace.write("run.toml", &format!("{base}{}", table(3)));
    workspace.succeeds("train plain.toml --out plain --device cpu --quiet");
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    let distances = logged(&workspace, "run", "fd_dinov2");
    let steps: Vec<u64> = distances.iter().map(|line| line.0).collect();
    assert_eq!(steps, [3, 6]);
    assert!(distances.iter().all(|(_, v)| v.as_f64().is_some_and(|v| v > 0.0)), "{distances:?}");
    let events = names(&workspace.path("run"));
    let events = events.iter().find(|n| n.contains("tfevents")).expect("TensorBoard's file");
    let events = std::fs::read(workspace.path("run").join(events)).expect("events");
    assert!(events.windows(9).any(|tag| tag == b"fd_dinov2"));
    // It changes nothing, and a resumed run measures the same.
    assert_same(&workspace, "plain", "run");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet --steps 4");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet");
    assert_eq!(logged(&workspace, "parts", "fd_dinov2").last(), distances.last());
    // One that an interruption left is made when the run goes on, and once.
    let checkpoints = workspace.path("run/checkpoints");
    let last = checkpoints.join(names(&checkpoints).last().expect("a checkpoint"));
    let text = std::fs::read_to_string(last.join("state.json")).expect("a state");
    assert!(!text.contains("owes_evaluation"), "{text}");
    let mut state: Value = serde_json::from_str(&text).expect("JSON");
    state["owes_evaluation"] = Value::Bool(true);
    std::fs::write(last.join("state.json"), state.to_string()).expect("it is written");
    for _ in 0..2 {
        workspace.succeeds("train run.toml --out run --device cpu --quiet");
        assert_eq!(logged(&workspace, "run", "fd_dinov2").len(), 3);
    }
    // One that cannot begin is an error before.
    workspace.write("failing.toml", &format!("{base}{}", table(0)));
    let refused = workspace.refused("train failing.toml --out failing --device cpu --quiet");
    says(&refused, &["evaluate.steps must be at least 1"]);
    let none = table(3).replace("dinov2 = \"dino.safetensors\"\n", "");
    workspace.write("none.toml", &format!("{base}{none}"));
    let refused = workspace.refused("train none.toml --out x --device cpu --quiet");
    says(&refused, &["evaluate.dinov2"]);
}

#[test]
fn gradients_of_the_autoencoder_are_clipped() {
    let workspace = Workspace::prepared();
    let vae = |clip: &str| {
        format!(
            r#"
recipe = "vae"
[model]
ch = 4
ch_mult = [1, 2]
num_res_blocks = 1
z_channels = 4
resolution = 16
attn_resolutions = []
num_groups = 2
[data]
images = "store"
[loss]
disc_weight = 0.0
[run]
steps = 2
batch = 2
log_every = 1
[optimizer]
lr = 1e-3
betas = [0.5, 0.9]
{clip}
"#
        )
    };
    workspace.write("free.toml", &vae(""));
    // So little that AdamW's eps is more.
    workspace.write("clipped.toml", &vae("max_grad_norm = 1e-9"));
    for run in ["free", "clipped"] {
        workspace.succeeds(&format!("train {run}.toml --out {run} --device cpu --quiet"));
    }
    assert_eq!(logged(&workspace, "clipped", "grad_norm").len(), 2);
    let weights = |run: &str| values(&workspace.latest(run, "model.safetensors"));
    assert_ne!(weights("free"), weights("clipped"));
    workspace.write("unused.toml", &(vae("") + "[preview]\nevery = 2\nsteps = 4\n"));
    let refused = workspace.refused("train unused.toml --out x --device cpu --quiet");
    says(&refused, &["preview.steps", "vae"]);
    workspace.write("array.toml", &hdit("", "").replace("kernel_size = 3", "kernel_sise = 3"));
    let refused = workspace.refused("train array.toml --out x --device cpu --quiet");
    says(&refused, &["model.self_attns[0].kernel_sise", "kernel_size"]);
}
