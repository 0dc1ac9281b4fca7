//! The scripts of `docs/launch`, with launchers in place of Slurm's and PyTorch's that start the ranks by `mpirun`.
//!
//! They know the options that the real ones have, and refuse others as those do.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{TINTYPE, Workspace};
use crate::compare::{assert_same_bits, log};
use crate::mpirun::{ENVIRONMENT, Mpirun, Running};
use crate::runs::hdit;

/// Slurm's. MPIRUN stands for the launcher with its options.
const SRUN: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo srun >>launched
while [ $# -gt 0 ]; do
  case "$1" in
    -K | -K[01] | --kill-on-bad-exit | --kill-on-bad-exit=[01] | -l | --label | -u | --unbuffered | --exclusive | \
      --exact | --overlap | --resv-ports | -[nNcGtJoe][0-9]*) shift ;;
    --nodes=* | --ntasks=* | --ntasks-per-node=* | --cpus-per-task=* | --gpus=* | --gpus-per-node=* | \
      --gpus-per-task=* | --gres=* | --gpu-bind=* | --cpu-bind=* | --mem=* | --mpi=* | --export=* | --output=* | \
      --error=* | --input=* | --chdir=* | --time=* | --job-name=* | --partition=* | --distribution=* | --wait=* | \
      --resv-ports=* | --signal=* | --network=*) shift ;;
    -[nNcGtJoeDp] | --nodes | --ntasks | --ntasks-per-node | --cpus-per-task | --gpus | --gpus-per-node | \
      --gpus-per-task | --gres | --gpu-bind | --cpu-bind | --mem | --mpi | --export | --output | --error | --input | \
      --chdir | --time | --job-name | --partition | --distribution | --wait | --signal | --network) shift 2 ;;
    -*) echo "srun: unrecognized option '$1'" >&2; exit 1 ;;
    *) break ;;
  esac
done
# Open MPI would ask Slurm for machines.
unset "${!SLURM_@}"
exec MPIRUN -n 2 sh -c '
  export SLURM_PROCID="${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
  export SLURM_STEP_NUM_TASKS="${OMPI_COMM_WORLD_SIZE:-$PMI_SIZE}"
  export SLURM_LOCALID="${OMPI_COMM_WORLD_LOCAL_RANK:-$MPI_LOCALRANKID}"
  export SLURM_STEP_NODELIST=localhost SLURM_JOB_ID=4711 SLURM_STEP_ID=0
  exec "$@"' sh "$@"
"#;

/// PyTorch's. MPIRUN stands for the launcher with its options.
const TORCHRUN: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo torchrun >>launched
no_python=
while [ $# -gt 0 ]; do
  option="${1%%=*}"
  case "${option//_/-}" in
    --no-python) no_python=yes; shift ;;
    --standalone) shift ;;
    --nnodes | --nproc-per-node | --node-rank | --rdzv-backend | --rdzv-endpoint | --rdzv-id | --rdzv-conf | \
      --max-restarts | --monitor-interval | --master-addr | --master-port | --local-addr | --role | --log-dir | \
      --redirects | -r | --tee | -t | --start-method)
      case "$1" in *=*) shift ;; *) shift 2 ;; esac ;;
    -*) echo "torchrun: error: unrecognized arguments: $1" >&2; exit 2 ;;
    *) break ;;
  esac
done
[ -n "$no_python" ] || { echo "torchrun: $1 would be run by Python" >&2; exit 2; }
exec MPIRUN -n 2 sh -c '
  export RANK="${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
  export WORLD_SIZE="${OMPI_COMM_WORLD_SIZE:-$PMI_SIZE}"
  export LOCAL_RANK="${OMPI_COMM_WORLD_LOCAL_RANK:-$MPI_LOCALRANKID}"
  export MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 TORCHELASTIC_RUN_ID=4711 TORCHELASTIC_RESTART_COUNT=0
  exec "$@"' sh "$@"
"#;

/// A script of `docs/launch`.
fn script(name: &str) -> String {
    format!("{}/../docs/launch/{name}.sh", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_scripts_are_bash() {
    for name in ["slurm", "torchrun"] {
        let output = Command::new("bash").arg("-n").arg(script(name)).output().expect("bash runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
    }
}

#[test]
fn the_scripts_train_by_their_launchers() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out threads --device cpu,cpu --quiet --steps 2");
    std::fs::create_dir(workspace.path("bin")).expect("a folder");
    for (launcher, text) in [("srun", SRUN), ("torchrun", TORCHRUN)] {
        let file = workspace.path("bin").join(launcher);
        std::fs::write(&file, text.replace("MPIRUN", &mpirun.words().join(" "))).expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("it may run");
    }
    let before = std::env::var("PATH").expect("a path");
    let path = format!("{}:{before}", workspace.path("bin").display());
    for (name, launcher) in [("slurm", "srun"), ("torchrun", "torchrun")] {
        let mut command = Command::new("bash");
        command.arg(script(name)).args(["--quiet", "--steps", "2"]);
        command.current_dir(workspace.path("")).env("PATH", &path).envs(ENVIRONMENT);
        command.envs([("CONFIG", "run.toml"), ("OUT", name), ("DEVICE", "cpu")]);
        command.env("TINTYPE", TINTYPE);
        if launcher == "srun" {
            // What `sbatch` tells a script.
            let folder = workspace.path("").display().to_string();
            command.envs([
                ("SLURM_SUBMIT_DIR", folder.as_str()),
                ("SLURM_JOB_ID", "4711"),
                ("SLURM_JOB_NUM_NODES", "2"),
                ("SLURM_NNODES", "2"),
                ("SLURM_NTASKS", "2"),
                ("SLURM_JOB_NODELIST", "localhost"),
            ]);
        }
        let ended = Running::start(command, &workspace).ends();
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.said);
        assert!(ended.said.contains("2 steps done"), "{name}: {}", ended.said);
        let launched = std::fs::read_to_string(workspace.path("launched")).expect("it was called");
        assert_eq!(launched.lines().last(), Some(launcher), "{name}");
        assert_eq!(log(&workspace, name).len(), 2, "{name}");
        assert_same_bits(&workspace, name, "threads");
    }
}
