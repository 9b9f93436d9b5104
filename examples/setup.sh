# Sourced by quickstart.sh and tests/run.sh: makes .venv and installs sweeper into it, once.
# Usage: sweeper_setup ROOT EXTRAS, e.g. `sweeper_setup "$PWD" dev,postgresql`.
# shellcheck shell=bash

sweeper_setup() {
  local root=$1 extras=$2 python=${PYTHON:-python3} stamp want
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "sweeper needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON to another one." >&2
    return 2
  }
  stamp="$root/.venv/.sweeper-$extras"
  want=$(cat "$root/pyproject.toml" "$root/tests/constraints.txt" | cksum)
  if [ -x "$root/.venv/bin/sweeper" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    return 0
  fi
  echo "Setting up $root/.venv (some minutes the first time) ..." >&2
  [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
  # torch first and pinned, so that nothing pulls in a newer one. On Linux PyPI has the CUDA build, some gigabytes; with
  # PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu set, pip takes the small CPU build.
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$root/tests/constraints.txt" "$(grep '^torch==' "$root/tests/constraints.txt")"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$root/tests/constraints.txt" -e "$root[$extras]"
  echo "$want" >"$stamp"
}
