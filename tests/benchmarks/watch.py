"""What `sweeper status --watch` costs the driver that it watches: the same sweep with and without it, in turn.

Forty trials of made-up reports, ten milliseconds apart; the watcher draws in a pseudo-terminal. Compared are the CPU
seconds of the driver's process and the wall time from its start to its end.

    python tests/benchmarks/watch.py [--repeats 3] [--json FILE]
"""

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

N_TRIALS, N_REPORTS, PAUSE_S = 40, 25, 0.01
BUDGET = 8 * N_REPORTS

SWEEP = f"""\
study: watched
metric: score
direction: maximize
trial:
  function: watch:train
  budget: {{samples: {BUDGET}}}
  settings: {{effective_batch_size: 8}}
search_space:
  learning_rate: {{grid: [{", ".join(f"{1e-6 * 1.2**index:.3e}" for index in range(N_TRIALS))}]}}
pruner: nop
"""


def train(context: Any) -> float:
    """Report made-up values at an even pace."""
    for step in range(1, N_REPORTS + 1):
        time.sleep(PAUSE_S)
        context.report(step=step, samples=8 * step, loss=3.0 / step, grad_norm=1.0, score=step / N_REPORTS)
    return 1.0


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the other end of the pseudo-terminal was closed
        return


def watcher(directory: Path) -> subprocess.Popen[bytes]:
    """Follow a study in a pseudo-terminal, from before it is there."""
    master, slave = pty.openpty()
    script = (
        "import sys, time, pathlib\n"
        f"while not pathlib.Path({str(directory / 'study.json')!r}).exists(): time.sleep(0.05)\n"
        f"sys.argv = ['sweeper', 'status', {str(directory)!r}, '--watch']\n"
        "from sweeper.cli import main\nmain()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    threading.Thread(target=_drain, args=(master,), daemon=True).start()
    return process


def run(*, watched: bool) -> dict[str, float]:
    """Run the sweep once; return the driver's CPU and wall seconds."""
    with tempfile.TemporaryDirectory(prefix="sweeper-watch-") as scratch:
        folder = Path(scratch)
        (folder / "sweep.yaml").write_text(SWEEP)
        words = [sys.executable, "-m", "sweeper.cli", "launch", str(folder / "sweep.yaml")]
        words += ["--dir", str(folder / "study"), "--executor", "in-process"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        }
        following = watcher(folder / "study") if watched else None
        since = time.perf_counter()
        driver = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(driver.pid, 0)
        wall = time.perf_counter() - since
        driver.returncode = os.waitstatus_to_exitcode(status)
        if following is not None and following.wait(timeout=60):
            raise SystemExit(f"the watcher ended with {following.returncode}")
        if driver.returncode:
            raise SystemExit(f"the driver ended with {driver.returncode}")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall}


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"alone": [], "watched": []}
    for index in range(args.repeats):
        for name in ("alone", "watched") if index % 2 == 0 else ("watched", "alone"):
            runs[name].append(run(watched=name == "watched"))
    found = {
        name: {key: statistics.median(one[key] for one in made) for key in ("cpu_s", "wall_s")}
        for name, made in runs.items()
    }
    print(f"{N_TRIALS} trials x {N_REPORTS} reports, medians of {args.repeats}")
    for key, words in (("cpu_s", "the driver's CPU seconds"), ("wall_s", "wall seconds")):
        alone, watched = found["alone"][key], found["watched"][key]
        spread = max(one[key] for one in runs["alone"]) - min(one[key] for one in runs["alone"])
        print(
            f"{words}: {alone:.2f} alone (spread {spread:.2f}), {watched:.2f} watched: {watched / alone:.2f} x"
        )
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
