//! Runs that trouble does not end, and that their readers do not disturb.

use std::process::{Child, Stdio};

use tintype::weights::{TensorView, open, write_safetensors};
use tintype_test_hub::wait_until;

use crate::common::{Workspace, names};
use crate::runs::{hdit, vae};

/// The step of a run's latest checkpoint; 0 before there is one.
pub fn latest_step(workspace: &Workspace, run: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(workspace.path(run).join("checkpoints")) else { return 0 };
    let step = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse::<u64>().ok()
    };
    entries.filter_map(step).max().unwrap_or(0)
}

/// A run that takes a checkpoint after every step, for as long as it lives.
struct Live(Child);

impl Live {
    fn start(workspace: &Workspace) -> Self {
        let every =
            hdit("", "keep_last = 1").replace("checkpoint_every = 2", "checkpoint_every = 1");
        workspace.write("live.toml", &every);
        let mut command =
            workspace.command("train live.toml --out live --device cpu --quiet --steps 1000000");
        let live = Self(command.stderr(Stdio::null()).spawn().expect("it starts"));
        wait_until("a first checkpoint", || latest_step(workspace, "live") > 0);
        live
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_in_training_is_read_while_it_deletes_checkpoints() {
    let workspace = Workspace::prepared();
    let mut live = Live::start(&workspace);
    let from = hdit("", "") + "[init]\nfrom = \"live\"\n";
    workspace.write("tuned.toml", &from);
    let refused = workspace.refused("train live.toml --out live --device cpu --quiet");
    assert!(refused.ends_with("live is being trained by another process"), "{refused}");
    let before = latest_step(&workspace, "live");
    for round in 0..4 {
        workspace.succeeds("info live");
        workspace.succeeds(&format!(
            "sample --model live --count 3 --steps 2 --device cpu --out samples{round}"
        ));
        let tuned = format!("train tuned.toml --out tuned{round} --device cpu --quiet --steps 1");
        workspace.succeeds(&tuned);
    }
    wait_until("a later checkpoint", || latest_step(&workspace, "live") > before);
    assert!(live.0.try_wait().expect("it can be asked").is_none(), "nobody ended it");
}

#[test]
fn only_the_owner_of_a_run_tidies_it() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    workspace.write("tuned.toml", &(hdit("", "") + "[init]\nfrom = \"run\"\n"));
    // Another process writes the next checkpoint.
    let next = workspace.path("run/checkpoints/00000004.1.tmp");
    std::fs::create_dir(&next).expect("a folder");
    std::fs::write(next.join("model.safetensors"), "half").expect("it is written");
    workspace.succeeds("info run");
    workspace.succeeds("sample --model run --count 3 --steps 2 --device cpu --out samples");
    workspace.succeeds("train tuned.toml --out tuned --device cpu --quiet --steps 1");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000002", "00000004.1.tmp"]);
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 3");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000002", "00000003"]);
}

#[test]
fn a_preview_that_cannot_be_written_is_a_warning() {
    let workspace = Workspace::prepared();
    let config = hdit("", "") + "[preview]\nevery = 1\ncount = 1\nsteps = 2\n";
    workspace.write("run.toml", &config);
    std::fs::create_dir(workspace.path("run")).expect("a folder");
    workspace.write("run/previews", "a file where the folder should be");
    let said = workspace.succeeds("train run.toml --out run --device cpu");
    assert_eq!(said.matches("warning: ").count(), 1, "{said}");
    assert!(said.contains("the training goes on"), "{said}");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000004", "00000006"]);
    // Nobody looks at a terminal, so progress comes in lines.
    assert!(said.contains("step 1/6: loss "), "{said}");
}

