"""The worker processes of a trial that several train together, kept warm between trials.

They are actors in the Tune trial's own placement group, one for each bundle. The Tune trial itself is a process beside
them that only passes messages on: it can end all of them at any time, whatever they wait in.
"""

import contextlib
import dataclasses
from typing import Any

import ray
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeper.errors import SweeperError, first_line
from sweeper.executors.attempt import TrialFunction, run_attempt, worker_facts
from sweeper.executors.ray_attempt import ThreadAttempt, WorkerSetup, assigned_gpus, prepare_process
from sweeper.executors.worker_memory import WorkerMemory, lost_gpu, take_gpu
from sweeper.records import FailureCause, Outcome, OutcomeKind, Report
from sweeper.trial_spec import TrialSpec

_JOIN_S = 300.0  # how long all ranks of a told trial may take to their next step boundary
_CAUSE_S = 5.0  # how long a failed rank is not believed, since another one's death may be what it failed of
_START_S = 600.0  # how long the ranks may take to start and to find each other


class RankLostError(SweeperError):
    """A worker process of a trial died."""


class _Silent:
    """The channel of ranks that report to nobody."""

    def send(self, report: Report, *, wait: bool) -> None: ...

    def should_stop(self) -> bool:
        return False

    def should_pause(self) -> bool:
        return False


class RankWorker:
    """One rank: a process that trains its part of one trial after another."""

    def __init__(self, rank: int, setup: WorkerSetup) -> None:
        self._memory = WorkerMemory(setup.growth_gb)
        self._rank = rank
        self._board = setup.board
        self._function: TrialFunction | None = prepare_process(setup)
        take_gpu(assigned_gpus(setup.gpus), is_built_in=setup.preload)
        self._ranks: Any = None
        self._store: Any = None  # rank 0's: the others found it by it
        self._attempt: ThreadAttempt | None = None

    def meet(self, size: int) -> Any:
        """Open the place where the ranks find each other; return it."""
        from sweeper.training.ranks import open_meeting

        meeting, self._store = open_meeting(get_node_ip_address(), size)
        return meeting

    def join(self, meeting: Any, on_gpu: bool | None = None) -> dict[str, Any]:
        """Find the other ranks; return who this process is."""
        from sweeper.training.ranks import join

        self._ranks = join(
            meeting, self._rank, address=get_node_ip_address(), store=self._store, on_gpu=on_gpu
        )
        return {**worker_facts(), "ray_node": ray.get_runtime_context().get_node_id()}

    def count(self) -> int:
        """Return how many ranks there are, computed by all of them."""
        total: int = self._ranks.total([1])[0]
        return total

    def begin(self, spec: TrialSpec) -> None:
        """Begin a trial as rank 0, the one that speaks."""
        self._attempt = ThreadAttempt(spec, self._board, self._function, self._ranks)

    def follow(self, spec: TrialSpec) -> Outcome:
        """Train a trial to its end as another rank."""
        return run_attempt(spec, _Silent(), function=self._function, ranks=self._ranks)

    def leak(self, after: int) -> str | None:
        """Say that this process has kept too much of a trial's memory, or has lost its GPU, if so."""
        return lost_gpu(after) or self._memory.leak(after)

    def take(self) -> list[Report | Outcome]:
        assert self._attempt is not None
        return self._attempt.take()

    def go_on(self) -> None:
        assert self._attempt is not None
        self._attempt.go_on()

    def stop(self) -> bool:
        assert self._attempt is not None
        return self._attempt.stop()


