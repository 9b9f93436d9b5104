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
# Installs what tests/NAME.txt lists into .venv/NAME, where some tests look for it: with their dependencies these
# packages would bring other versions of torch and transformers, or a build of torch for GPUs.
beside() {
  [ ! -d ".venv/$1" ] || return 0
  rm -rf ".venv/$1-new"
  "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target ".venv/$1-new" -r "tests/$1.txt"
  mv ".venv/$1-new" ".venv/$1"
}
if [ -z "$core" ]; then
  if ! command -v chromium chromium-browser google-chrome > /dev/null; then
    echo "error: --all opens reports in Chromium, which is not installed: apt-get install chromium" >&2
    exit 2
  fi
  beside export-tools
  beside liger
fi
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# No test runs a benchmark, so that what they use of the package is checked here.
MYPYPATH=tests:tests/chaos:tests/benchmarks "$bin/mypy" --explicit-package-bases tests/benchmarks
# Fast tier first: a broken rule is known soon. Two files at a time; the tests of one file stay together.
rest="not slow and not browser and not database and not gpu"
"$bin/python" -m pytest -q -n 2 --dist loadfile -m "not ray and not train and not chaos and not simulation and $rest" "$@"
"$bin/python" -m pytest -q -n 2 --dist loadfile -m "(train or simulation or chaos) and not ray and $rest" "$@"
# Those that start Ray, one after another: two Rays on one machine get in each other's way.
"$bin/python" -m pytest -q -m "(ray or slow or browser or database) and not gpu${core:+ and $core}" "$@"
if [ -z "$core" ]; then
  "$bin/python" -m pytest -q -m gpu "$@" # alone they see the GPUs
fi
