#!/usr/bin/env bash
# Sets itself up, then runs lint, types and tests. Without arguments: the core tiers. --all: every tier.
# Usage: tests/run.sh [--all] [PYTEST ARGUMENT]...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"
sweeper_setup "$root" dev,postgresql,dashboard,s3
cd "$root"
bin="$root/.venv/bin"
core="not slow and not browser and not database and not gpu"
if [ "${1:-}" = "--all" ]; then
  shift
  core=""
fi
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# Fast tier first: a broken rule is known in seconds.
"$bin/python" -m pytest -q -m "not ray and not train and not chaos and not slow and not browser and not database and not gpu" "$@"
"$bin/python" -m pytest -q -m "(ray or train or chaos or slow or browser or database or gpu)${core:+ and $core}" "$@"
