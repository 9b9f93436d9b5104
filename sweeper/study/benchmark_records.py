"""What benchmarks gave: frozen data that the study keeps."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.config.benchmark_models import BENCH, SCORE
from sweeper.encoding import decode_number, encode
from sweeper.errors import SweeperError
from sweeper.files import write_text
from sweeper.looking import is_there
from sweeper.records import TrialRecord

STDERR = "stderr"
_FILE = "benchmarks.json"  # in the trial's directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One benchmark's number for one model."""

    value: float
    stderr: float  # NaN where it is not known
    higher_is_better: bool = True
    scale: float = 1.0  # what the value is divided by in a mean of several: 10 for ratings up to 10
    facts: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  # versions, metric, rows, judge, prompt ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """One benchmark, measured on one trial's model after its end. The study keeps it: its trial cannot change."""

    trial: int
    benchmark: str
    step: int | None  # of the checkpoint that was measured; None: the final model
    score: Score
    identity: str  # hash of what was asked; equal for an equal measurement
    at: str  # ISO 8601, UTC

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data, from which `run_from` makes it again."""
        encoded: dict[str, Any] = encode(dataclasses.asdict(self))
        return encoded


def run_from(facts: Mapping[str, Any]) -> BenchmarkRun:
    """Read one run of the storage.

    Raises:
        KeyError, TypeError, ValueError: If it is none.
    """
    return BenchmarkRun(**{**facts, "score": score_from(facts["score"])})


def score_from(facts: Mapping[str, Any]) -> Score:
    """Read a score that `encode` has written. Raises as `run_from`."""
    return Score(
        value=decode_number(facts["value"]), stderr=decode_number(facts["stderr"]),
        higher_is_better=bool(facts["higher_is_better"]), scale=float(facts["scale"]), facts=facts["facts"],
    )  # fmt: skip


def as_metrics(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return scores as metrics of a trial: `bench/<name>`, and `bench/<name>/stderr` where it is known."""
    metrics = {}
    for name, score in scores.items():
        metrics[f"{BENCH}/{name}"] = score.value
        if math.isfinite(score.stderr):
            metrics[f"{BENCH}/{name}/{STDERR}"] = score.stderr
    return metrics


def write_scores(trial_dir: Path, scores: Mapping[str, Score]) -> None:
    """Keep what a trial measured itself, with what its metrics cannot say."""
    encoded = encode({name: dataclasses.asdict(score) for name, score in scores.items()})
    write_text(trial_dir / _FILE, json.dumps(encoded, indent=1, allow_nan=False))


def scores_of_trial(record: TrialRecord, trial_dir: Path) -> dict[str, Score]:
    """Return the scores that a trial measured itself before its end; its metrics have them, the file says more.

    Raises:
        SweeperError: If the file cannot be read.
    """
    measured = {
        key.removeprefix(f"{BENCH}/"): value
        for key, value in record.metrics.items()
        if key.startswith(f"{BENCH}/") and not key.endswith(f"/{STDERR}")
    }
    measured.pop(SCORE, None)
    path = trial_dir / _FILE
    if not measured or not is_there(path):
        return {name: Score(value=value, stderr=math.nan) for name, value in measured.items()}
    try:
        told = {
            name: score_from(facts) for name, facts in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweeperError(f"{path} cannot be read ({type(error).__name__}: {error}). Remove it.") from error
    return {name: told.get(name, Score(value=value, stderr=math.nan)) for name, value in measured.items()}
