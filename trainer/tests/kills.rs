//! Commands that are killed at any moment, run again, and end with the bytes of an undisturbed run.

mod common;
#[allow(dead_code)] // one of its configurations is used here
#[path = "training/runs.rs"]
mod runs;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tintype::burn::tensor::Device;
use tintype::model::vavae::VaeConfig;
use tintype::noise::{ImageKey, Stream, uniforms};
use tintype::weights::{TensorView, snapshot, write_safetensors};
use tintype_trainer::data::hdf5::Hdf5Store;

use common::{Workspace, names, tiny_dino};

const KILLS: usize = 20;

fn write(path: &Path, tensors: &BTreeMap<String, TensorView>, config: Option<String>) {
    let metadata = config.into_iter().map(|text| ("config".to_string(), text)).collect();
    std::fs::write(path, write_safetensors(tensors, &metadata).expect("it fits")).expect("written");
}

/// A store, and the smallest networks.
fn workspace() -> Workspace {
    let workspace = Workspace::prepared();
    let config: VaeConfig = serde_json::from_str(
        r#"{"ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 4, "attn_resolutions": [], "num_groups": 4}"#,
    )
    .expect("a configuration");
    let device = Device::flex();
    let mut tensors = snapshot(&config.init_encoder(&device).expect("it fits"));
    tensors.extend(snapshot(&config.init_decoder(&device).expect("it fits")));
    let text = serde_json::to_string(&config).expect("JSON");
    write(&workspace.path("vae.safetensors"), &tensors, Some(text));
    let dino = tiny_dino(224);
    let tensors = snapshot(&dino.init(&device).expect("it fits"));
    write(&workspace.path("dino.safetensors"), &tensors, None);
    workspace.write("run.toml", &runs::hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 1");
    workspace
}

/// All files of outputs by name; of HDF5 files the data sets, which a resumed file may hold at other places.
fn contents(workspace: &Workspace, outputs: &[String]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left: Vec<_> = outputs.iter().map(|name| workspace.path(name)).collect();
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(workspace.path("")).expect("it lies below");
        let name = name.to_string_lossy().replace("killed", "whole");
        if path.is_dir() {
            left.extend(names(&path).iter().map(|name| path.join(name)));
        } else if name.ends_with(".h5") {
            let store = Hdf5Store::open(&path).expect("a store");
            for item in store.items.iter().map(String::as_str).chain(["dataset.json"]) {
                let bytes = store.bytes(item).unwrap_or_else(|e| panic!("{e}"));
                found.insert(format!("{name}/{item}"), bytes);
            }
        } else {
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            found.insert(name, bytes);
        }
    }
    found
}

/// Kills a command at random moments, then lets it finish, and compares `outputs`. OUT in both stands for a name.
fn survives(workspace: &Workspace, line: &str, outputs: &[&str]) {
    let named = |name: &str| -> Vec<String> {
        outputs.iter().map(|output| output.replace("OUT", name)).collect()
    };
    let started = Instant::now();
    workspace.succeeds(&line.replace("OUT", "whole"));
    let duration = started.elapsed().as_secs_f64();
    let whole = contents(workspace, &named("whole"));
    assert!(!whole.is_empty(), "{line} writes something");
    let line = line.replace("OUT", "killed");
    let key = ImageKey::new(line.len() as u64, 0);
    let mut finished = 0;
    for moment in uniforms(key, Stream::Order, 0, KILLS) {
        let mut command = workspace.command(&line);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs_f64(0.002 + moment * duration));
        let _ = child.kill();
        if child.wait().expect("it ends").success() {
            // It was faster: begin anew.
            finished += 1;
            assert!(contents(workspace, &named("killed")) == whole, "{line} gave other bytes");
            for output in named("killed") {
                let path = workspace.path(&output);
                let removed = match path.is_dir() {
                    true => std::fs::remove_dir_all(&path),
                    false => std::fs::remove_file(&path),
                };
                removed.unwrap_or_else(|e| panic!("{output}: {e}"));
            }
        }
    }
    assert!(finished < KILLS, "{line} was never killed");
    workspace.succeeds(&line);
    let killed = contents(workspace, &named("killed"));
    let (expected, found): (Vec<_>, Vec<_>) = (whole.keys().collect(), killed.keys().collect());
    assert_eq!(found, expected, "{line}");
    for (name, bytes) in &whole {
        assert!(killed[name] == *bytes, "{line}: {name} differs");
    }
    for name in names(&workspace.path("")) {
        assert!(!name.ends_with(".tmp") && !name.ends_with(".partial"), "{line} left {name}");
    }
}

