"""Signals that end a sweep: the first cleanly, a second Ctrl-C or the end of the grace time at once."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from sweeper.orchestrator import Orchestrator

# Ctrl-C; `kill`, Kubernetes and Slurm; what Slurm sends ahead of a time limit with `--signal=USR1@120`; and a terminal
# that goes away, as with an ssh connection.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_ONE_PRESS_S = (
    0.3  # within which two SIGINT are one: `timeout -s INT` sends it to the process and to its group
)


class SweepSignal(KeyboardInterrupt):
    """A signal that ends the process. Python exits with its own code for a plain KeyboardInterrupt that it has seen."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise SweepSignal


@contextlib.contextmanager
def signals_end_this_process() -> Iterator[None]:
    """Let every one of `SIGNALS` raise KeyboardInterrupt while the block runs, so that what is held is handed back."""
    with _handling(_raise):
        yield


@contextlib.contextmanager
def interrupt_on_signals(orchestrator: Orchestrator, *, grace_s: float) -> Iterator[None]:
    """Turn the first signal of this process into `orchestrator.interrupt()` while the block runs.

    A second Ctrl-C, or the end of the grace time, raises KeyboardInterrupt in the main thread. Further signals of
    other kinds change nothing: Slurm sends several, `timeout` each one twice.

    Args:
        orchestrator: What is told.
        grace_s: Seconds from the first signal until running trials are waited for no more.
    """
    interrupt = _Interrupt(orchestrator, grace_s)
    with _handling(interrupt.on_signal):
        try:
            yield
        finally:
            interrupt.end()


def take_signals_back() -> None:
    """Let signals do what Python was told, after Ray was started in another thread. Does nothing in such a one.

    Ray makes SIGTERM end the process by an abort 3 s later, and only the main thread can put that right (ray 2.60).
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None:  # None: not Python's
                signal.signal(number, handler)


class _Interrupt:
    def __init__(self, orchestrator: Orchestrator, grace_s: float) -> None:
        self._orchestrator = orchestrator
        self._timer = threading.Timer(grace_s, self._end_grace)
        self._timer.daemon = True
        self._first_at: float | None = None
        self._is_over = False  # the grace time

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self._orchestrator.interrupt()
            self._timer.start()
        elif self._is_over or (number == signal.SIGINT and now - self._first_at > _ONE_PRESS_S):
            _raise(number, frame)

    def end(self) -> None:
        self._timer.cancel()

    def _end_grace(self) -> None:
        self._is_over = True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)  # wakes it from whatever it waits in


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle `SIGNALS` while the block runs. Elsewhere than in the main thread Python cannot, and nothing is done.

    Under `nohup` a terminal that goes away is nothing to this process, and stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:
        del previous[signal.SIGHUP]
    for number in previous:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
