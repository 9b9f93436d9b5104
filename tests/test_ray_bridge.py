"""What passes between Tune and the orchestrator, without a Ray: what trials are told, and how a sweep ends."""

import math
import types

from sweeps import make_config, make_orchestrator, make_study

from sweeper.executors.ray_bridge import Bridge
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


def test_a_trial_that_diverges_is_told_itself_since_tune_may_keep_its_worker_for_later(tmp_path):
    bridge, board, orchestrator, _ = make_bridge(tmp_path)
    bridge.suggest("tune-0")
    bridge.on_started("tune-0")

    window = Report(rows=(StepRow(1, 10, 0, math.nan, 1.0, None),))
    assert bridge.on_result("tune-0", said(window)) == "STOP"

    assert orchestrator.records[0].state is TrialState.PRUNED
    assert board.told == [(["0:1"], "stop")]
