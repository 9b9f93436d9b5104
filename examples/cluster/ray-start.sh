#!/usr/bin/env bash
# A Ray cluster of machines that you reach by ssh, without a scheduler.
#
# What it does   starts Ray here and on every machine named, runs the sweep, and ends Ray on them again.
# What it needs  sweeper in the same virtual environment at the same path on all machines, ssh without a password, and a
#                directory that all of them mount (for the study, the model and the data).
# What to change VENV, PORT, and the sweep file's `dir`.
# Usage          ./ray-start.sh SWEEP.yaml HOST... [-- KEY=VALUE...]
set -euo pipefail
VENV=${VENV:-$(dirname "$(dirname "$(command -v sweeper)")")}
PORT=${PORT:-6379}

sweep=${1:?Usage: ray-start.sh SWEEP.yaml HOST... [-- KEY=VALUE...]}
shift
hosts=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  hosts+=("$1")
  shift
done
[ $# -eq 0 ] || shift

head_ip=$(hostname -I | awk '{print $1}')
address=$head_ip:$PORT

end() {
  for host in ${hosts[@]+"${hosts[@]}"}; do
    ssh "$host" "$VENV/bin/ray" stop || echo "Ray on $host could not be ended; it may still hold its GPUs." >&2
  done
  "$VENV/bin/ray" stop
}
trap end EXIT

# Ray's own token keeps the other users of the machines out; it goes to them by ssh, not as an argument.
export RAY_AUTH_MODE=token
token=$(umask 077 && "$VENV/bin/ray" get-auth-token --generate)
[ ! -e ~/.ray/auth_token ] || chmod 600 ~/.ray/auth_token # one from before was made as the umask said

"$VENV/bin/ray" start --head --node-ip-address="$head_ip" --port="$PORT"
for host in ${hosts[@]+"${hosts[@]}"}; do
  # shellcheck disable=SC2029 # the paths here are meant: they are the same on all machines
  ssh "$host" "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=\$(cat) $VENV/bin/ray start --address=$address" <<< "$token"
done

# Names the node on which something is missing. Nodes that join later are used too.
"$VENV/bin/sweeper" doctor "$sweep" "$@" --address "$address"
"$VENV/bin/sweeper" launch "$sweep" "$@" --address "$address"
