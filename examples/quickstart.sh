#!/usr/bin/env bash
# Sets itself up, then runs the quickstart sweep and prints where its report is.
# Usage: examples/quickstart.sh [KEY=VALUE | OPTION]...   (passed to `sweeper launch`)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"
sweeper_setup "$root" dev,postgresql,dashboard,s3
cd "$root"
exec "$root/.venv/bin/sweeper" launch examples/quickstart.yaml "$@"
