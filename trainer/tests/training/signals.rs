//! Signals that end a run, or do not.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use tintype::weights::open;
use tintype_test_hub::wait_until;

use crate::common::{TINTYPE, Workspace, names};
use crate::runs::{FILES, hdit};
use crate::survival::latest_step;

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// A run that takes a checkpoint every so many steps, started by a shell after `before`.
fn start(workspace: &Workspace, before: &str, every: u32) -> Child {
    let wanted = format!("checkpoint_every = {every}");
    workspace.write("run.toml", &hdit("", "").replace("checkpoint_every = 2", &wanted));
    let line = "train run.toml --out run --device cpu --quiet --steps 1000000";
    let script = format!("{before} exec {TINTYPE} {line}");
    let child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(workspace.path(""))
        .spawn()
        .expect("sh starts");
    let log = workspace.path("run/log.jsonl");
    wait_until("a first step", || std::fs::read(&log).is_ok_and(|log| !log.is_empty()));
    child
}

#[test]
fn two_sigterms_at_once_leave_a_whole_checkpoint() {
    let workspace = Workspace::prepared();
    let mut child = start(&workspace, "", 1_000_000);
    let id = child.id();
    let twice = format!("kill {id}; kill {id}; true");
    assert!(Command::new("sh").args(["-c", &twice]).status().expect("sh runs").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let steps = names(&workspace.path("run/checkpoints"));
    assert_eq!(steps.len(), 1, "{steps:?}");
    for file in FILES {
        open(&workspace.path("run/checkpoints").join(&steps[0]).join(file)).expect("it is whole");
    }
}

#[test]
fn a_run_under_nohup_outlives_the_terminal() {
    let workspace = Workspace::prepared();
    let mut child = start(&workspace, "trap '' HUP;", 1);
    send(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(300));
    let then = latest_step(&workspace, "run");
    wait_until("later checkpoints", || latest_step(&workspace, "run") > then + 2);
    assert!(child.try_wait().expect("it can be asked").is_none(), "it goes on");
    send(&child, "-TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn a_run_stops_with_its_terminal() {
    let workspace = Workspace::prepared();
    workspace
        .write("run.toml", &hdit("", "").replace("checkpoint_every = 2", "checkpoint_every = 1"));
    let mut command =
        workspace.command("train run.toml --out run --device cpu --quiet --steps 1000000");
    // SAFETY: `signal` may be called between fork and exec. These tests may run under `nohup` themselves.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child = command.spawn().expect("it starts");
    wait_until("a first checkpoint", || latest_step(&workspace, "run") > 0);
    send(&child, "-HUP");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}
