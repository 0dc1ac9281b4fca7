//! Training end to end: real processes, from images to samples.

#[path = "../common/mod.rs"]
mod common;
mod flows;
mod interruptions;
mod loss_networks;
mod meanflow;
mod pipeline;
mod rae_decoder;
mod rae_latents;
mod runs;
mod settings;
#[cfg(unix)]
mod signals;
mod survival;

use common::Workspace;
use runs::{assert_close, hdit};

#[test]
fn data_parallelism_accumulation_and_recomputation_change_nothing() {
    let workspace = Workspace::prepared();
    workspace.write("one.toml", &hdit("", ""));
    workspace.write("micro.toml", &hdit("", "accumulate = 4"));
    workspace.write("again.toml", &hdit("", "recompute = true"));
    workspace.succeeds("train one.toml --out one --device cpu --quiet");
    workspace.succeeds("train one.toml --out two --device cpu,cpu --quiet");
    workspace.succeeds("train micro.toml --out micro --device cpu --quiet");
    workspace.succeeds("train again.toml --out again --device cpu --quiet");
    // The same samples and the same sums in another order.
    for other in ["two", "micro", "again"] {
        assert_close(&workspace, "one", other, 1e-4);
    }
    let mut launched = workspace.command("train one.toml --out x --device cpu");
    let output = launched.env("RANK", "0").env("WORLD_SIZE", "2").output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "one of two processes, and nobody started the other");
    let is_reason = |line: &str| line.starts_with("error: ") && line.contains("mpirun");
    assert!(errors.lines().any(is_reason), "{errors}");
    let refused = workspace.refused("train one.toml --out three --device cpu,cpu,cpu --quiet");
    assert!(refused.contains("run.batch = 8"), "{refused}");
}

#[test]
fn invalid_configurations_are_errors_before_training() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.write("key.toml", &hdit("", "chekpoint_every = 3"));
    let says = |line: &str, words: &[&str]| {
        let sentence = workspace.refused(line);
        for word in words {
            assert!(sentence.contains(word), "{sentence:?} lacks {word:?}");
        }
    };
    says("train key.toml --out x --device cpu", &["run.chekpoint_every", "checkpoint_every"]);
    says("train no.toml --out x --device cpu", &["no.toml"]);
    workspace.write("classes.toml", &hdit("", "").replace("num_classes = 3", "num_classes = 2"));
    says("train classes.toml --out x --device cpu", &["3 classes", "num_classes = 2"]);
    workspace.write("size.toml", &hdit("", "").replace("[16, 16]", "[32, 32]"));
    says("train size.toml --out x --device cpu", &["16 pixels", "32"]);
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 1");
    workspace.write("wide.toml", &hdit("", "").replace("[16, 32]", "[32, 32]"));
    says("train wide.toml --out run --device cpu", &["another network", "--out"]);
    workspace.write("batch.toml", &hdit("", "").replace("batch = 8", "batch = 4"));
    says("train batch.toml --out run --device cpu", &["batch 8", "4"]);
    // A store that was damaged after it was made.
    let shard = workspace.path("store/images_00000.safetensors");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    std::fs::write(&shard, &bytes).expect("it is written");
    says("train run.toml --out x --device cpu", &["images_00000", "checksum", "prepare"]);
    std::fs::remove_file(&shard).expect("it is deleted");
    says("train run.toml --out x --device cpu", &["images_00000"]);
    workspace.succeeds("prepare images --out store --size 16");
    workspace.succeeds("train run.toml --out x --device cpu --quiet --steps 1");
}

#[test]
fn steps_with_non_finite_gradients_are_skipped_and_counted() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", "").replace("lr = 5e-3", "lr = 1e25"));
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    let log = std::fs::read_to_string(workspace.path("run/log.jsonl")).expect("a log");
    let last: serde_json::Value =
        serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert!(last["skipped"].as_f64().expect("a count") >= 3.0, "{last}");
    // A checkpoint without optimizer state can be resumed, too.
    workspace.write("all.toml", &hdit("", "").replace("sigma_data = 0.5", "sigma_data = 1e-300"));
    for steps in [2, 3] {
        let line = format!("train all.toml --out all --device cpu --quiet --steps {steps}");
        let refused = workspace.refused(&line);
        assert!(refused.contains(&format!("in all {steps} steps")), "{refused}");
    }
}

/// Latents of which the first is NaN, and no statistics: a case that somebody brought.
#[test]
fn latents_that_are_not_finite_are_named_before_training() {
    let workspace = Workspace::prepared();
    let case = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/nan-latents");
    std::fs::create_dir(workspace.path("latents")).expect("a folder");
    for file in ["nan.toml", "latents/latents_rank00_shard000.safetensors"] {
        std::fs::copy(format!("{case}/{file}"), workspace.path(file)).expect("a copy");
    }
    let error = workspace.refused("train nan.toml --out run --device cpu --quiet");
    assert!(
        error.contains("latent 0 of latents") && error.contains("latents_rank00_shard000"),
        "{error}"
    );
    assert!(!workspace.path("run/checkpoints").exists());
}

#[test]
fn what_the_data_cannot_teach_is_said_before_training() {
    let workspace = Workspace::prepared();
    workspace.write("more.toml", &hdit("", "").replace("num_classes = 3", "num_classes = 5"));
    let said = workspace.succeeds("train more.toml --out more --device cpu --quiet --steps 1");
    assert!(
        said.contains("images of 3 of the network's 5 classes; not trained are 3, 4"),
        "{said}"
    );
    // Images in no folder have no labels.
    workspace.succeeds("prepare images/ash --out store --size 16 --force");
    workspace.write("none.toml", &hdit("", ""));
    let said = workspace.succeeds("train none.toml --out none --device cpu --quiet --steps 1");
    assert!(said.contains("the data has no labels and the network 3 classes"), "{said}");
    workspace.write("fewer.toml", &hdit("", "").replace("num_classes = 3", "num_classes = 0"));
    let said = workspace.succeeds("train fewer.toml --out fewer --device cpu --quiet --steps 1");
    assert!(!said.contains("warning"), "{said}");
}

/// A stranger's folder may hold files that Burn and CubeCL look for by themselves; theirs would write logs anywhere.
#[test]
fn configurations_of_burn_in_the_working_folder_are_not_read() {
    let workspace = Workspace::prepared();
    let log = "[autodiff.logger]\nlevel = \"full\"\nfile = \"written.txt\"\n";
    workspace.write("burn.toml", log);
    // Builds for GPUs would say of this one that it is wrong.
    workspace.write("cubecl.toml", "compilation = 1\n");
    workspace.write("run.toml", &hdit("", ""));
    let said = workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 1");
    assert!(!workspace.path("written.txt").exists(), "{said}");
    assert!(!said.contains("cubecl.toml"), "{said}");
}
