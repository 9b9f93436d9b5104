"""Trains a few steps of one trial and says what they took; the measuring itself, in a process of its own."""

import dataclasses
import json
import os
import statistics
import sys
import time
from typing import Any

from sweeper.channel import TrialStopped
from sweeper.executors.attempt import run_attempt
from sweeper.records import OutcomeKind, Report
from sweeper.training.memory import hide_gpus, peak_gb
from sweeper.trial_spec import TrialSpec

MAX_STEPS = 14
WARM_UP_STEPS = 2  # not timed, where there are others: they allocate and compile
LIMIT_S = 60.0  # of training; it ends after the step that exceeds it


class Stopwatch:
    """A channel that notes how long training had taken at every step, and ends the trial after a few."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []  # step, seconds of training so far
        self.evaluation_s = 0.0
        self._since: float | None = None

    def send(self, report: Report, *, wait: bool) -> None:
        self._since = self._since or time.monotonic()
        self.evaluation_s = max(self.evaluation_s, report.evaluation_s)
        if report.rows:
            self.marks.append((report.rows[-1].step, report.train_s))
        if len(self.marks) >= MAX_STEPS or (self.marks and time.monotonic() - self._since > LIMIT_S):
            raise TrialStopped

    def should_stop(self) -> bool:
        return False

    def should_pause(self) -> bool:
        return False


def measure(spec: TrialSpec) -> dict[str, Any]:
    """Return `Measured` but for its batch size, or an error."""
    assert spec.micro_batch_size is not None
    assert spec.gradient_accumulation_steps is not None
    batch = spec.micro_batch_size * spec.gradient_accumulation_steps
    steps = tuple(range(1, MAX_STEPS + 1))
    spec = dataclasses.replace(
        spec, marks=(), step_marks=steps, evaluation_marks=(batch,), checkpoint_marks=(), benchmarks=None
    )
    watch = Stopwatch()
    outcome = run_attempt(spec, watch)
    if outcome.kind is OutcomeKind.FAILED:
        return {"error": outcome.error, "measured": None}
    if not watch.marks:
        return {"error": "the trial reported no step", "measured": None}
    times = [
        (later - earlier) / (step - before)
        for (before, earlier), (step, later) in zip([(0, 0.0), *watch.marks], watch.marks, strict=False)
    ]
    timed = times[WARM_UP_STEPS:] or times[-1:]
    measured = {
        "steps": len(timed), "step_s": statistics.median(timed), "evaluation_s": watch.evaluation_s,
        "peak_gb": peak_gb(),
    }  # fmt: skip
    return {"error": None, "measured": measured}


def main() -> int:
    """Answer one question on stdin with one line of JSON on stdout; libraries' chatter goes to stderr."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = TrialSpec(**json.loads(sys.stdin.read()))
    if spec.gpu_share == 0:
        hide_gpus()
    answer = measure(spec)
    with answer_to:
        json.dump(answer, answer_to)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
