#!/usr/bin/env bash
# One machine with 8 GPUs: no cluster to set up, Ray is started by the sweep and ended with it.
#
# What it does   four trials at a time on two GPUs each, the model shared out over the two (FSDP2).
# What to change the sweep file, and how GPUs are split: 8 trials on one GPU each (gpus_per_trial=1), one trial on all
#                (gpus_per_trial=8), or, for models that leave room, two on each GPU (gpus_per_trial=0.5, no sharding).
# Usage          ./one-machine.sh [SWEEP.yaml] [KEY=VALUE]...
set -euo pipefail
sweep=${1:-$(dirname "$0")/../llama-3.2-3b.yaml}
shift || true

# Says what is wrong before anything is loaded: GPUs that torch cannot use, a full disk, missing files.
sweeper doctor "$sweep" "resources={gpus_per_trial: 2, sharding: fsdp2}" "$@"

# Ctrl-C saves a checkpoint of every running trial; the same command goes on where it stopped.
sweeper launch "$sweep" "resources={gpus_per_trial: 2, sharding: fsdp2}" "$@"