/// A process may not write files larger than this many bytes from now on; `None` for any size.
#[cfg(target_os = "linux")]
fn limit_files(process: &Child, bytes: Option<libc::rlim_t>) -> bool {
    let limit = libc::rlimit {
        rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit outlives the call, and the old one is not asked for.
    let failed = unsafe {
        let process = process.id() as libc::pid_t;
        libc::prlimit(process, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut())
    };
    failed == 0
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_for_a_while_costs_only_checkpoints() {
    let workspace = Workspace::prepared();
    let every = hdit("", "").replace("checkpoint_every = 2", "checkpoint_every = 1");
    workspace.write("run.toml", &every);
    let line = "train run.toml --out run --device cpu --quiet --steps 1000000";
    let script = format!("trap '' XFSZ; exec {} {line}", crate::common::TINTYPE);
    let mut child = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(workspace.path(""))
        .stderr(std::fs::File::create(workspace.path("errors")).expect("a file"))
        .spawn()
        .expect("sh starts");
    let said = || std::fs::read_to_string(workspace.path("errors")).expect("it is there");
    wait_until("a first checkpoint", || latest_step(&workspace, "run") > 0);
    if !limit_files(&child, Some(1024)) {
        println!("skipped: the limit of another process cannot be set here");
        let _ = child.kill();
        let _ = child.wait();
        return;
    }
    wait_until("a warning", || said().contains("earlier ones are whole"));
    wait_until("another one", || said().contains("log.jsonl cannot be written"));
    let before = latest_step(&workspace, "run");
    assert!(before > 0, "the last checkpoint stays");
    assert!(child.try_wait().expect("it can be asked").is_none(), "it goes on");
    assert!(limit_files(&child, None));
    wait_until("a checkpoint afterwards", || latest_step(&workspace, "run") > before);
    let stopped = std::process::Command::new("kill").arg(child.id().to_string()).status();
    assert!(stopped.expect("kill runs").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let said = said();
    assert_eq!(said.matches("earlier ones are whole").count(), 1, "{said}");
    assert_eq!(said.matches("log.jsonl cannot be written").count(), 1, "{said}");
    let log = std::fs::read_to_string(workspace.path("run/log.jsonl")).expect("a log");
    let whole = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(log.lines().all(whole), "no line is cut");
}

#[test]
fn a_run_that_only_skips_ends_with_its_losses() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", "").replace("sigma_data = 0.5", "sigma_data = 1e-300"));
    let refused = workspace.refused("train run.toml --out run --device cpu --quiet --steps 300");
    assert!(refused.contains("100 steps in a row, up to step 100"), "{refused}");
    assert!(refused.contains("(loss ") && refused.contains("grad_norm "), "{refused}");
    assert!(!workspace.path("run/checkpoints").exists(), "none of them changed anything");
}

/// Losses are finite here, and so large that the gradients' norms are not.
#[test]
fn gradients_of_the_autoencoder_are_checked() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 24");
    workspace.write(
        "vae.toml",
        &vae(
            "disc_weight = 0.0
logvar = -69.0",
            "steps = 2",
        ),
    );
    let refused = workspace.refused("train vae.toml --out vae --device cpu --quiet");
    assert!(refused.contains("in all 2 steps"), "{refused}");
    let log = std::fs::read_to_string(workspace.path("vae/log.jsonl")).expect("a log");
    let last: serde_json::Value =
        serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["skipped"].as_f64(), Some(2.0), "{last}");
    let optimizer = workspace.path("vae/checkpoints/00000002/optimizer.safetensors");
    assert!(open(&optimizer).expect("it opens").tensors.is_empty(), "no step was made");
}

#[test]
fn a_run_that_has_a_checkpoint_does_not_look_for_its_beginning() {
    let workspace = Workspace::prepared();
    workspace.write("base.toml", &hdit("", ""));
    workspace.succeeds("train base.toml --out base --device cpu --quiet --steps 2");
    workspace.write("tuned.toml", &(hdit("", "") + "[init]\nfrom = \"base\"\n"));
    workspace.succeeds("train tuned.toml --out tuned --device cpu,cpu --quiet --steps 2");
    std::fs::remove_dir_all(workspace.path("base")).expect("it is deleted");
    workspace.succeeds("train tuned.toml --out tuned --device cpu --quiet --steps 3");
    let error = workspace.refused("train tuned.toml --out other --device cpu --quiet");
    assert!(error.contains("base"), "{error}");
}

#[test]
fn moments_and_averages_that_are_not_finite_are_refused_by_name() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    workspace.write("tuned.toml", &(hdit("", "") + "[init]\nfrom = \"run\"\n"));
    for file in ["ema.safetensors", "optimizer.safetensors"] {
        let path = workspace.path("run/checkpoints/00000002").join(file);
        let whole = std::fs::read(&path).expect("it is read");
        let weights = open(&path).expect("it opens");
        let float = |name: &&String| weights.tensors[*name].dtype == tintype::weights::Dtype::F32;
        let name = weights.tensors.keys().find(float).expect("a tensor").clone();
        let view = &weights.tensors[&name];
        let bad = TensorView::from_f32(view.shape.clone(), &vec![f32::NAN; view.len()]);
        let mut tensors: std::collections::BTreeMap<_, _> = weights
            .tensors
            .iter()
            .map(|(name, view)| {
                let bytes = view.to_bytes();
                let copy = TensorView::from_bytes(view.dtype, view.shape.clone(), bytes);
                (name.clone(), copy.expect("the same bytes"))
            })
            .collect();
        tensors.insert(name.clone(), bad.expect("they fit"));
        let metadata = weights.metadata.clone();
        drop(weights);
        let damaged = write_safetensors(&tensors, &metadata).expect("they are written");
        std::fs::write(&path, damaged).expect("it is written");
        for line in ["train run.toml --out run", "train tuned.toml --out tuned"] {
            let error = workspace.refused(&format!("{line} --device cpu --quiet"));
            assert!(error.contains(&name) && error.contains("is not finite"), "{error}");
        }
        std::fs::write(&path, whole).expect("it is written");
    }
}

#[test]
fn a_run_that_has_more_steps_says_so() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    let output = workspace.run("train run.toml --out run --device cpu --quiet --steps 3");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("the run already has 6 steps"), "{said}");
}
