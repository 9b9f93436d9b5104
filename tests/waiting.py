"""Waits for what another process or thread brings about, without a sleep that is long enough for all machines."""

import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any


def wait_for(
    what: str,
    look: Callable[[], Any],
    *,
    timeout_s: float = 120.0,
    every_s: float = 0.05,
    process: Popen[Any] | None = None,
    log: Path | None = None,
) -> Any:
    """Look until there is something; what was seen is returned.

    Args:
        what: Named where it does not come.
        look: Asked until what it returns is true.
        timeout_s: How long to wait.
        every_s: How long between two looks.
        process: Who brings it about: waiting is over when this has ended.
        log: What is shown where it does not come.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        # Asked first: what is waited for may have come as the process ended.
        has_ended = process is not None and process.poll() is not None
        seen = look()
        if seen:
            return seen
        if has_ended or time.monotonic() > deadline:
            when = "before its process ended" if has_ended else f"within {timeout_s:g} s"
            written = "" if log is None else f":\n{log.read_text()}"
            raise AssertionError(f"{what} did not come {when}{written}")
        time.sleep(every_s)
