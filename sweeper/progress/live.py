"""The live view of a sweep in a terminal."""

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.config.models import SweepConfig
from sweeper.events import Event, EventKind
from sweeper.progress.guarded import GuardedStream
from sweeper.progress.lines import LOST, decision_text
from sweeper.progress.running import MAX_BAR, MIN_BAR, RunningTrial, running_table
from sweeper.progress.tally import Tally
from sweeper.records import TrialRecord, TrialState, goodness_sign
from sweeper.reporting.formats import clipped, duration, one_line, params_text, plural, short

logger = logging.getLogger(__name__)

REFRESH_PER_SECOND = 4
N_MESSAGES = 6
_RUNNING_KINDS = (EventKind.TRIAL_STARTED, EventKind.REPORTED, EventKind.RUNG, EventKind.DECIDED)
MAX_NAME = 24  # characters


@dataclasses.dataclass(frozen=True)
class _Message:
    text: str
    style: str


@dataclasses.dataclass(frozen=True)
class _Best:
    number: int
    value: float
    params: str


class LiveProgress:
    """A bar for the sweep, one for each running trial, and the newest decisions.

    `on_event` only notes a few values; rich's own thread draws them, at most 4 times a second.
    """

    def __init__(
        self,
        console: Console,
        config: SweepConfig,
        records: Iterable[TrialRecord],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._config = config
        found = list(records)
        self._tally = Tally(config, found)
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._running: dict[int, RunningTrial] = {}
        self._messages: deque[_Message] = deque(maxlen=N_MESSAGES)
        self._best: _Best | None = None
        for record in found:
            self._note_best(record)
        self._has_started = False  # whether any trial has
        # rich would raise in its own thread, and where it puts the terminal back at the sweep's end.
        self._stream = GuardedStream(console.file)
        self._has_warned = False
        console.file = cast(IO[str], self._stream)
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=REFRESH_PER_SECOND)

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._warn_if_gone()

    def _warn_if_gone(self) -> None:
        """Say, once, that the terminal cannot be written to any more. Not from within rich, which holds its locks."""
        if self._stream.error is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(LOST, self._stream.error)

    def on_event(self, event: Event) -> None:
        """Note what an event says. Quick, from any thread."""
        self._warn_if_gone()
        with self._lock:
            self._has_started = self._has_started or event.kind is EventKind.TRIAL_STARTED
            if event.record is not None:
                self._note_trial(event.kind, event.record)
            message = _message(event)
            if message is not None:
                self._messages.append(message)

    def _note_trial(self, kind: EventKind, record: TrialRecord) -> None:
        self._tally.note(record)
        if kind in _RUNNING_KINDS and record.is_training:
            self._running[record.number] = RunningTrial.of(record)
            return
        # Ended, set aside, or waiting for its next attempt.
        self._running.pop(record.number, None)
        self._note_best(record)

    def _note_best(self, record: TrialRecord) -> None:
        if record.value is None or not record.is_compared:
            return
        sign = -goodness_sign(self._config.direction)
        if self._best is None or sign * record.value < sign * self._best.value:
            params = f"{'warm start, ' if record.is_warm_started else ''}{params_text(record.params)}"
            self._best = _Best(record.number, record.value, params)

    def render(self) -> RenderableType:
        """Return the whole view for the console's present size."""
        with self._lock:
            running = sorted(self._running.values(), key=lambda trial: trial.number)
            messages = list(self._messages)
            best, overall = self._best, self._overall()
        parts: list[RenderableType] = [overall]
        if best is not None:
            text = f"best so far: trial {best.number}, {one_line(self._config.metric)} = {short(best.value)}"
            parts.append(_line(f"{text} ({best.params})", "green"))
        told = [_folded(message, self._console.width) for message in messages]
        names = list(self._config.search_space)
        # The sweep, the best, the header, and the note on trials that are not shown.
        taken = 3 + max(4, len(names)) + sum(n_lines for _, n_lines in told)
        room = max(1, self._console.height - taken)
        if not running:
            words = "no trial is running" if self._has_started else "the workers are starting"
            parts.append(_line(words, "dim"))
        else:
            parts.append(running_table(running[:room], names, self._console.width))
        if len(running) > room:
            parts.append(_line(f"and {plural(len(running) - room, 'more running trial')}", "dim"))
        parts += [text for text, _ in told]
        return Group(*parts)

    def _overall(self) -> RenderableType:
        tally = self._tally
        words = f"{tally.n_ended}/{tally.n_trials} trials"
        if tally.counts[TrialState.PRUNED]:
            words += f", {tally.counts[TrialState.PRUNED]} pruned"
        if tally.counts[TrialState.FAIL]:
            words += f", {tally.counts[TrialState.FAIL]} failed"
        times = self._times()
        name = clipped(self._config.study, MAX_NAME)
        room = self._console.width - sum(len(text) + 1 for text in (name, words, times))
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(width=max(MIN_BAR, min(MAX_BAR, room - 1)))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        bar = ProgressBar(total=max(1, tally.n_trials), completed=tally.done)
        grid.add_row(Text(name, style="bold"), bar, words, times)
        return grid

    def _times(self) -> str:
        elapsed = self._clock() - self._started
        left = self._tally.left_s(elapsed)
        return duration(elapsed) if left is None else f"{duration(elapsed)}, about {duration(left)} left"


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _folded(message: _Message, width: int) -> tuple[Text, int]:
    """Return a message cut to two lines, and how many it takes."""
    text = clipped(message.text, 2 * width - width // 8)  # words do not fill the first line
    return Text(text, style=message.style), 1 if len(text) <= width else 2


def _message(event: Event) -> _Message | None:
    """Return the line to keep on screen for an event, if it is one that explains something."""
    if event.kind is EventKind.DECIDED and event.decision is not None:
        style = "yellow" if event.decision.stop else "" if event.decision.aside else "dim"
        return _Message(f"trial {event.decision.trial} {decision_text(event.decision)}", style)
    if event.kind is EventKind.TRIAL_ENDED and event.record and event.record.state is TrialState.FAIL:
        return _Message(f"trial {event.record.number} failed: {one_line(event.record.reason or '')}", "red")
    if event.kind is EventKind.TRIAL_RETRIED and event.record:
        return _Message(f"trial {event.record.number} {one_line(event.message)}", "yellow")
    if event.kind is EventKind.NOTE:
        return _Message(one_line(event.message), "cyan")
    return None