#[test]
fn killed_commands_finish_with_the_bytes_of_an_undisturbed_run() {
    let workspace = workspace();
    survives(&workspace, "prepare images --out OUT-store --size 16 --hdf5", &["OUT-store"]);
    let encode = "encode store --vae vae.safetensors --device cpu";
    survives(&workspace, &format!("{encode} --out OUT-shards"), &["OUT-shards"]);
    survives(
        &workspace,
        &format!("{encode} --out OUT-moments.h5"),
        &["OUT-moments.h5", "OUT-moments_h5.json"],
    );
    survives(
        &workspace,
        "sample --model run --steps 2 --count 6 --batch 2 --device cpu --out OUT-pngs --npz OUT.npz",
        &["OUT-pngs", "OUT.npz", "OUT.npz.json"],
    );
    survives(
        &workspace,
        "convert vae.safetensors OUT.safetensors --dtype bf16 --force",
        &["OUT.safetensors"],
    );
    survives(
        &workspace,
        "evaluate images --reference images --dinov2 dino.safetensors --metrics fd-dinov2 --device cpu --cache OUT-cache",
        &["OUT-cache"],
    );
}

#[test]
fn outputs_of_another_making_are_refused_and_replaced_when_asked() {
    let workspace = workspace();
    let encode = "encode store --vae vae.safetensors --device cpu --out";
    let sample = "sample --model run --steps 2 --count 3 --device cpu --npz x.npz";
    workspace.succeeds(&format!("{encode} shards"));
    workspace.succeeds(&format!("{encode} moments.h5"));
    workspace.succeeds(sample);
    workspace.write("shards/notes.txt", "mine");
    // Another store with as many images.
    workspace.succeeds("prepare images --out other --size 16");
    let error = workspace.refused("prepare images --out other --size 24");
    assert!(error.contains("side was 16, not 24") && error.contains("--force"), "{error}");
    workspace.succeeds("prepare images --out other --size 24 --force");
    workspace.succeeds("prepare images --out other --size 24");
    for out in ["shards", "moments.h5"] {
        let other = format!("encode other --vae vae.safetensors --device cpu --out {out}");
        let error = workspace.refused(&other);
        assert!(error.contains("store was ") && error.contains("side was 16, not 24"), "{error}");
        workspace.succeeds(&format!("{other} --force"));
        let again = workspace.refused(&format!("{encode} {out}"));
        assert!(again.contains("side was 24, not 16"), "{again}");
    }
    assert_eq!(
        names(&workspace.path("shards")),
        ["latents_rank00_shard000.safetensors", "latents_stats.pt", "notes.txt"]
    );
    let error = workspace.refused(&format!("{sample} --seed 4"));
    assert!(error.contains("seed was 0, not 4") && error.contains("--force"), "{error}");
    workspace.succeeds(&format!("{sample} --seed 4 --force"));
    // Changed images are another source, though their names and sizes stay.
    let image = workspace.path("images/ash/00.png");
    let file = std::fs::File::options().write(true).open(&image).expect("an image");
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.set_modified(then).expect("a time");
    let error = workspace.refused("prepare images --out store --size 16");
    assert!(error.contains("source was "), "{error}");
}

#[test]
fn nobody_waits_for_a_dead_process() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &runs::hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 1");
    let output = workspace
        .command("sample --model run --steps 2 --count 6 --device cpu --out samples")
        .envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("TINTYPE_PATIENCE_S", "1")])
        .output()
        .expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("from rank 1; missing: sample 3, sample 4, sample 5"), "{errors}");
}
