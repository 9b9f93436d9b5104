"""The example of a trial function of one's own: it sweeps, and goes on from its checkpoints to the same results."""

from pathlib import Path

import pytest
from sweeps import make_orchestrator, make_study, reopened

from sweeper.config import load_config
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.records import TrialState

pytestmark = pytest.mark.train

FILE = Path(__file__).parents[1] / "examples" / "own_function" / "sweep.yaml"
SMALLER = [
    "search_space.effective_batch_size.grid=[16, 64]", "search_space.learning_rate.grid=[1e-4, 1e-2]", "pruner=nop"
]  # fmt: skip


class InterruptAtCheckpoint:
    """Interrupts the sweep once a trial has saved and gone on from there."""

    def __init__(self, orchestrator):
        self._orchestrator = orchestrator

    def on_event(self, event):
        if event.kind is EventKind.RUNG and event.rung.rung == 2:
            self._orchestrator.interrupt()


def values(study):
    records = reopened(study).records()
    assert {record.state for record in records.values()} == {TrialState.COMPLETE}
    return [record.value for record in records.values()]


def test_interrupted_and_resumed_it_comes_to_the_same_as_in_one_go(tmp_path):
    config = load_config(FILE, overrides=SMALLER)
    calm, broken = (make_study(tmp_path / name, config) for name in ("calm", "broken"))
    InProcessExecutor(slots=2).run(make_orchestrator(calm))
    first = make_orchestrator(broken)
    first.listen(InterruptAtCheckpoint(first))

    InProcessExecutor(slots=2).run(first)
    assert TrialState.RUNNING in {record.state for record in reopened(broken).records().values()}
    InProcessExecutor(slots=2).run(make_orchestrator(reopened(broken)))

    assert values(broken) == values(calm)
    assert max(values(calm)) > 0.9


@pytest.mark.slow
def test_its_pruner_stops_poor_points_and_keeps_the_best(tmp_path):
    study = make_study(tmp_path, load_config(FILE))

    InProcessExecutor(slots=2).run(make_orchestrator(study))

    records = reopened(study).records()
    assert max(record.value for record in records.values() if record.value is not None) > 0.95
    assert sum(record.state is TrialState.PRUNED for record in records.values()) >= 8
