"""A sweep on Ray whose driver, workers and nodes are killed at random but seeded moments, and what came of it."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from chaos_sweeps import MADE_UP, check_prefix, kill, outcome, records_of, start, write_sweep
from decided import PRUNERS, faults_of
from nodes import Nodes
from postgres import Postgres
from sweeps import merged

from sweeper.errors import NothingToDoError, SweeperError
from sweeper.records import TrialRecord, TrialState
from sweeper.study.study import Study

HERE = Path(__file__).resolve().parent
OUTAGE_S = 30.0  # how long the database is away
# Of enough points to learn from.
HILL: dict[str, Any] = {
    "learning_rate": {"grid": [round(10 ** (-5 + 0.25 * place), 8) for place in range(12)]},
    "effective_batch_size": {"grid": [10, 20]},
}
# How a driver ends once the sweep is done; 3: the one before it was killed when only its report was missing.
_ENDED = (0, NothingToDoError.exit_code)
_START_S = 240.0  # how long a driver may take until its first trial runs
END_S = 900.0  # and until it ends, once nobody disturbs it any more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be broken in one sweep, and how often."""

    kills: int = 4
    seed: int = 0
    trial: str = "made-up"
    pruner: str = "nop"
    nodes: bool = False
    storage: str = "journal"


@dataclasses.dataclass
class Tally:
    """What was broken, and what was found afterwards."""

    kills: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"driver": 0, "worker": 0, "node": 0, "outage": 0}
    )
    n_points: int = 0
    n_decisions: int = 0
    n_pruned: int = 0
    n_steps: int = 0
    attempts: int = 0
    seconds: float = 0.0
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def n_kills(self) -> int:
        return sum(self.kills.values()) - self.kills["outage"]


def sweep_of(plan: Plan, study: str) -> dict[str, Any]:
    """Return the sweep that is disturbed; retries are plenty, since killing workers costs them."""
    changes: dict[str, Any] = {
        "study": study, "failures": {"retries": 1000}, "pruner": PRUNERS[plan.pruner],
    }  # fmt: skip
    if plan.pruner != "nop" and plan.trial == "made-up":
        # The best come first, so that those after them have somebody to be worse than.
        changes["search_space"] = {"learning_rate": {"grid": [1e-3, 3e-3, 3e-4, 1e-4, 3e-5, 1e-5]}}
    if plan.pruner == "learned":
        changes |= {"search_space": HILL, "rungs": {}}
    if plan.trial == "made-up":
        config = merged(MADE_UP, {**changes, "trial": {"settings": {"step_s": 0.1}}})
        for name in config["search_space"]:
            config["trial"]["settings"].pop(name, None)  # what is swept is not fixed
        return config
    tiny = HERE.parents[1] / "examples/tiny"
    real = {
        "metric": "new/loss",
        "direction": "minimize",
        "trial": {
            "function": None, "model": str(tiny / "model"), "train_data": str(tiny / "data/train.jsonl"),
            "eval_data": {"new": str(tiny / "data/eval_new.jsonl")}, "budget": {"samples": 1536},
            "evaluation": {"at": "end", "generate": False, "max_rows": 64}, "checkpoint": {"every_samples": 192},
            "settings": {"micro_batch_size": 8, "max_length": 64, "lr_scheduler_type": "cosine", "warmup_frac": 0.1},
        },
        "search_space": {
            "effective_batch_size": {"grid": [8, 16]}, "learning_rate": {"grid": [1e-4, 1e-3, 3e-3]},
        },
        "rungs": {"samples": [384, 768]},
    }  # fmt: skip
    config = merged({**MADE_UP, "trial": {}}, {**real, **changes})
    config["trial"].pop("function")
    return config


