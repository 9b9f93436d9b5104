"""A stream for writers that would not know what to do once it is gone."""

from collections.abc import Callable
from typing import IO, Any


class GuardedStream:
    """Writes to a stream until that fails, and then no more: a terminal may go away before the sweep ends.

    Whatever else is asked of it, the stream itself answers.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error: Exception | None = None  # why nothing is written any more

    def write(self, text: str) -> int:
        """Write, as far as that still goes; return how many characters were given."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, as far as that still goes."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], object]) -> None:
        if self.error is None:
            try:
                act()
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
