"""The preflight in a process of its own, so that the driver never loads torch."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, Problem, SweeperError
from sweeper.preflight.data import check_trial
from sweeper.preflight.data_report import DataReport

_TAIL_LINES = 15


@contextlib.contextmanager
def checking_in_child(
    config: SweepConfig, *, directory: Path | None = None, trains_on_gpu: bool = False
) -> Iterator[Callable[[], DataReport]]:
    """Check model, data and function in a child process while the block runs.

    Args:
        config: The sweep.
        directory: Where the module of `trial.function` may lie, beside the working directory.
        trains_on_gpu: Whether trials are to train on GPUs of this machine.

    Yields:
        What waits for the check and returns what was found. It raises ConfigError with every problem, and SweeperError
        with the end of what the child wrote, if that crashed.
    """
    question = {
        "config": config.model_dump(mode="json"),
        "directory": None if directory is None else str(directory),
        "trains_on_gpu": trains_on_gpu,
    }

    def report() -> DataReport:
        found = answer()
        if found["problems"]:
            raise ConfigError([Problem(**problem) for problem in found["problems"]])
        return DataReport.from_json(found["report"])

    with _asking("sweeper.preflight.child", json.dumps(question), what="check of model and data") as answer:
        yield report


def ask_child(module: str, question: str, *, what: str) -> dict[str, Any]:
    """Run a module in a process of its own, with a question on stdin; return its JSON answer.

    Raises:
        SweeperError: If it crashed, with the end of what it wrote.
    """
    with _asking(module, question, what=what) as answer:
        return answer()


@contextlib.contextmanager
def _asking(module: str, question: str, *, what: str) -> Iterator[Callable[[], dict[str, Any]]]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": _python_path()},
    )
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(child.communicate, question)  # in a thread: a full pipe would hold the child

        def answer() -> dict[str, Any]:
            out, err = said.result()
            if child.returncode != 0:
                tail = "\n".join(err.splitlines()[-_TAIL_LINES:])
                raise SweeperError(
                    f"The {what} crashed with exit code {child.returncode}. Its last lines were:\n{tail}"
                )
            return dict(json.loads(out))

        try:
            yield answer
        finally:
            if not said.done():
                child.kill()


def _python_path() -> str:
    """Let the child find this package.

    Not the working directory, whose `random.py` would be taken for the standard library's: `load_function` looks there,
    where the sweep names a function.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))


def main() -> int:
    """Answer one question on stdin with one line of JSON on stdout; libraries' chatter goes to stderr."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    config = SweepConfig.model_validate_json(json.dumps(question["config"]))
    directory = question["directory"]
    answer: dict[str, Any] = {"problems": [], "report": None}
    try:
        place = None if directory is None else Path(directory)
        report = check_trial(config, directory=place, trains_on_gpu=question["trains_on_gpu"])
        answer["report"] = dataclasses.asdict(report)
    except ConfigError as error:
        answer["problems"] = [dataclasses.asdict(problem) for problem in error.problems]
    except Exception:  # noqa: BLE001 - whatever it is, the driver shows where it came from
        traceback.print_exc()
        return 1
    with answer_to:
        json.dump(answer, answer_to)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
