"""What passes between Tune and the orchestrator, without a Ray: what trials are told, and how a sweep ends."""

import math
import types

import pytest
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.events import EventKind
from sweeper.executors.ray_bridge import Bridge
from sweeper.executors.ray_hooks import SweepEnd
from sweeper.executors.ray_worker import RESULT, WorkerResult
from sweeper.records import Report, StepRow, TrialState


class Board:
    """Keeps what is said to trials that are not reporting."""

    def __init__(self):
        self.told = []
        self.tell = types.SimpleNamespace(remote=lambda keys, word: self.told.append((sorted(keys), word)))
        self.set_starting = types.SimpleNamespace(remote=lambda n, order: None)


def make_bridge(directory, *listeners, **settings):
    """Return a bridge, its board, and the sweep with its study."""
    study = make_study(directory, make_config())
    orchestrator = make_orchestrator(study, *listeners)
    board, waiting = Board(), types.SimpleNamespace(look=lambda n: None)
    return Bridge(orchestrator, board, waiting, **settings), board, orchestrator, study


def said(*messages):
    return {RESULT: WorkerResult({"node": "a", "pid": 1}, messages)}


@pytest.mark.parametrize(("n_slots", "every_s"), [(1, 1.0), (100, 1.0), (500, 5.0)])
def test_trials_of_many_slots_send_what_nobody_waits_for_less_often(tmp_path, n_slots, every_s):
    bridge, _, _, _ = make_bridge(tmp_path)
    bridge.n_slots = lambda: n_slots

    assert bridge.suggest("tune-0")["spec"].report_every_s == every_s


def test_a_trial_that_diverges_is_told_itself_since_tune_may_keep_its_worker_for_later(tmp_path):
    bridge, board, orchestrator, _ = make_bridge(tmp_path)
    bridge.suggest("tune-0")
    bridge.on_started("tune-0")

    window = Report(rows=(StepRow(1, 10, 0, math.nan, 1.0, None),))
    assert bridge.on_result("tune-0", said(window)) == "STOP"

    assert orchestrator.records[0].state is TrialState.PRUNED
    assert board.told == [(["0:1"], "stop")]


class TakesTime:
    """A listener that lets time pass whenever a trial is taken up."""

    def __init__(self, now, seconds):
        self._now, self._seconds = now, seconds

    def on_event(self, event):
        if event.kind is EventKind.TRIAL_STARTED:
            self._now[0] += self._seconds


def test_tune_takes_up_trials_for_a_moment_only_before_it_starts_those_that_it_has(tmp_path):
    now = [100.0]
    bridge, _, _, _ = make_bridge(tmp_path, TakesTime(now, 0.125), clock=lambda: now[0])
    taken = [bridge.suggest(f"tune-{n}") for n in range(3)]
    assert [one and one["spec"].number for one in taken] == [0, 1, None]

    now[0] += 0.125

    assert bridge.suggest("tune-3")["spec"].number == 2


def test_a_slot_that_becomes_free_is_filled_at_once_since_tune_ends_workers_that_have_no_trial(tmp_path):
    now = [100.0]
    bridge, _, _, _ = make_bridge(tmp_path, TakesTime(now, 0.125), clock=lambda: now[0])
    for n in range(2):
        bridge.suggest(f"tune-{n}")
        bridge.on_started(f"tune-{n}")
    assert bridge.suggest("tune-2") is None

    bridge.on_result("tune-0", said(Report(rows=(StepRow(1, 10, 0, math.nan, 1.0, None),))))

    assert bridge.suggest("tune-3")["spec"].number == 2


def test_with_nothing_in_flight_tune_is_always_given_a_trial(tmp_path):
    now = [100.0]
    bridge, _, _, _ = make_bridge(tmp_path, TakesTime(now, 0.25), clock=lambda: now[0])
    bridge.suggest("tune-0")
    assert bridge.suggest("tune-1") is None
    bridge.on_started("tune-0")
    bridge.on_result("tune-0", said(Report(rows=(StepRow(1, 10, 0, math.nan, 1.0, None),))))

    assert bridge.suggest("tune-2")["spec"].number == 1


def test_where_all_that_is_in_flight_waits_for_a_worker_the_end_of_a_sweep_waits_for_none(tmp_path):
    bridge, _, orchestrator, study = make_bridge(tmp_path)
    bridge.suggest("tune-0")
    end = SweepEnd(bridge)
    bridge.drain()
    assert not end.stop_all()

    orchestrator.interrupt()
    bridge.drain()

    assert end.stop_all()
    assert orchestrator.is_done
    record = reopened(study).records()[0]
    assert (record.state, record.errors) == (TrialState.RUNNING, [])
    assert make_orchestrator(reopened(study)).next_trial().number == 0


def test_the_end_of_a_sweep_waits_for_a_trial_that_has_its_worker(tmp_path):
    bridge, board, orchestrator, _ = make_bridge(tmp_path)
    bridge.n_slots = lambda: 2
    bridge.suggest("tune-0")
    bridge.suggest("tune-1")
    bridge.on_started("tune-1")
    orchestrator.interrupt()

    bridge.drain()

    assert not SweepEnd(bridge).stop_all()
    assert board.told == [(["0:1", "1:1"], "pause")]


def test_a_trial_that_hangs_while_the_sweep_ends_is_told_to_end_without_saving(tmp_path):
    now, notes = [0.0], Recorder()
    bridge, board, orchestrator, _ = make_bridge(tmp_path, notes, patience_s=300.0, clock=lambda: now[0])
    bridge.suggest("tune-0")
    bridge.on_started("tune-0")
    orchestrator.interrupt()

    for at in (0.0, 299.0, 300.0, 301.0):
        now[0] = at
        bridge.drain()

    assert board.told == [(["0:1"], "pause"), (["0:1"], "stop")]
    assert notes.events[-1].message == (
        "1 running trials have not ended for 300 s: they are to end without saving"
    )
