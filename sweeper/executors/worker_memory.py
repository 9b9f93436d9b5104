"""Whether a worker gives its memory back between trials, and whether the GPU that it was given is free."""

import ctypes
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import psutil

from sweeper.errors import SweeperError, first_line
from sweeper.records import HOST
from sweeper.training.memory import device_name, free_memory, unusable_gpu

logger = logging.getLogger(__name__)

_IDLE_GPU_BYTES = 2_000_000_000  # what this process's own context, the driver and a screen hold
_ENOUGH = (
    0.75  # of a GPU's memory, which is worth training on: a desktop with a browser holds 3 of 24 GB for good
)
_GPU_FREE_S = 60.0
_GPU_POLL_S = 0.5
_Read = Callable[[], tuple[int, int] | None]


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


def lost_gpu(after: int) -> str | None:
    """Return that the GPU of this process answers no more, a sentence; None where it does, or there is none.

    An error inside a kernel stays: every later call fails, so no trial could be trained here any more.

    Args:
        after: The number of the trial before.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return f"process {os.getpid()} is replaced: after trial {after} its GPU answers no more: {first_line(error)}"
    return None


def take_gpu(n_gpus: float, *, is_built_in: bool) -> None:
    """Make sure that a new worker can train on the GPU that it was given, and wait until that one is free.

    Args:
        n_gpus: That it was given.
        is_built_in: Whether it is to run the built-in fine-tuning, which needs torch to see the GPU; a function may use
            it otherwise.

    Raises:
        SweeperError: If torch cannot use it, or others go on holding some of it.
    """
    if n_gpus == 0:
        return
    why = unusable_gpu()
    if why is not None and is_built_in:
        raise SweeperError(why)
    wait_for_free_gpu(n_gpus)


def wait_for_free_gpu(
    n_gpus: float,
    *,
    read: _Read | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the GPU that a new worker was given whole is free: the one before it may still be ending.

    Args:
        n_gpus: That it was given; a part of one is shared with others, and nothing is looked at.
        read: Returns free and total bytes of this process's GPU; None where nothing can tell.
        wait: Sleeps.

    Raises:
        SweeperError: If others go on holding more than a quarter of it; of less a warning tells.
    """
    if n_gpus < 1:
        return
    read = read or _gpu_memory()
    waited_s = 0.0
    while (found := read()) is not None:
        free, total = found
        if total - free <= _IDLE_GPU_BYTES:
            return
        if waited_s >= _GPU_FREE_S:
            if free >= _ENOUGH * total:
                logger.warning(
                    "%.1f of the %.1f GB of this worker's GPU are held by other processes, for example a desktop; "
                    "trials get the rest.", (total - free) / 1e9, total / 1e9,
                )  # fmt: skip
                return
            raise SweeperError(
                f"The GPU of this worker is not free: {(total - free) / 1e9:.1f} of its {total / 1e9:.1f} GB are held "
                "by other processes (`nvidia-smi` lists them). End them, or share GPUs by `resources.gpus_per_trial` "
                "below 1."
            )
        wait(_GPU_POLL_S)
        waited_s += _GPU_POLL_S


def _gpu_memory() -> _Read:
    """Return what tells free and total bytes.

    Where torch is not loaded, which most functions of users do by themselves or not at all, NVIDIA's own program tells:
    torch would take seconds, and half a GB of the GPU that a function without torch has no use for.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        read: _Read = torch.cuda.mem_get_info
        return read
    return asked_of_driver


def asked_of_driver() -> tuple[int, int] | None:
    """Return free and total bytes of the first GPU that this process may use; None where they cannot be had."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if not first:
        return None
    words = [
        "nvidia-smi",
        f"--id={first}",
        "--query-gpu=memory.free,memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=_GPU_FREE_S, check=True).stdout
        free, total = (int(part) << 20 for part in said.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # there is no such program, it knows no such GPU, or it cannot tell of a part of one
    return free, total


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
