"""A trial that waits for its place on a busy cluster, told in words: Ray waits without any (2.60)."""

import time
from collections.abc import Callable, Mapping

import ray
from ray.util import placement_group_table

from sweeper.events import EventKind
from sweeper.orchestrator import Orchestrator
from sweeper.room import workers_in_words

_PATIENCE_S = 5.0  # how long a trial may start without a word
_AGAIN_S = 60.0  # between two words


class Waiting:
    """Tells what trials wait for.

    Args:
        orchestrator: Whose listeners are told.
        share: What each worker of a trial gets.
        n_workers: Of a trial.
        clock: Seconds.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        share: Mapping[str, float],
        n_workers: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orchestrator = orchestrator
        self._share = share
        self._n_workers = n_workers
        self._clock = clock
        self._look_at: float | None = None
        self._has_told = False

    def look(self, n_starting: int) -> None:
        """Look whether trials that were given out have no place yet. To be called all the time."""
        now = self._clock()
        if n_starting == 0:
            if self._has_told:
                self._orchestrator.tell(EventKind.NOTE, "the cluster has room again: trials start")
            self._look_at, self._has_told = None, False
        elif self._look_at is None:
            self._look_at = now + _PATIENCE_S
        elif now >= self._look_at:
            self._look_at = now + (_AGAIN_S if self._tell() else _PATIENCE_S)

    def _tell(self) -> bool:
        """Say what is waited for; return whether anything is, or the workers have a place and only start."""
        n_pending = sum(group["state"] == "PENDING" for group in placement_group_table().values())
        if not n_pending:
            return False
        total, free = ray.cluster_resources(), ray.available_resources()
        state = ", ".join(
            f"{free.get(name, 0.0):g} of {total.get(name, 0.0):g} {name}"
            for name, amount in self._share.items()
            if amount > 0
        )
        self._has_told = True
        self._orchestrator.tell(
            EventKind.NOTE,
            f"waiting for the cluster: the next trial needs {workers_in_words(self._share, self._n_workers)}; free "
            f"now: {state}. `ray status` shows who has the rest",
        )
        return True
