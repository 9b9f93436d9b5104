"""Slots that rest after a worker did not come to train: the next one would probably meet the same. Pure."""

import time
from collections.abc import Callable

_FIRST_S, _LONGEST_S = 30.0, 900.0


class RestingSlots:
    """Counts how many slots are to stay free for now.

    A GPU that somebody else holds, or a node that lacks something, fails every worker at once or after a minute, and
    Ray gives the same place out again. So each such failure lets one slot rest: for half a minute, and twice as long
    each time until a new worker has come to train.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: list[float] = []
        self._next_s = _FIRST_S

    @property
    def count(self) -> int:
        """How many slots rest now."""
        now = self._clock()
        self._until = [until for until in self._until if until > now]
        return len(self._until)

    def rest(self) -> None:
        """Let one more slot rest."""
        self._until.append(self._clock() + self._next_s)
        self._next_s = min(2 * self._next_s, _LONGEST_S)

    def wake(self) -> None:
        """Take note that a new worker has come to train: the cause may be gone."""
        self._next_s = _FIRST_S
