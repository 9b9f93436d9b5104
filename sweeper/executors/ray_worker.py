"""What runs in a Ray worker process: one trial after another, warm."""

import dataclasses
import os
from typing import Any

import ray
from ray import tune

from sweeper.errors import SweeperError
from sweeper.executors.attempt import JOIN_S, TrialFunction, worker_facts
from sweeper.executors.ray_attempt import Attempt, ThreadAttempt, WorkerSetup, assigned_gpus, prepare_process
from sweeper.executors.ray_gang import RankProcesses
from sweeper.executors.worker_memory import WorkerMemory, lost_gpu, take_gpu
from sweeper.records import Outcome, Report
from sweeper.trial_spec import TrialSpec

RESULT = "sweeper"  # the key of a `WorkerResult` in what Tune carries to the driver


@dataclasses.dataclass(frozen=True)
class WorkerResult:
    """What a worker says in one of Tune's results. An object, since Tune takes mappings apart."""

    worker: dict[str, Any]
    messages: tuple[Report | Outcome, ...]
    note: str | None = None  # what whoever watches the sweep should know of the worker


class WorkerReplacedError(SweeperError):
    """A worker gave itself up between two trials. Raised, since Tune tells nobody of a reset that returned False."""


class TrialWorker(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """A Tune trainable that stays alive between trials; `config` holds the spec of the next one."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        setup: WorkerSetup,
        warm_s: float,
        shares: tuple[dict[str, float], ...] = (),
    ) -> None:
        """Import what every trial needs; Tune gives out no trial before that.

        Args:
            config: Holds the `spec` of the first trial.
            setup: Of this process and, where the trial has several workers, of each of them.
            warm_s: How long the end of a trial waits for workers that still start.
            shares: What each of the trial's workers gets, where there are several: they are processes of their own
                in this trial's placement group, and this one only speaks for them.
        """
        self._board, self._warm_s = setup.board, warm_s
        self._spec: TrialSpec = config["spec"]
        self._attempt: Attempt | None = None
        self._has_said_who = False
        self._gang: RankProcesses | None = None
        self._function: TrialFunction | None = None
        self._memory = WorkerMemory(setup.growth_gb)
        self._note: str | None = None
        if shares:
            self._gang = RankProcesses(shares, setup)
            self._gang.start()
        else:
            self._function = prepare_process(setup)
            take_gpu(assigned_gpus(setup.gpus), is_built_in=setup.preload)

    def step(self) -> dict[str, Any]:
        """Start the trial, or let it go on; return what it reported, as soon as there is something.

        The first call says who trains it, and only the next one starts it: so the driver knows that a trial has begun
        before it can end its process, which is then held against it. Of several workers this one outlives the others.
        """
        if self._attempt is None and self._gang is not None:
            self._begin(self._gang.begin(self._spec))
            return self._result([])
        if not self._has_said_who:
            self._has_said_who = True
            return self._result([])
        if self._attempt is None:
            self._begin(ThreadAttempt(self._spec, self._board, self._function))
        assert self._attempt is not None
        self._attempt.go_on()
        messages = self._attempt.take()
        ended = isinstance(messages[-1], Outcome)
        if ended:
            # Tune gives an idle worker to the trial whose own worker is still starting, and cancels that one: with
            # trials shorter than a worker's start the sweep would stay on one process (ray 2.60).
            ray.get(self._board.wait_until_started.remote(self._warm_s))
        return self._result(messages)

    def _begin(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._has_said_who = True

    def _result(self, messages: list[Report | Outcome]) -> dict[str, Any]:
        worker = worker_facts() if self._attempt is None else self._attempt.worker
        # Never "done": Tune would end the trial without showing this result to the scheduler, which ends it itself.
        note, self._note = self._note, None
        return {RESULT: WorkerResult(worker, tuple(messages), note), "done": False}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial in this process.

        Raises:
            WorkerReplacedError: If it cannot: the last trial has not ended, or has left too much in memory.
        """
        number = self._spec.number
        if not self._end_attempt():
            raise WorkerReplacedError(
                f"process {os.getpid()} is replaced: trial {number} has not ended {JOIN_S:.0f} s after it was told to"
            )
        if self._gang is not None:
            self._note = self._gang.end_if_leaking(number)
        elif (why := lost_gpu(number) or self._memory.leak(number)) is not None:
            raise WorkerReplacedError(why)
        self._spec = new_config["spec"]
        return True

    def cleanup(self) -> None:
        self._end_attempt()
        if self._gang is not None:
            self._gang.end()

    def _end_attempt(self) -> bool:
        attempt, self._attempt = self._attempt, None
        self._has_said_who = False
        return attempt is None or attempt.stop()
