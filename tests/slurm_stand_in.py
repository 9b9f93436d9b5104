"""A stand-in for Slurm on one machine: enough of `sbatch`, `srun` and `scontrol` to run a batch script twice.

The one node of the job is this machine. Run as `python slurm_stand_in.py FOLDER SCRIPT ARGUMENT...`: puts the commands
into FOLDER, runs the script, again for as long as it asks to be requeued, and ends with its exit code. A SIGUSR1
is handed to the script, as Slurm does ahead of a time limit.
"""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

NODES = ("node-0",)
SRUN = """#!/usr/bin/env bash
while [[ ${1:-} == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
  show) printf '%s\\n' {nodes} ;;
  requeue) touch "{folder}/requeued-$2" ;;
  *) exit 1 ;;
esac
"""


def install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {"srun": SRUN, "scontrol": SCONTROL.format(nodes=" ".join(NODES), folder=folder)}
    for name, text in scripts.items():
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def main() -> int:
    folder, *command = Path(sys.argv[1]), *sys.argv[2:]
    install(folder)
    env = {
        **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node-0", "SLURM_CPUS_PER_TASK": "1", "SLURM_GPUS_ON_NODE": "0",
    }  # fmt: skip
    asked = folder / "requeued-7"
    while True:
        job = subprocess.Popen(["bash", *command], env=env)
        signal.signal(signal.SIGUSR1, lambda *_, job=job: job.send_signal(signal.SIGUSR1))
        code = job.wait()
        if not asked.exists():
            return code
        asked.unlink()
        print("requeued", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
