"""Ctrl-C and SIGTERM: the first asks for a clean stop, the second ends the process."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from sweeper.orchestrator import Orchestrator


@contextlib.contextmanager
def interrupt_on_signals(orchestrator: Orchestrator) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM of this process into `orchestrator.interrupt()` while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: object) -> None:
        orchestrator.interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