class Chaos:
    """One disturbed sweep."""

    def __init__(
        self, plan: Plan, directory: Path, *, server: Postgres | None = None, nodes: Nodes | None = None
    ) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._sweep = write_sweep(directory / "sweep.yaml", sweep_of(plan, f"chaos-{plan.seed}"))
        self.study = directory / "study"
        self._log = directory / "driver.log"
        self._server = server
        self._url = None if server is None else server.url
        self._nodes = nodes
        self._driver: subprocess.Popen[bytes] | None = None
        self._seen: dict[
            int, list[dict[str, Any]]
        ] = {}  # decisions of every trial, as recorded when last looked at
        self.tally = Tally()

    def run(self) -> None:
        """Disturb the sweep, then let it end."""
        started = time.monotonic()
        kinds = ["driver", "worker", *(["node"] if self._nodes else [])]
        # Every kind its share, in an order that the seed decides.
        order = [kinds[index % len(kinds)] for index in range(self._plan.kills)]
        self._random.shuffle(order)
        if self._server:
            order.insert(len(order) // 2, "outage")
        while order:
            if not self._is_up() or not self._wait_for_trials():
                break  # it ended before all kills were spent
            time.sleep(self._random.uniform(0.0, 3.0))
            if getattr(self, f"_kill_{order[0]}")():  # else its victim has just ended
                self.tally.kills[order.pop(0)] += 1
        self._finish()
        self.tally.seconds = time.monotonic() - started

    def _is_up(self) -> bool:
        """Make sure that a driver runs, unless the sweep has ended."""
        if self._driver is not None and self._driver.poll() is None:
            return True
        if self._driver is not None and self._driver.returncode in _ENDED:
            return False
        if (self.study / "study.json").exists():
            words = ["resume", str(self.study)]
        else:
            words = ["launch", str(self._sweep), "--dir", str(self.study)]
        words += ["--storage", self._url] if self._url else []
        words += ["--address", self._nodes.address] if self._nodes else []
        self._driver = start(words, self._log)
        return True

    def _wait_for_trials(self) -> bool:
        """Wait until a trial runs under this driver; False if the sweep ends first."""
        assert self._driver is not None
        deadline = time.monotonic() + _START_S
        while not self._workers():
            code = self._driver.poll()
            if code is not None:
                if code not in _ENDED:
                    self._fault(f"a driver ended with {code}: {self._tail()}")
                return False
            if time.monotonic() > deadline:
                self._fault(f"no trial ran within {_START_S:.0f} s: {self._tail()}")
                return False
            time.sleep(0.3)
        return True

    def _records(self) -> dict[int, TrialRecord]:
        try:
            return records_of(self.study, self._url)
        except SweeperError:  # it is being made
            return {}

    def _workers(self) -> list[int]:
        """Return the processes that train now, on this machine."""
        running = [r for r in self._records().values() if r.state is TrialState.RUNNING and r.worker]
        pids = {int(record.worker["pid"]) for record in running if record.worker}
        return sorted(pid for pid in pids if _is_worker(pid))

    def _kill_driver(self) -> bool:
        assert self._driver is not None
        if self._driver.poll() is not None:
            return False
        kill(self._driver)
        self._look()
        return True

    def _kill_worker(self) -> bool:
        for pid in self._workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _kill_node(self) -> bool:
        assert self._nodes is not None
        self._nodes.kill_second()
        return True

    def _kill_outage(self) -> bool:
        assert self._server is not None
        self._server.stop()
        time.sleep(OUTAGE_S)
        self._server.start()
        return True

    def _look(self) -> None:
        """Compare what is recorded now with what was recorded before: nothing may be gone or changed."""
        for number, record in self._records().items():
            before = self._seen.get(number, [])
            if record.decisions[: len(before)] != before:
                self._fault(f"decisions of trial {number} were lost or changed")
            self._seen[number] = record.decisions

    def _finish(self) -> None:
        for _ in range(3):
            if not self._is_up():
                return
            assert self._driver is not None
            try:
                code = self._driver.wait(END_S)
            except subprocess.TimeoutExpired:
                kill(self._driver)
                self._fault(f"the sweep did not end within {END_S:.0f} s: {self._tail()}")
                return
            if code in _ENDED:
                return
        self._fault(f"the sweep could not be brought to its end: {self._tail()}")

    def check(self, calm: dict[str, dict[str, Any]]) -> None:
        """Compare what the disturbed sweep came to with the undisturbed one."""
        self._look()
        found = outcome(self.study, self._url)
        records = self._records()
        self.tally.n_points = len(found)
        self.tally.n_steps = sum(len(point["curve"]) for point in found.values())
        self.tally.attempts = sum(record.attempts for record in records.values())
        self.tally.n_pruned = sum(record.state is TrialState.PRUNED for record in records.values())
        self.tally.n_decisions = sum(len(record.decisions) for record in records.values())
        if found.keys() != calm.keys():
            self._fault(f"{len(found.keys() ^ calm.keys())} points are missing or too many")
            return
        for point_id, expected in calm.items():
            self._check_point(point_id, found[point_id], expected)
        if self._plan.pruner != "nop":
            study = Study.open(str(self.study), url=self._url)
            for fault in faults_of(study, records, self._plan.pruner):
                self._fault(fault)

    def _check_point(self, point_id: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
        if self._plan.pruner == "nop" and found != expected:
            parts = [name for name in expected if found[name] != expected[name]]
            self._fault(f"point {point_id} differs in {', '.join(parts)}")
            return
        try:
            check_prefix(found["curve"], expected["curve"])
        except AssertionError:
            self._fault(f"the curve of point {point_id} differs")
        if found["state"] not in ("COMPLETE", "PRUNED"):
            self._fault(f"point {point_id} is {found['state']}")
        if found["state"] == "COMPLETE" and found["value"] != expected["value"]:
            self._fault(f"the value of point {point_id} differs")

    def _fault(self, text: str) -> None:
        self.tally.faults.append(text)

    def _tail(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-4:])


def _is_worker(pid: int) -> bool:
    """Whether a process lives and is one of Ray's workers: numbers are used again."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
