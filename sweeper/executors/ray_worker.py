"""What runs in a Ray worker process: one trial after another, warm."""

import asyncio
import contextlib
import dataclasses
import os
import queue
import sys
import threading
from typing import Any, Literal

import cloudpickle
import ray
from ray import tune

from sweeper.context import TrialSpec, TrialStopped
from sweeper.executors.attempt import TrialFunction, run_attempt, worker_facts
from sweeper.records import Outcome, Report

RESULT = "sweeper"  # the key of a `WorkerResult` in what Tune carries to the driver
_STOP_POLL_S = (
    20.0  # how long one question to the board stays open; it is answered at once when the flag is set
)
_JOIN_S = 300.0  # how long a told trial may take to its next step boundary before its process is given up


Flag = Literal["go on", "stop", "save"]


@dataclasses.dataclass(frozen=True)
class WorkerResult:
    """What a worker says in one of Tune's results. An object, since Tune takes mappings apart."""

    worker: dict[str, Any]
    messages: tuple[Report | Outcome, ...]


class StopBoard:
    """The flags that stop trials which are not reporting just now. One actor for the whole sweep.

    Ray's own ways do not reach a running trial: a stopped one hears of it only at its next report (ray 2.60).
    """

    def __init__(self) -> None:
        self._flags: dict[str, asyncio.Event] = {}
        self._to_save: set[str] = set()
        self._n_starting = 0
        self._all_started = asyncio.Event()
        self._all_started.set()
        self._gave_up = False

    async def stop(self, keys: list[str], *, save: bool = False) -> None:
        """Set the flags of attempts; with `save`, those that can are to save a checkpoint first."""
        for key in keys:
            if save:
                self._to_save.add(key)
            self._flags.setdefault(key, asyncio.Event()).set()

    async def flag(self, key: str) -> Flag:
        """Return an attempt's flag as it is now."""
        if key not in self._flags or not self._flags[key].is_set():
            return "go on"
        return "save" if key in self._to_save else "stop"

    async def wait_for_flag(self, key: str) -> Flag:
        """Wait for an attempt's flag, for a while."""
        event = self._flags.setdefault(key, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), _STOP_POLL_S)
        return await self.flag(key)

    async def set_starting(self, n_starting: int) -> None:
        """Say how many trials have been given out and have no worker yet."""
        self._n_starting = n_starting
        if n_starting == 0:
            self._all_started.set()
            self._gave_up = False
        else:
            self._all_started.clear()

    async def wait_until_started(self, timeout_s: float) -> None:
        """Wait until every trial that was given out has its worker.

        After one wait in vain nobody waits any more until they have: the cluster may have lost a node, and the trial
        that ends here may hold just the place that the other one needs.
        """
        if self._gave_up:
            return
        try:
            await asyncio.wait_for(self._all_started.wait(), timeout_s)
        except TimeoutError:
            self._gave_up = True


def attempt_key(spec: TrialSpec) -> str:
    return f"{spec.number}:{spec.attempt}"


class _Attempt:
    """One trial in a thread of its own, so that the actor can listen while it trains. Also its channel."""

    def __init__(self, spec: TrialSpec, board: Any, function: TrialFunction | None) -> None:
        self.spec = spec
        self.outbox: queue.SimpleQueue[Report | Outcome] = queue.SimpleQueue()
        self._board = board
        self._function = function
        self._stop = threading.Event()
        self._save = threading.Event()
        self._judged = threading.Event()
        self._is_waiting = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"trial-{spec.number}", daemon=True)
        self._thread.start()
        threading.Thread(target=self._listen, name=f"stop-{spec.number}", daemon=True).start()

    def send(self, report: Report, *, wait: bool) -> None:
        self._judged.clear()
        self._is_waiting = wait
        self.outbox.put(report)
        if wait and not self._stop.is_set():
            self._judged.wait()
        self._is_waiting = False
        if self._stop.is_set():
            raise TrialStopped

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def should_save(self) -> bool:
        return self._save.is_set()

    def go_on(self) -> None:
        """Let a trial that waits for a judgement go on, as it was judged."""
        if self._is_waiting:  # the listener may hear of it later than the trial takes its next step
            self._obey(ray.get(self._board.flag.remote(attempt_key(self.spec))))
        self._judged.set()

    def stop(self) -> bool:
        """Tell the trial to end and wait for its next step boundary; return whether it ended."""
        self._stop.set()
        self._judged.set()
        self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self.outbox.put(run_attempt(self.spec, self, function=self._function))
        finally:
            self._ended.set()

    def _listen(self) -> None:
        while not self._ended.is_set():
            if self._obey(ray.get(self._board.wait_for_flag.remote(attempt_key(self.spec)))):
                return

    def _obey(self, flag: Flag) -> bool:
        """Take up what the board says; return whether the trial is to end."""
        if flag == "go on":
            return False
        if flag == "save":
            self._save.set()
        self._stop.set()
        self._judged.set()
        return True


class TrialWorker(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """A Tune trainable that stays alive between trials; `config` holds the spec of the next one."""

    def setup(
        self, config: dict[str, Any], *, board: Any, warm_s: float, paths: list[str],
        function: bytes | None = None, preload: bool = True,
    ) -> None:  # fmt: skip
        """Import what every trial needs; Tune gives out no trial before that.

        Args:
            config: Holds the `spec` of the first trial.
            board: The actor that holds the stop flags.
            warm_s: How long the end of a trial waits for workers that still start.
            paths: The driver's module search path; Ray hands on only a part of it.
            function: A pickled trial function, by cloudpickle; None runs what the spec names.
            preload: Whether to import the built-in fine-tuning now.
        """
        self._board, self._warm_s = board, warm_s
        sys.path.extend(path for path in paths if path not in sys.path)
        self._function: TrialFunction | None = None if function is None else cloudpickle.loads(function)
        self._spec: TrialSpec = config["spec"]
        self._attempt: _Attempt | None = None
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if preload:
            from sweeper.training import warm

            warm.preload()

    def step(self) -> dict[str, Any]:
        """Start the trial, or let it go on; return what it reported, as soon as there is something.

        The first call only starts it and says who trains it, so that the study knows at once.
        """
        if self._attempt is None:
            self._attempt = _Attempt(self._spec, self._board, self._function)
            return self._result([])
        self._attempt.go_on()
        messages: list[Report | Outcome] = [self._attempt.outbox.get()]
        while not self._attempt.outbox.empty():
            messages.append(self._attempt.outbox.get())
        ended = isinstance(messages[-1], Outcome)
        if ended:
            # Tune gives an idle worker to the trial whose own worker is still starting, and cancels that one: with
            # trials shorter than a worker's start the sweep would stay on one process (ray 2.60).
            ray.get(self._board.wait_until_started.remote(self._warm_s))
        return self._result(messages)

    @staticmethod
    def _result(messages: list[Report | Outcome]) -> dict[str, Any]:
        # Never "done": Tune would end the trial without showing this result to the scheduler, which ends it itself.
        return {RESULT: WorkerResult(worker_facts(), tuple(messages)), "done": False}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial in this process. False gives the process up."""
        if not self._end_attempt():
            return False
        self._spec = new_config["spec"]
        return True

    def cleanup(self) -> None:
        self._end_attempt()

    def _end_attempt(self) -> bool:
        attempt, self._attempt = self._attempt, None
        return attempt is None or attempt.stop()
