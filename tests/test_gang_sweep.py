"""Sweeps on Ray whose trials are trained by two workers each."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rank_functions
import training_fixtures
from sweeps import RATES, make_config, make_orchestrator, make_study, reopened
from training_fixtures import Tiny, sweep_of

import sweeper
from sweeper.events import Event, EventKind
from sweeper.records import TrialState
from sweeper.study.study import Study

tiny = training_fixtures.tiny
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
POOR_LAST = {
    "pruner": {"signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.3},
    "search_space": {"learning_rate": {"grid": RATES}},
}


def sweep(directory: Path, *listeners: Any, slots: int = 1, **changes: Any) -> Study:
    from sweeper.executors.ray_tune import RayTuneExecutor

    resources = {"workers_per_trial": 2, "gpus_per_trial": 0}
    study = make_study(directory, make_config(resources=resources, **changes))
    executor = RayTuneExecutor(slots=slots, workers_per_trial=2, function=rank_functions.saves, preload=False)
    executor.run(make_orchestrator(study, *listeners))
    return study


class At:
    """A listener that does something at the first event of a kind."""

    def __init__(self, kind: EventKind, act: Callable[[Event], None]) -> None:
        self._kind, self._act, self._is_done = kind, act, False

    def on_event(self, event: Event) -> None:
        if event.kind is self._kind and not self._is_done:
            self._is_done = True
            self._act(event)


def ranks_of(record: Any) -> list[int]:
    return [rank["pid"] for rank in record.worker["ranks"]]


def listening() -> dict[str, int]:
    """Return the sockets on which anybody listens: inode and TCP port. A port may be taken anew, an inode is not."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = int(words[1].rpartition(":")[2], 16)
    return found


def sockets_of(pid: int) -> set[str]:
    targets = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        threading.Event().wait(0.1)
    return condition()


def test_a_prune_in_the_middle_keeps_the_workers_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    check_that_nothing_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_sweeps_in_a_row_leave_nothing(tmp_path: Path) -> None:
    for number in range(20):
        check_that_nothing_is_left(tmp_path / str(number))


def check_that_nothing_is_left(directory: Path) -> None:
    opened: set[str] = set()

    def look(event: Event) -> None:
        assert event.record is not None
        for pid in ranks_of(event.record):
            opened.update(sockets_of(pid) & listening().keys())

    study = sweep(directory, At(EventKind.RUNG, look), **POOR_LAST)

    records = reopened(study).records()
    states = [record.state for record in records.values()]
    assert TrialState.PRUNED in states
    assert set(states) <= {TrialState.PRUNED, TrialState.COMPLETE}
    assert all(record.attempts == 1 for record in records.values())
    pids = {pid for record in records.values() for pid in ranks_of(record)}
    assert len(pids) == 2  # one pair of processes trained all of them
    assert opened
    assert within(20, lambda: not any(map(is_alive, pids)))
    assert within(
        20, lambda: not opened & listening().keys()
    )  # the kernel takes its time for large processes


@pytest.mark.slow
def test_a_killed_rank_ends_the_attempt_on_all_and_it_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    killed: dict[str, Any] = {}

    def kill(event: Event) -> None:
        assert event.record is not None
        killed["pids"], killed["at"] = ranks_of(event.record), time.monotonic()
        os.kill(killed["pids"][1], signal.SIGKILL)

    def note(event: Event) -> None:
        killed["noticed_s"] = time.monotonic() - killed["at"]
        while is_alive(killed["pids"][0]) and time.monotonic() - killed["at"] < 20:  # it is being killed
            time.sleep(0.05)
        killed["lives"] = is_alive(killed["pids"][0])

    started: list[str] = []

    class Starts:
        def on_event(self, event: Event) -> None:
            if event.kind is EventKind.TRIAL_STARTED:
                started.append(event.message)

    study = sweep(
        tmp_path, At(EventKind.RUNG, kill), At(EventKind.TRIAL_RETRIED, note), Starts(),
        search_space={"learning_rate": {"grid": [1e-3]}},
        trial={"settings": {"step_s": 0.1}, "checkpoint": {"at": [10]}},
    )  # fmt: skip

    record = reopened(study).records()[0]
    assert record.state is TrialState.COMPLETE
    assert record.attempts == 2
    assert "rank 1" in record.errors[0]["error"]
    assert f"pid {killed['pids'][1]}" in record.errors[0]["error"]
    assert killed["noticed_s"] < 5
    assert not killed["lives"]
    assert "from step 1" in started[1]
    assert [row.step for row in study.curves.rows(0)] == list(range(1, 11))
    assert not set(ranks_of(record)) & set(killed["pids"])


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.parametrize("sharding", [None, "fsdp2"])
def test_a_sweep_of_the_built_in_training_gives_the_curves_of_one_worker(
    tiny: Tiny, tmp_path: Path, sharding: str | None
) -> None:
    def launched(name: str, **resources: Any) -> Any:
        return sweeper.launch(
            sweep_of(
                tiny,
                study=name,
                trial={
                    "budget": {"samples": 64},
                    "evaluation": {"at": "rungs", "generate": True},
                    "settings": {"effective_batch_size": 8, "micro_batch_size": 4},
                },
                resources={"slots": 1, "gpus_per_trial": 0, **resources},
                dir=str(tmp_path / name),
            )
        )

    one = launched("one")
    two = launched("two", workers_per_trial=2, sharding=sharding)

    assert [record.point_id for record in two.records] == [record.point_id for record in one.records]
    for number in range(2):
        left, right = one.curve(number), two.curve(number)
        assert list(right["loss"]) == pytest.approx(list(left["loss"]), abs=1e-4)
        assert list(right["grad_norm"]) == pytest.approx(list(left["grad_norm"]), abs=1e-4)
        assert two.records[number].value == pytest.approx(one.records[number].value, abs=1e-4)
