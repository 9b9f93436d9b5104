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

StopWord = Literal["stop", "pause"]  # end at the next step; or save a checkpoint first
RESULT = "sweeper"  # the key of a `WorkerResult` in what Tune carries to the driver
_STOP_POLL_S = (
    20.0  # how long one question to the board stays open; it is answered at once when the flag is set
)
_JOIN_S = 300.0  # how long a told trial may take to its next step boundary before its process is given up


@dataclasses.dataclass(frozen=True)
class WorkerResult:
    """What a worker says in one of Tune's results. An object, since Tune takes mappings apart."""

    worker: dict[str, Any]
    messages: tuple[Report | Outcome, ...]


class StopBoard:
    """What trials are told that are not reporting just now. One actor for the whole sweep.

    Ray's own ways do not reach a running trial: a stopped one hears of it only at its next report (ray 2.60).
    """

    def __init__(self) -> None:
        self._words: dict[str, StopWord] = {}
        self._asked: dict[str, asyncio.Event] = {}  # by the one who waits for a word
        self._order = 0
        self._all_started = asyncio.Event()
        self._all_started.set()
        self._gave_up = False

    async def tell(self, keys: list[str], word: StopWord) -> None:
        """Tell attempts to end; one that is to end at once is not asked to save any more."""
        for key in keys:
            if self._words.get(key) != "stop":
                self._words[key] = word
            if key in self._asked:
                self._asked.pop(key).set()

    async def newest_word(self, key: str) -> StopWord | None:
        """Return what an attempt is told now; None where nothing."""
        return self._words.get(key)

    async def word_for(self, key: str, known: StopWord | None) -> StopWord | None:
        """Wait for a while until an attempt is told something else than is known; return what it is told now."""
        if self._words.get(key) == known:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.setdefault(key, asyncio.Event()).wait(), _STOP_POLL_S)
        return self._words.get(key)

    async def set_starting(self, n_starting: int, *, order: int) -> None:
        """Say how many trials have been given out and have no worker yet.

        Args:
            n_starting: So many.
            order: Counts these calls from 1: Ray hands them to an actor like this one in any order (2.60).
        """
        if order < self._order:
            return
        self._order = order
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
        self._pause = threading.Event()
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

    def should_pause(self) -> bool:
        return self._pause.is_set()

    def go_on(self) -> None:
        """Let a trial that waits for a judgement go on, as it was judged."""
        if self._is_waiting:  # the listener may hear of it only after some more steps
            self._obey(ray.get(self._board.newest_word.remote(attempt_key(self.spec))))
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
        word: StopWord | None = None
        while word != "stop" and not self._ended.is_set():
            word = ray.get(self._board.word_for.remote(attempt_key(self.spec), word))
            self._obey(word)

    def _obey(self, word: StopWord | None) -> None:
        if word == "pause":
            self._pause.set()
        elif word == "stop":
            self._stop.set()
            self._judged.set()


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
        self._has_reported = False
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
            self._has_reported = False
            return self._result([])
        if self._has_reported:  # else what it waits for has not been judged: nobody has heard of it yet
            self._attempt.go_on()
        self._has_reported = True
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
