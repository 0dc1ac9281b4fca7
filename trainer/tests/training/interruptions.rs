//! Runs that end early, and go on.

#[cfg(unix)]
use std::process::{Command, Output};
use std::time::Duration;

use tintype::weights::open;

#[cfg(unix)]
use crate::common::TINTYPE;
use crate::common::{Workspace, names};
use crate::runs::{FILES, assert_same, hdit};

#[test]
fn an_interrupted_run_equals_an_uninterrupted_one() {
    let workspace = Workspace::prepared();
    // With everything that is random in it: order, noise, augmentation, dropped labels, dropout.
    workspace.write("run.toml", &hdit("dropout_rate = [0.0, 0.2]\nmapping_dropout_rate = 0.1", ""));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet --steps 3");
    assert_eq!(names(&workspace.path("parts/checkpoints")), ["00000002", "00000003"]);
    workspace.succeeds("train run.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "whole", "parts");
    let log = |run: &str| -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
        let line = |l: &str| -> serde_json::Value { serde_json::from_str(l).expect("JSON") };
        let pair = |l: serde_json::Value| {
            (l["step"].as_u64().expect("a step"), l["loss"].as_f64().expect("a loss"))
        };
        text.lines().map(line).map(pair).collect()
    };
    assert_eq!(log("whole"), log("parts"));
    assert_eq!(log("whole").len(), 6);
    // And the loss falls, given time.
    workspace.succeeds("train run.toml --out whole --device cpu --quiet --steps 60");
    let losses = log("whole");
    let mean = |part: &[(u64, f64)]| part.iter().map(|l| l.1).sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[40..]) < 0.8 * mean(&losses[..10]), "{losses:?}");
}

#[test]
fn a_run_killed_at_any_time_resumes_from_its_last_checkpoint() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", "keep_last = 1").replace("every = 2", "every = 1"));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet --steps 600");
    let (mut last, mut longer) = (0, 0);
    for kill in 0..20u64 {
        if kill > 0 && last == 0 {
            // This machine takes longer to come to a first checkpoint.
            longer += 100;
        }
        let mut child = workspace
            .command("train run.toml --out killed --device cpu --quiet --steps 600")
            .spawn()
            .expect("it starts");
        // A checkpoint is written after every step, so most moments are inside of one.
        std::thread::sleep(Duration::from_millis(60 + 37 * kill % 111 + longer));
        let _ = child.kill();
        let _ = child.wait();
        let Ok(entries) = std::fs::read_dir(workspace.path("killed/checkpoints")) else { continue };
        let steps: Vec<u64> = entries
            .filter_map(|e| e.expect("an entry").file_name().to_str()?.parse().ok())
            .collect();
        let newest = steps.iter().copied().max().unwrap_or(0);
        assert!(newest >= last, "step {newest} after {last}");
        last = newest;
        for step in steps {
            let folder = workspace.path(&format!("killed/checkpoints/{step:08}"));
            for file in FILES {
                open(&folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
    assert!((1..600).contains(&last), "killed while it ran, at step {last}");
    workspace.succeeds("train run.toml --out killed --device cpu --quiet --steps 600");
    assert_same(&workspace, "whole", "killed");
    assert!(names(&workspace.path("killed/checkpoints")).iter().all(|n| !n.contains("tmp")));
}

/// A run may not write files larger than this many kibibytes.
#[cfg(unix)]
fn with_small_files(workspace: &Workspace, line: &str, kibibytes: u32) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec {TINTYPE} {line}", kibibytes * 2);
    Command::new("sh")
        .args(["-c", &script])
        .current_dir(workspace.path(""))
        .output()
        .expect("sh starts")
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_last_checkpoint() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    let output = with_small_files(&workspace, "train run.toml --out run --device cpu --quiet", 16);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("cannot be written; earlier ones are whole"), "{errors}");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000002"]);
    // Only the checkpoint at the end was necessary; the training went on that far.
    let log = std::fs::read_to_string(workspace.path("run/log.jsonl")).expect("a log");
    assert_eq!(log.lines().count(), 6, "{log}");
    assert!(errors.contains("00000004 cannot be written"), "{errors}");
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000004", "00000006"]);
}

#[cfg(unix)]
#[test]
fn sigint_and_sigterm_write_a_checkpoint_and_the_run_resumes() {
    let workspace = Workspace::prepared();
    workspace.write(
        "run.toml",
        &hdit("", "").replace("checkpoint_every = 2", "checkpoint_every = 100000"),
    );
    for signal in ["-INT", "-TERM"] {
        let mut child = workspace
            .command("train run.toml --out run --device cpu --quiet --steps 100000")
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(700));
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
    }
    let steps: Vec<u64> = names(&workspace.path("run/checkpoints"))
        .iter()
        .map(|n| n.parse().expect("only whole checkpoints"))
        .collect();
    assert!(steps.len() == 2 && steps[0] > 0 && steps[1] > steps[0], "{steps:?}");
}
