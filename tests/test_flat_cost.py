"""What a report and a trial cost the driver does not grow with the study: lines of Python that run, and syncs to disk.

Lines are counted instead of seconds, so that the tests say the same on any machine. What NumPy does over all trials at
once is not counted: `tests/benchmarks/driver.py` measures it.
"""

import os
import random
import sys
from collections import deque

import pytest
from sweeps import make_config, make_orchestrator, make_study

from sweeper.records import Outcome, OutcomeKind, Report, StepRow

SLOTS, REPORTS, STEP = 4, 5, 10
EAGER = {"name": "early_dynamics", "directions": "paper", "keep_frac": 0.99}
PRUNERS = {
    "nop": "nop",
    "eager": EAGER,
    "certain": {**EAGER, "mode": "certain"},
    "learned": {"name": "early_dynamics", "directions": "learned", "risk": 1e-9},
}


class Counter:
    """Counts the lines that run, and the syncs, while something is counted."""

    def __init__(self, monkeypatch):
        self.lines = self.syncs = 0
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, descriptor):
        self.syncs += 1

    def _trace(self, frame, event, argument):
        self.lines += event == "line"
        return self._trace

    def count(self, call, *values):
        sys.settrace(self._trace)
        try:
            return call(*values)
        finally:
            sys.settrace(None)


def messages(number):
    draw = random.Random(number)
    level = draw.random()
    for index in range(1, REPORTS + 1):
        noise = 0.1 * draw.random()
        row = StepRow(index, index * STEP, index * 100, 3 + level + noise, 1 + level - noise, 1e-4)
        report = Report(rows=(row,), metrics={"score": level + noise}, train_s=float(index))
        yield report if index < REPORTS else Outcome(kind=OutcomeKind.DONE, report=report)


def cost(directory, n_trials, pruner, monkeypatch):
    """Return the lines a report, a start and an end, and the syncs a report, of the last quarter of a sweep."""
    config = make_config(
        trial={"budget": {"samples": REPORTS * STEP}, "settings": {"effective_batch_size": STEP}},
        rungs={"samples": [STEP * index for index in range(1, REPORTS)]},
        search_space={
            "learning_rate": {"grid": [1e-6 * 1.2**index for index in range(10)]},
            "weight_decay": {"grid": [0.001 * index for index in range(n_trials // 10)]},
        },
        pruner=PRUNERS[pruner],
    )
    counter = Counter(monkeypatch)
    orchestrator = make_orchestrator(make_study(directory, config))
    flying, counted = deque(), {"report": [], "start": [], "end": [], "sync": []}

    def spent(kind, call, *values):
        if orchestrator.n_left > n_trials // 4:
            return call(*values)
        lines, syncs = counter.lines, counter.syncs
        found = counter.count(call, *values)
        if found is not None:
            counted[kind].append(counter.lines - lines)
        if kind == "report":
            counted["sync"].append(counter.syncs - syncs)
        return found

    while not orchestrator.is_done:
        while len(flying) < SLOTS and (spec := spent("start", orchestrator.next_trial)) is not None:
            flying.append((spec.number, messages(spec.number)))
        number, sent = flying.popleft()
        message = next(sent)
        if isinstance(message, Outcome):
            stops = spent("end", orchestrator.on_end, number, message)
        else:
            stops = spent("report", orchestrator.on_report, number, message)
            flying.append((number, sent))
        for stopped in {decision.trial for decision in stops}:
            flying = deque(flight for flight in flying if flight[0] != stopped)
            orchestrator.on_end(stopped, Outcome(kind=OutcomeKind.STOPPED))
    return {kind: sum(values) / len(values) for kind, values in counted.items()}


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_report_and_a_trial_cost_no_more_in_a_study_of_ten_times_the_trials(tmp_path, pruner, monkeypatch):
    small = cost(tmp_path / "small", 60, pruner, monkeypatch)
    large = cost(tmp_path / "large", 600, pruner, monkeypatch)

    print(pruner, small, large)
    for kind in large:
        assert large[kind] < 1.25 * small[kind], kind
