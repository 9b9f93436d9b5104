"""What a person sees while a sweep runs: a live view in a terminal, lines in a pipe, and the event log."""

from typing import TextIO

from rich.console import Console

from sweeper.config.models import SweepConfig
from sweeper.progress.lines import EventLog, PlainProgress
from sweeper.progress.live import LiveProgress


def progress_for(
    stream: TextIO, config: SweepConfig, n_trials: int, *, n_ended: int = 0
) -> LiveProgress | PlainProgress:
    """Return the live view where `stream` is a terminal, else one line per event. Both are context managers.

    Args:
        n_trials: All trials of the study.
        n_ended: How many of them had ended before this sweep, where it goes on with a study.
    """
    console = Console(file=stream)
    if stream.isatty() and not console.is_dumb_terminal:
        return LiveProgress(console, config, n_trials, n_ended=n_ended)
    return PlainProgress(stream, metric=config.metric)


__all__ = ["EventLog", "LiveProgress", "PlainProgress", "progress_for"]
