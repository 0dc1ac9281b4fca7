#!/usr/bin/env bash
# Trains on 2 machines with 8 GPUs each, one process a GPU (docs/machines.md). On every machine:
#
#     HEAD=node-a CONFIG=run.toml OUT=/shared/runs/first docs/launch/torchrun.sh
#
# Arguments go to `tintype train`. One machine alone: NODES=1.
set -euo pipefail

CONFIG="${CONFIG:-trainer/configs/lightningdit-xl-1-64ep.toml}"
OUT="${OUT:-runs/$(basename "$CONFIG" .toml)}" # on a disk that all machines share
DEVICE="${DEVICE:-cuda}"
TINTYPE="${TINTYPE:-tintype}"
NODES="${NODES:-2}"       # machines
GPUS="${GPUS:-8}"         # processes a machine
HEAD="${HEAD:-localhost}" # one of the machines, by a name that all of them know
PORT="${PORT:-29400}"     # a free one there
RUN_ID="${RUN_ID:-tintype}"
RESTARTS="${RESTARTS:-3}" # how often all ranks start again after a failure

exec torchrun --nnodes "$NODES" --nproc-per-node "$GPUS" --max-restarts "$RESTARTS" --no-python \
  --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$RUN_ID" \
  "$TINTYPE" train "$CONFIG" --out "$OUT" --device "$DEVICE" "$@"
