"""`sweeper status --watch`: the study again and again until it ends."""

import dataclasses
import functools
import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sweeper.cli_words import console
from sweeper.errors import InterruptedSweepError

_WATCH_S = 1.0  # between two looks, at least
# Times as long as a look took, with what is shown of it, until the next one: whoever watches takes a sixth of a core at
# most, however large the study. Several people watch one, often on the machine of its driver or its database.
_REST = 5


def watch(study: str, storage: str | None, *, as_json: bool) -> None:
    """Print the status again and again until the study ends; in a pipe, whenever it changes.

    Raises:
        InterruptedSweepError: If it ended before everything was trained.
    """
    from sweeper.reporting.status import status_json

    terminal, view = console(), None
    if as_json:
        view = _print_changes(study, storage, lambda view: json.dumps(status_json(view)))
    elif not terminal.is_terminal:
        view = _print_changes(study, storage, _counts_line)
    else:
        view = _draw(terminal, _views(study, storage))
    if view is not None and view.state == "interrupted":
        place = shlex.quote(str(view.directory))
        raise InterruptedSweepError(
            f"Study `{view.name}` is interrupted, and nobody drives it. Go on with: sweeper resume {place}"
        )


def _draw(terminal: Any, views: Iterable[Any]) -> Any:
    """Draw each view over the one before, once; return the last one."""
    from rich.live import Live

    from sweeper.reporting.watch import WatchView

    view = None
    with Live(console=terminal, auto_refresh=False) as live:
        for view in views:
            live.update(WatchView(view), refresh=True)
    return view


def _print_changes(study: str, storage: str | None, line_of: Callable[[Any], str]) -> Any:
    """Print a line for every view that has another one, a beat of the driver apart; return the last view."""
    from sweeper.reporting.driver import without_beat

    last, view = "", None
    for view in _views(study, storage):
        if (shown := line_of(without_beat(view))) != last:
            print(line_of(view), flush=True)
            last = shown
    return view


def _counts_line(view: Any) -> str:
    from sweeper.records import TrialState
    from sweeper.reporting.status import state_text

    return f"{state_text(view)}: " + ", ".join(f"{view.count(state)} {state.value}" for state in TrialState)


def _views(
    study: str,
    storage: str | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Any]:
    """Yield the study as it stands, every second or less often; the last one no longer runs.

    One handle is kept open, so a look costs what was written since the last one; of the curves too. A driver on another
    machine whose lease has stood still for as long as others wait before they take over counts as interrupted, and
    that is said.
    """
    from sweeper.reporting.watch import MAX_RUNNING
    from sweeper.study.holder import Holder
    from sweeper.study.lease import LeaseTimes, Pulse
    from sweeper.study.study import Study

    opened = Study.open(study, url=storage)
    frame_of = functools.lru_cache(maxsize=MAX_RUNNING)(lambda number, stamp: opened.curves.frame(number))
    expiry_s = LeaseTimes().expiry_s
    pulse = Pulse(longest_gap_s=expiry_s / 2, clock=clock)
    while True:
        since = clock()
        view, lease = opened.view(), opened.lease()
        view = dataclasses.replace(view, curve=lambda number: frame_of(number, opened.curves.stamp(number)))
        holder = Holder.read(lease)
        is_here = holder is not None and holder.is_here
        if view.state == "running" and pulse.still_s(lease) >= expiry_s and not is_here:
            yield dataclasses.replace(view, state="interrupted", driver=None)
            raise InterruptedSweepError(
                f"The driver, process {lease.get('pid')} on {lease.get('host')}, has not stirred for {expiry_s:.0f} s: "
                "its machine has probably stopped, or lost the storage. `sweeper resume` goes on once it is gone."
            )
        yield view
        if view.state != "running":
            return
        sleep(min(max(_WATCH_S, _REST * (clock() - since)), expiry_s / 4))
