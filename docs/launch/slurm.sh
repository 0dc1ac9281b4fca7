#!/usr/bin/env bash
# Trains on 2 machines with 8 GPUs each, one process a GPU (docs/machines.md):
#
#     CONFIG=run.toml OUT=/shared/runs/first sbatch docs/launch/slurm.sh
#
# Arguments go to `tintype train`; options of sbatch stand before the script: `sbatch --nodes=4 docs/launch/slurm.sh`.
# On CPUs, by MPI: `DEVICE=cpu SLURM_MPI_TYPE=pmix sbatch --gpus-per-node=0 docs/launch/slurm.sh`.
#SBATCH --job-name=tintype
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

CONFIG="${CONFIG:-trainer/configs/lightningdit-xl-1-64ep.toml}"
OUT="${OUT:-runs/$(basename "$CONFIG" .toml)}" # on a disk that all machines share
DEVICE="${DEVICE:-cuda}"
TINTYPE="${TINTYPE:-tintype}"

# srun does not take this from the job by itself (since Slurm 22.05).
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi

# Ten minutes before the time limit Slurm signals this shell: every rank gets SIGTERM, they stop with a checkpoint, and
# the job is queued again.
stopped=""
trap 'stopped=1; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1

srun --kill-on-bad-exit=1 "$TINTYPE" train "$CONFIG" --out "$OUT" --device "$DEVICE" "$@" &
step=$!
status=0
wait "$step" || status=$?
if [ -n "$stopped" ]; then
  # The signal ended the wait, not the step.
  status=0
  wait "$step" || status=$?
  [ "$status" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
