//! Ranks that are killed, or asked to stop.

use crate::common::{Workspace, names};
use crate::compare::{assert_same_bits, assert_same_log, latest_step, lines, log};
use crate::mpirun::{Mpirun, send, until_gone};
use crate::runs::hdit;

#[test]
fn a_killed_rank_ends_all_and_the_run_resumes() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    let every = hdit("", "keep_last = 1").replace("checkpoint_every = 2", "checkpoint_every = 1");
    workspace.write("run.toml", &every);
    for rank in [1, 0] {
        let before = latest_step(&workspace, "killed");
        let line = "train run.toml --out killed --device cpu --quiet --steps 1000000";
        let mut run = mpirun.start(&workspace, 2, line);
        run.until("later checkpoints", || latest_step(&workspace, "killed") > before + 2);
        let processes = [run.process(0), run.process(1)];
        send("-KILL", processes[rank]);
        let ended = run.ends();
        assert_ne!(ended.code, Some(0), "{}", ended.said);
        assert!(ended.said.to_lowercase().contains(&format!("rank {rank}")), "{}", ended.said);
        processes.into_iter().for_each(until_gone);
    }
    let steps = latest_step(&workspace, "killed") + 3;
    for run in ["killed", "whole"] {
        let line = format!("train run.toml --out {run} --device cpu --quiet --steps {steps}");
        mpirun.succeeds(&workspace, 2, &line);
    }
    assert_same_bits(&workspace, "whole", "killed");
    assert_same_log(&workspace, "whole", "killed", 0.0);
    let left = names(&workspace.path("killed/checkpoints"));
    assert_eq!(left, [format!("{steps:08}")], "nothing half-written stays");
}

#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    let never = hdit("", "").replace("checkpoint_every = 2", "checkpoint_every = 1000000");
    workspace.write("run.toml", &never);
    let line = "train run.toml --out stopped --device cpu --quiet --steps 1000000";
    let mut run = mpirun.start(&workspace, 2, line);
    run.until("first steps", || lines(&workspace, "stopped") > 2);
    let processes = [run.process(0), run.process(1)];
    send("-TERM", processes[1]);
    let ended = run.ends();
    assert!(ended.said.contains("stopping after this step"), "{}", ended.said);
    assert_eq!(ended.code, mpirun.code_of(&workspace, 130), "{}", ended.said);
    processes.into_iter().for_each(until_gone);
    let step = latest_step(&workspace, "stopped");
    assert_eq!(names(&workspace.path("stopped/checkpoints")), [format!("{step:08}")]);
    assert_eq!(log(&workspace, "stopped").len() as u64, step, "no step came after");
    let steps = step + 3;
    for run in ["stopped", "whole"] {
        let line = format!("train run.toml --out {run} --device cpu --quiet --steps {steps}");
        mpirun.succeeds(&workspace, 2, &line);
    }
    assert_same_bits(&workspace, "whole", "stopped");
    assert_same_log(&workspace, "whole", "stopped", 0.0);
}
