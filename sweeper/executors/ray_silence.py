"""A trial that says nothing for long, told in words: it may evaluate, or hang."""

import time
from collections.abc import Callable, Iterable

from sweeper.events import EventKind
from sweeper.orchestrator import Orchestrator

_LONG_S = 600.0  # without a word: longer than a step or an evaluation should take
_LOOK_S = 5.0


class Silence:
    """Tells which trials have not been heard of for 10 minutes; again after 20, 40 and so on.

    Args:
        orchestrator: Whose listeners are told.
        clock: Seconds.
    """

    def __init__(self, orchestrator: Orchestrator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._orchestrator = orchestrator
        self._clock = clock
        self._look_at = 0.0
        self._heard_at: dict[int, float] = {}
        self._tell_after_s: dict[int, float] = {}

    def heard(self, number: int) -> None:
        """Take note that a trial has said something."""
        self._heard_at[number] = self._clock()
        self._tell_after_s.pop(number, None)

    def look(self, training: Iterable[int]) -> None:
        """Look who of the trials that have their worker is silent. To be called all the time."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        there = set(training)
        self._heard_at = {n: at for n, at in self._heard_at.items() if n in there}
        self._tell_after_s = {n: after for n, after in self._tell_after_s.items() if n in there}
        for number in sorted(there):
            silent_s = now - self._heard_at.setdefault(number, now)
            after_s = self._tell_after_s.get(number, _LONG_S)
            if silent_s >= after_s:
                self._tell_after_s[number] = 2 * after_s
                self._tell(number, silent_s)

    def _tell(self, number: int, silent_s: float) -> None:
        worker = self._orchestrator.records[number].worker or {}
        where = f" (node {worker['node']}, process {worker['pid']})" if worker else ""
        self._orchestrator.tell(
            EventKind.NOTE,
            f"trial {number} has said nothing for {silent_s / 60:.0f} minutes{where}: it may evaluate, or hang; "
            f"`sweeper stop STUDY --trial {number}` ends it",
        )
