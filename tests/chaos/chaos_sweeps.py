"""Sweeps as a user runs them, in processes of their own, that can be killed; and what they must have come to."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sweeper.config import config_from_dict, dump_config
from sweeper.records import StepRow, TrialRecord
from sweeper.study.study import Study

HERE = Path(__file__).parent
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]

MADE_UP: dict[str, Any] = {
    "study": "chaos",
    "metric": "score",
    "direction": "maximize",
    "trial": {
        "function": "chaos_functions:noisy",
        "budget": {"samples": 200},
        "settings": {"effective_batch_size": 10, "step_s": 0.05},
        "checkpoint": {"every_samples": 40},
    },
    "search_space": {"learning_rate": {"grid": RATES}},
    "rungs": {"samples": [50, 100]},
    "pruner": "nop",
    "resources": {"slots": 2},
}


def write_sweep(path: Path, config: dict[str, Any]) -> Path:
    """Write a sweep file; the trial function's module lies here."""
    config = {**config, "trial": {**config["trial"]}}
    if config["trial"].get("function"):
        config["trial"]["function_dir"] = str(HERE)
    path.write_text(dump_config(config_from_dict(config)))
    return path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sweeper.cli", *words]


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "PYTHONPATH": path,
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        **changes,
    }


def start(words: list[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
    """Start a driver in a process group of its own, with its output in a file."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            command(*words),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**env),
            start_new_session=True,
        )


def run(words: list[str], timeout_s: float = 240.0, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(**env),
        check=False,
    )


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Kill the driver alone, as the kernel or an operator would; what it started must see to itself."""
    process.send_signal(number)
    process.wait()


def outcome(directory: Path, url: str | None = None) -> dict[str, dict[str, Any]]:
    """Return what a study came to, by point: all that must not depend on what was killed."""
    study = Study.open(str(directory), url=url)
    records = study.records()
    found = {}
    for number, record in records.items():
        assert record.point_id not in found, f"point {record.point_id} is there twice"
        found[record.point_id] = {
            "params": record.params,
            "state": str(record.state),
            "value": record.value,
            "metrics": record.metrics,
            "rungs": {
                index: (rung.step, rung.samples, dict(rung.signals)) for index, rung in record.rungs.items()
            },
            "curve": study.curves.rows(number),
        }
    return found


def records_of(directory: Path, url: str | None = None) -> dict[int, TrialRecord]:
    return Study.open(str(directory), url=url).records()


def check_prefix(shorter: list[StepRow], longer: list[StepRow]) -> None:
    """A curve that ended earlier is, as far as it goes, the other one bit for bit."""
    assert shorter == longer[: len(shorter)]


def status(directory: Path) -> dict[str, Any]:
    done = run(["status", str(directory), "--json"])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