class RankProcesses:
    """The ranks of a trial's place, from its first trial to its last.

    Args:
        shares: The Ray resources of each, one for each bundle of the placement group.
        setup: Of each.
    """

    def __init__(self, shares: tuple[dict[str, float], ...], setup: WorkerSetup) -> None:
        self._shares = shares
        self._setup = setup
        self._actors: list[Any] = []
        self.facts: list[dict[str, Any]] = []  # who each rank is

    def start(self) -> None:
        """Start all ranks and let them find each other; returns when they have."""
        group = get_current_placement_group()
        for rank, share in enumerate(self._shares):
            more = {name: amount for name, amount in share.items() if name not in ("CPU", "GPU")}
            place = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=rank)
            actor = ray.remote(RankWorker).options(
                num_cpus=share.get("CPU", 0), num_gpus=share.get("GPU", 0), resources=more, scheduling_strategy=place
            )  # fmt: skip
            self._actors.append(actor.remote(rank, self._setup))
        try:
            meeting = ray.get(self._actors[0].meet.remote(len(self._actors)), timeout=_START_S)
            self.facts = ray.get([actor.join.remote(meeting) for actor in self._actors], timeout=_START_S)
        except ray.exceptions.RayError:
            self.end()
            raise

    def end(self) -> None:
        """End all ranks at once, whatever they do. The next trial gets new ones."""
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._actors = []

    def end_if_leaking(self, after: int) -> str | None:
        """End all ranks where one has kept too much of a trial's memory; say which, or return None."""
        if not self._actors:
            return None
        leaks = ray.get([actor.leak.remote(after) for actor in self._actors], timeout=_START_S)
        found = [f"rank {rank}: {leak}" for rank, leak in enumerate(leaks) if leak is not None]
        if found:
            self.end()
        return "; ".join(found) or None

    def begin(self, spec: TrialSpec) -> "GangAttempt":
        """Begin a trial on all ranks."""
        if not self._actors:
            self.start()
        return GangAttempt(spec, self, self._actors)


class GangAttempt:
    """One attempt of a trial on all ranks."""

    def __init__(self, spec: TrialSpec, processes: RankProcesses, actors: list[Any]) -> None:
        self._processes = processes
        self._lead = actors[0]
        self._following = {actor.follow.remote(spec): rank for rank, actor in enumerate(actors) if rank}
        self._lead.begin.remote(spec)  # calls of one caller are taken in order: `take` comes after it
        self._has_ended = False

    @property
    def worker(self) -> dict[str, Any]:
        facts = self._processes.facts
        return {**facts[0], "ranks": facts}

    def take(self) -> list[Report | Outcome]:
        """Return what rank 0 said, or how another rank failed.

        Raises:
            RankLostError: If a rank died; the others are ended too.
        """
        asked = self._lead.take.remote()
        while True:
            ready, _ = ray.wait([asked, *self._following], num_returns=1)
            if ready[0] == asked:
                messages: list[Report | Outcome] = self._answer(asked, 0)
                last = messages[-1]
                if isinstance(last, Outcome):
                    messages[-1] = self._together(last)
                return messages
            failed = self._failed(ready[0])
            if failed is not None:
                self._give_up()
                return [failed]

    def go_on(self) -> None:
        with contextlib.suppress(ray.exceptions.RayActorError):  # `take`, which comes next, tells
            ray.get(self._lead.go_on.remote())

    def stop(self) -> bool:
        """Tell the trial to end and wait until it has on every rank; ranks that do not are ended."""
        if self._has_ended:
            return True
        try:
            is_ended = ray.get(self._lead.stop.remote())
            ray.get(list(self._following), timeout=_JOIN_S)
        except ray.exceptions.RayError:
            is_ended = False
        if not is_ended:
            self._give_up()
        self._has_ended = True
        return True

    def _give_up(self) -> None:
        self._has_ended = True
        self._processes.end()

    def _answer(self, reference: Any, rank: int) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayActorError as error:
            who = self._processes.facts[rank]
            self._give_up()
            raise RankLostError(
                f"rank {rank} (node {who['node']}, pid {who['pid']}) died: {first_line(error)}"
            ) from error

    def _failed(self, reference: Any) -> Outcome | None:
        """Return how another rank than 0 failed; None where it ended as it should."""
        rank = self._following.pop(reference)
        outcome: Outcome = self._answer(reference, rank)
        if outcome.kind is not OutcomeKind.FAILED:
            return None
        return _of_rank(outcome, rank)

    def _together(self, outcome: Outcome) -> Outcome:
        """Return how the attempt ended, rank 0's outcome given: when all have ended, and after what came first."""
        failed = outcome.kind is OutcomeKind.FAILED
        ready, late = ray.wait(
            list(self._following), num_returns=max(1, len(self._following)), timeout=_CAUSE_S if failed else _JOIN_S
        ) if self._following else ([], [])  # fmt: skip
        others = [found for found in map(self._failed, ready) if found is not None]
        if failed or late or others:
            self._give_up()
        self._has_ended = True
        if not failed:
            return outcome
        telling = (FailureCause.OUT_OF_MEMORY, FailureCause.DATA_CHANGED)
        return next((found for found in others if found.cause in telling), outcome)


def _of_rank(outcome: Outcome, rank: int) -> Outcome:
    return dataclasses.replace(outcome, error=f"rank {rank}: {outcome.error}")
