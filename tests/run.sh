#!/usr/bin/env bash
# Sets itself up, then runs lint, types and tests. Without arguments: the core tiers. --all: every tier.
# Usage: tests/run.sh [--all] [PYTEST ARGUMENT]...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"
extras=dev,postgresql,dashboard,s3,judge
core="not slow and not browser and not database and not gpu"
if [ "${1:-}" = "--all" ]; then
  shift
  core=""
  extras=$extras,png,tensorboard,mlflow,wandb,notebook,lm-eval,qlora,jobs
fi
sweeper_setup "$root" "$extras"
cd "$root"
bin="$root/.venv/bin"
if [ -z "$core" ] && [ ! -d .venv/export-tools ]; then
  rm -rf .venv/export-tools-new
  # The trainers that exports are for, as far as their parsers need: with their dependencies they would bring
  # other versions of torch and transformers.
  "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/export-tools-new \
    -r tests/export-tools.txt
  mv .venv/export-tools-new .venv/export-tools
fi
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# Fast tier first: a broken rule is known soon. Two files at a time; the tests of one file stay together.
rest="not slow and not browser and not database and not gpu"
"$bin/python" -m pytest -q -n 2 --dist loadfile -m "not ray and not train and not chaos and not simulation and $rest" "$@"
"$bin/python" -m pytest -q -n 2 --dist loadfile -m "(train or simulation or chaos) and not ray and $rest" "$@"
# Those that start Ray, one after another: two Rays on one machine get in each other's way.
"$bin/python" -m pytest -q -m "(ray or slow or browser or database) and not gpu${core:+ and $core}" "$@"
if [ -z "$core" ]; then
  "$bin/python" -m pytest -q -m gpu "$@" # alone they see the GPUs
fi
