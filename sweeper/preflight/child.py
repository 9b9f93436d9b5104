"""The preflight in a process of its own, so that the driver never loads torch."""

import dataclasses
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, Problem, SweeperError
from sweeper.preflight.data import DataReport, SetReport, check_trial
from sweeper.preflight.model import ModelFacts

_TAIL_LINES = 15


def run_in_child(config: SweepConfig, *, directory: Path | None = None) -> DataReport:
    """Check model, data and function in a child process and return what it found.

    Args:
        config: The sweep.
        directory: Where the module of `trial.function` may lie, beside the working directory.

    Raises:
        ConfigError: With every problem that was found.
        SweeperError: If the child crashed, with the end of what it wrote.
    """
    question = {
        "config": config.model_dump(mode="json"),
        "directory": None if directory is None else str(directory),
    }
    answer = ask_child("sweeper.preflight.child", json.dumps(question), what="check of model and data")
    if answer["problems"]:
        raise ConfigError([Problem(**problem) for problem in answer["problems"]])
    return _report(answer["report"])


def ask_child(module: str, question: str, *, what: str) -> dict[str, Any]:
    """Run a module in a process of its own, with a question on stdin; return its JSON answer.

    Raises:
        SweeperError: If it crashed, with the end of what it wrote.
    """
    child = subprocess.run(
        [sys.executable, "-m", module],
        input=question,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": _python_path()},
    )
    if child.returncode != 0:
        tail = "\n".join(child.stderr.splitlines()[-_TAIL_LINES:])
        raise SweeperError(
            f"The {what} crashed with exit code {child.returncode}. Its last lines were:\n{tail}"
        )
    return dict(json.loads(child.stdout))


def _python_path() -> str:
    """Let the child find this package and the working directory's modules."""
    package_root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [package_root, os.getcwd(), os.environ.get("PYTHONPATH")]))


def _report(answer: dict[str, Any]) -> DataReport:
    return DataReport(
        **answer
        | {
            "train": SetReport(**answer["train"]) if answer["train"] else None,
            "evaluation": {name: SetReport(**one) for name, one in answer["evaluation"].items()},
            "model": ModelFacts(**answer["model"]) if answer["model"] else None,
            "warnings": tuple(answer["warnings"]),
        }
    )


def main() -> int:
    """Answer one question on stdin with one line of JSON on stdout; libraries' chatter goes to stderr."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    config = SweepConfig.model_validate_json(json.dumps(question["config"]))
    directory = question["directory"]
    answer: dict[str, Any] = {"problems": [], "report": None}
    try:
        report = check_trial(config, directory=None if directory is None else Path(directory))
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
