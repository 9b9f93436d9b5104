"""The trial that takes longest is started first, by steps and then by what was measured."""

import heapq
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import make_config, make_study

from sweeper.orchestrator import Orchestrator
from sweeper.orchestrator.longest import TrialLengths
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import Outcome, OutcomeKind, Report, StepRow, TrialRecord, TrialState

SPACE = {"learning_rate": {"grid": [1e-4, 1e-3]}, "effective_batch_size": {"grid": [100, 50, 10, 5]}}


def trial(number: int, *, batch: int, samples: int = 1000, train_s: float = 0.0) -> TrialRecord:
    return TrialRecord(
        number=number, state=TrialState.COMPLETE if train_s else TrialState.WAITING, params={}, point_id=str(number),
        settings={"effective_batch_size": batch}, budget_samples=samples, total_steps=samples // batch,
        samples=samples if train_s else 0, train_s=train_s,
    )  # fmt: skip


def order(lengths: TrialLengths, *waiting: TrialRecord) -> list[int]:
    return lengths.in_order([r.number for r in waiting], {r.number: r for r in waiting})


def test_until_something_was_measured_more_steps_take_longer() -> None:
    assert order(TrialLengths(), trial(0, batch=100), trial(1, batch=10), trial(2, batch=10)) == [1, 2, 0]


def test_what_was_measured_counts() -> None:
    lengths = TrialLengths()
    assert lengths.learn(trial(9, batch=100, train_s=50.0))
    assert not lengths.learn(trial(8, batch=100, train_s=50.0))
    assert lengths.learn(trial(7, batch=10, train_s=20.0))  # a small batch is quicker here
    assert order(lengths, trial(0, batch=10), trial(1, batch=100)) == [1, 0]


@given(
    fixed=st.floats(0.001, 1.0), own=st.floats(0.0, 0.1),
    sizes=st.lists(st.integers(1, 500), min_size=3, max_size=8, unique=True),
)  # fmt: skip
def test_sizes_that_were_not_measured_lie_on_the_line_through_those_that_were(
    fixed: float, own: float, sizes: list[int]
) -> None:
    def seconds(batch: int) -> float:
        return 500_000 // batch * fixed + 500_000 * own

    lengths = TrialLengths()
    for number, batch in enumerate(sizes[:2]):
        lengths.learn(trial(number, batch=batch, samples=500_000, train_s=seconds(batch)))
    waiting = [trial(number, batch=batch, samples=500_000) for number, batch in enumerate(sizes)]
    found = order(lengths, *waiting)
    times = [seconds(sizes[number]) for number in found]
    assert all(a >= b * (1 - 1e-2) for a, b in itertools.pairwise(times))


def makespan(directory: Path, *, longest_first: bool) -> float:
    """Play a sweep on three slots in virtual time, a second for each step; return when the last trial ends."""
    config = make_config(search_space=SPACE, trial={"settings": {}}, rungs={"fractions": [0.5]})
    study = make_study(directory, config)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=make_judge(config), rules=divergence_rules(config),
        longest_first=longest_first,
    )  # fmt: skip
    running: list[tuple[float, int, Any]] = []
    now = 0.0
    while True:
        while len(running) < 3 and (spec := orchestrator.next_trial()) is not None:
            heapq.heappush(running, (now + spec.total_steps, spec.number, spec))
        if not running:
            return now
        now, number, spec = heapq.heappop(running)
        rows = tuple(
            StepRow(step=n, samples=n * spec.budget_samples // spec.total_steps, tokens=0, loss=1.0, grad_norm=1.0,
                    learning_rate=1e-3)
            for n in range(1, spec.total_steps + 1)
        )  # fmt: skip
        report = Report(rows=rows, metrics={"score": 1.0}, train_s=float(spec.total_steps))
        orchestrator.on_end(number, Outcome(kind=OutcomeKind.DONE, report=report))


def test_the_slots_come_to_the_end_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sweeps

    monkeypatch.setitem(sweeps.BASE["trial"], "settings", {})
    # 2 x (1 + 2 + 10 + 20) steps on three slots take 22 at least, and 30 and more in the grid's order.
    assert makespan(tmp_path / "grid", longest_first=False) >= 30
    assert makespan(tmp_path / "longest", longest_first=True) == 22
