"""`sweeper status --watch`: the study again and again until it ends."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from sweeper.cli_words import console

_WATCH_S = 1.0  # between two looks


def watch(study: str, storage: str | None, *, as_json: bool) -> None:
    """Print the status again and again until the study ends; in a pipe, whenever it changes."""
    from rich.live import Live

    from sweeper.reporting.status import status_json
    from sweeper.reporting.watch import WatchView

    terminal = console()
    if as_json:
        _print_changes(study, storage, lambda view: json.dumps(status_json(view)))
    elif not terminal.is_terminal:
        _print_changes(study, storage, _counts_line)
    else:
        with Live(console=terminal, refresh_per_second=4) as live:
            for view in _views(study, storage):
                live.update(WatchView(view))


def _print_changes(study: str, storage: str | None, line_of: Callable[[Any], str]) -> None:
    last = ""
    for view in _views(study, storage):
        if (line := line_of(view)) != last:
            print(line, flush=True)
            last = line


def _counts_line(view: Any) -> str:
    from sweeper.records import TrialState

    return f"{view.state}: " + ", ".join(f"{view.count(state)} {state.value}" for state in TrialState)


def _views(study: str, storage: str | None) -> Iterator[Any]:
    """Yield the study as it stands, every second; the last one no longer runs.

    One handle is kept open, so a look costs what was written since the last one.
    """
    from sweeper.study.study import Study

    opened = Study.open(study, url=storage)
    while True:
        view = opened.view()
        yield view
        if view.state != "running":
            return
        time.sleep(_WATCH_S)
