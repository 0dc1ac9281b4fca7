//! How many ranks a run has.

use crate::common::{Workspace, names};
use crate::compare::log;
use crate::mpirun::Mpirun;
use crate::runs::{assert_close, hdit};

#[test]
fn a_run_goes_on_with_fewer_and_with_more_ranks() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet");
    let line =
        |steps: u64| format!("train run.toml --out run --device cpu --quiet --steps {steps}");
    let checkpoints = || names(&workspace.path("run/checkpoints"));
    mpirun.succeeds(&workspace, 2, &line(2));
    assert_eq!(checkpoints(), ["00000002"]);
    workspace.succeeds(&line(4));
    assert_eq!(checkpoints(), ["00000002", "00000004"]);
    mpirun.succeeds(&workspace, 4, &line(6));
    assert_eq!(checkpoints(), ["00000004", "00000006"]);
    // The same samples and the same sums in another order.
    assert_close(&workspace, "whole", "run", 1e-4);
    let steps: Vec<f64> = log(&workspace, "run").iter().map(|step| step["step"]).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_batch_that_does_not_divide_into_ranks_is_refused() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    let ended = mpirun.run(&workspace, 3, "train run.toml --out run --device cpu --quiet");
    assert_ne!(ended.code, Some(0), "{}", ended.said);
    let is_reason = |line: &str| line.contains("error: run.batch = 8") && line.contains(" 3 ");
    assert!(ended.said.lines().any(is_reason), "{}", ended.said);
    assert!(!workspace.path("run/checkpoints").exists(), "nothing was trained");
}
