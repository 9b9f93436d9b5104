"""One attempt of a trial in a thread of a worker process, and what such a process loads first."""

import dataclasses
import logging
import os
import queue
import threading
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import cloudpickle
import ray

from sweeper.channel import TrialStopped
from sweeper.errors import SweeperError
from sweeper.executors.attempt import JOIN_S, TrialFunction, run_attempt, worker_facts
from sweeper.executors.user_code import prepare_imports
from sweeper.gang import Ranks
from sweeper.records import Outcome, Report
from sweeper.training.memory import hide_gpus
from sweeper.trial_spec import TrialSpec

logger = logging.getLogger(__name__)

StopWord = Literal["stop", "pause"]  # end at the next step; or save a checkpoint first


def attempt_key(spec: TrialSpec) -> str:
    return f"{spec.number}:{spec.attempt}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker process starts with; travels to it."""

    board: Any  # the actor that holds the stop flags
    paths: list[str]  # the driver's module search path; Ray hands on only a part of it
    growth_gb: float  # how much more memory it may hold between trials than after its first one
    gpus: float = 0.0  # that its share holds
    function: bytes | None = None  # a pickled trial function, by cloudpickle; None runs what the spec names
    preload: bool = True  # whether to import the built-in fine-tuning at once


def prepare_process(setup: WorkerSetup) -> TrialFunction | None:
    """Make a worker process ready for its first trial; return the function that it runs instead of the spec's."""
    prepare_imports(setup.paths)
    if assigned_gpus(setup.gpus) == 0:
        hide_gpus()  # before anything asks for them, after which it would be too late
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if setup.preload:
        from sweeper.training import warm

        warm.preload()
    return None if setup.function is None else cloudpickle.loads(setup.function)


def assigned_gpus(of_share: float) -> float:
    """Return how many GPUs Ray has given to this process, whose share holds some or none. Raises as `gpus_among`."""
    return gpus_among(ray.get_runtime_context().get_assigned_resources(), of_share)


def gpus_among(given: Mapping[str, float], of_share: float) -> float:
    """Return how many GPUs are among what Ray has given to a process; a part of one counts as that part.

    Raises:
        SweeperError: If none is there, though the process's share holds some.
    """
    # In a placement group the resource has the group's name behind it, which Ray does not document (2.60).
    found = [float(n) for name, n in given.items() if name == "GPU" or name.startswith("GPU_group")]
    if of_share and not found:
        named = ", ".join(f"`{name}`" for name in given) or "nothing"
        raise SweeperError(
            f"this worker's share has {of_share:g} GPU, but Ray {ray.__version__} names none among what it gave: "
            f"{named}. It would train on the CPU. Use ray 2.60, whose names are known"
        )
    return max(found, default=0.0)


class Attempt(Protocol):
    """One attempt of a trial that runs in a process, or in several."""

    def take(self) -> list[Report | Outcome]:
        """Return what it said, as soon as there is something; an outcome comes last."""

    def go_on(self) -> None:
        """Let a trial that waits for a judgement go on, as it was judged; to be called before each `take`.

        Does nothing where what it waits for was not taken yet.
        """

    def stop(self) -> bool:
        """Tell the trial to end and wait for its next step boundary; return whether it ended."""

    @property
    def worker(self) -> dict[str, Any]:
        """Who trains it."""


class ThreadAttempt:
    """One trial in a thread of its own, so that the actor can listen while it trains. Also its channel."""

    def __init__(
        self, spec: TrialSpec, board: Any, function: TrialFunction | None, ranks: Ranks | None = None
    ) -> None:
        self.spec = spec
        self._ranks = ranks
        # With each whether the trial waits for its judgement.
        self._outbox: queue.SimpleQueue[tuple[Report | Outcome, bool]] = queue.SimpleQueue()
        self._board = board
        self._function = function
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._judged = threading.Event()
        self._is_delivered = False  # whether what the trial waits for was taken, and will be judged
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"trial-{spec.number}", daemon=True)
        self._thread.start()
        threading.Thread(target=self._listen, name=f"stop-{spec.number}", daemon=True).start()

    def send(self, report: Report, *, wait: bool) -> None:
        self._judged.clear()
        self._outbox.put((report, wait))
        if wait and not self._stop.is_set():
            self._judged.wait()
        if self._stop.is_set():
            raise TrialStopped

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def should_pause(self) -> bool:
        return self._pause.is_set()

    @property
    def worker(self) -> dict[str, Any]:
        return worker_facts()

    def take(self) -> list[Report | Outcome]:
        said = [self._outbox.get()]
        while not self._outbox.empty():
            said.append(self._outbox.get())
        self._is_delivered = said[-1][1]  # a trial that waits says nothing more
        return [message for message, _ in said]

    def go_on(self) -> None:
        # What was judged may be an earlier window, which only time had closed: the trial has come to a mark since, and
        # waits for what nobody has heard of yet.
        if not self._is_delivered:
            return
        self._is_delivered = False
        # The listener may hear of it only after some more steps.
        self._obey(ray.get(self._board.newest_word.remote(attempt_key(self.spec))))
        self._judged.set()

    def stop(self) -> bool:
        self._stop.set()
        self._judged.set()
        self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            outcome = run_attempt(self.spec, self, function=self._function, ranks=self._ranks)
            self._outbox.put((outcome, False))
        finally:
            self._ended.set()

    def _listen(self) -> None:
        word: StopWord | None = None
        while word != "stop" and not self._ended.is_set():
            word = ray.get(self._board.word_for.remote(attempt_key(self.spec), word))
            self._obey(word)
        if word == "stop":
            self._give_up(JOIN_S)

    def _give_up(self, after_s: float) -> None:
        """End this process where a stopped trial does not end in time: one that hangs would hold its slot for ever.

        One that is to save first is left alone until it is told not to: its last evaluation may take long, and is worth
        something.
        """
        if not self._ended.wait(after_s):
            logger.error(
                "Trial %d has not ended %.0f s after it was told to: its process ends.",
                self.spec.number,
                after_s,
            )
            os._exit(1)

    def _obey(self, word: StopWord | None) -> None:
        if word == "pause":
            self._pause.set()
        elif word == "stop":
            self._stop.set()
            self._judged.set()
