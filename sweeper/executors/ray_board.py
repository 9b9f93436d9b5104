"""What running trials are told between their reports."""

import asyncio
import contextlib
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.executors.ray_attempt import StopWord

_STOP_POLL_S = (
    20.0  # how long one question to the board stays open; it is answered at once when the flag is set
)


def make_board() -> Any:
    """Start the board that all workers read, on the driver's own node.

    On another node it would go with that node, and every worker that looked at it would fail from then on.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": here}
    return ray.remote(**options)(StopBoard).remote()


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
