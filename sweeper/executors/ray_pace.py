"""How long Tune may take up trials at a time before it acts on anything else. Pure."""

import contextlib
import time
from collections.abc import Callable, Iterator

_TAKE_S = 0.2
# As long as Tune waits for something to happen where nothing does. It acts on one thing a step, in some 5 ms, so
# several trials begin meanwhile; after one step the trials would be taken up faster than any of them begins.
_REST_S = 0.1


class Pace:
    """Says when Tune is to be given no further trial for a moment.

    In one step Tune takes as many trials as it is given, and only after the last of them does it ask for a process for
    the first (ray 2.60). One that was cut off is taken up in some 0.1 s, for its curve and its checkpoints: 500 of
    them would hold back all GPUs for a minute, and what the workers say besides. Of workers without a trial Tune keeps
    one (ray 2.60), so that there is no rest where slots have just become free.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._took_s = 0.0  # since it last rested
        self._took_at = 0.0

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Count the time of the block as that of taking up a trial."""
        since = self._clock()
        try:
            yield
        finally:
            self._took_at = self._clock()
            self._took_s += self._took_at - since

    def go_on(self) -> None:
        """Rest no more: a slot is free whose worker Tune would end if it got no trial with the next step."""
        self._took_s = 0.0

    @property
    def rests(self) -> bool:
        """Whether enough was taken up for now."""
        if self._took_s >= _TAKE_S and self._clock() - self._took_at >= _REST_S:
            self._took_s = 0.0
        return self._took_s >= _TAKE_S
