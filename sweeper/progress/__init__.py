"""What a person sees while a sweep runs: a live view in a terminal, lines in a pipe, and the event log."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console

from sweeper.config.models import SweepConfig
from sweeper.progress.lines import EventLog, PlainProgress
from sweeper.progress.live import LiveProgress
from sweeper.records import TrialRecord


def progress_for(
    stream: TextIO, config: SweepConfig, records: Iterable[TrialRecord]
) -> LiveProgress | PlainProgress:
    """Return the live view where `stream` is a terminal, else one line per event. Both are context managers.

    Args:
        stream: Where it is shown.
        config: The study's.
        records: The study's trials as they stand before the sweep.
    """
    console = Console(file=stream)
    if stream.isatty() and not console.is_dumb_terminal:
        return LiveProgress(console, config, records)
    return PlainProgress(stream, metric=config.metric)


__all__ = ["EventLog", "LiveProgress", "PlainProgress", "progress_for"]
