"""Whether a worker process gives its memory back between trials."""

import ctypes
import os
import sys
from collections.abc import Callable, Mapping

import psutil

from sweeper.records import HOST
from sweeper.training.memory import device_name, free_memory


class WorkerMemory:
    """Measures what a process holds between trials, and says when it holds too much more than after its first one.

    Args:
        may_grow_gb: How much more is no leak: allocators keep some of what they once had.
        held: Measures; by device, in bytes.
        free: Gives back what can be given back.
    """

    def __init__(
        self,
        may_grow_gb: float,
        *,
        held: Callable[[], Mapping[str, int]] | None = None,
        free: Callable[[], None] | None = None,
    ) -> None:
        self._may_grow = int(may_grow_gb * 1e9)
        self._held = held or held_bytes
        self._free = free or give_back
        self._first: dict[str, int] | None = None

    def leak(self, after: int) -> str | None:
        """Measure after a trial; return what is wrong, a sentence, or None.

        Args:
            after: The number of that trial.
        """
        held = dict(self._held())
        if self._first is None:
            self._first = held
            return None
        if self._grown(held):
            self._free()
            held = dict(self._held())
        grown = self._grown(held)
        if not grown:
            return None
        each = ", ".join(
            f"{held[name] / 1e9:.1f} GB on {'the host' if name == HOST else name} (after its first trial "
            f"{self._first.get(name, 0) / 1e9:.1f})"
            for name in grown
        )
        return f"process {os.getpid()} leaks memory and is replaced: after trial {after} it holds {each}"

    def _grown(self, held: Mapping[str, int]) -> list[str]:
        assert self._first is not None
        return [name for name, size in held.items() if size - self._first.get(name, 0) > self._may_grow]


def held_bytes() -> dict[str, int]:
    """Return the memory that this process holds: on the host, without files that it has mapped, and on its GPU."""
    memory = psutil.Process().memory_info()
    held = {HOST: memory.rss - getattr(memory, "shared", 0)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        held[device_name()] = torch.cuda.memory_reserved()
    return held


def give_back() -> None:
    """Give back all that nobody uses any more."""
    free_memory()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
