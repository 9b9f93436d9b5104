"""Events as lines of text: for a pipe, and for the study's event log."""

import datetime
import logging
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from sweeper.events import Event, EventKind
from sweeper.records import Decision, RungRecord, TrialRecord, TrialState
from sweeper.reporting.formats import one_line, params_text, plural, short, verb
from sweeper.study.clock import wall_clock

logger = logging.getLogger(__name__)

LOST = "Progress can no longer be shown: %s. The sweep goes on."


def event_line(event: Event, *, metric: str = "") -> str | None:
    """Return what an event says in one line, or None for REPORTED, of which there are too many.

    `metric` names a complete trial's value.
    """
    record = event.record
    match event.kind:
        case EventKind.REPORTED:
            return None
        case EventKind.TRIAL_STARTED if record:
            return f"{trial_text(record)}: {_start_text(record)}"
        case EventKind.RUNG if record and event.rung:
            return f"{trial_text(record)}: {_rung_text(event.rung)}"
        case EventKind.DECIDED if event.decision:
            who = trial_text(record) if record else f"trial {event.decision.trial}"
            return f"{who}: {decision_text(event.decision)}"
        case EventKind.TRIAL_ENDED if record:
            return f"{trial_text(record)}: {_end_text(record, metric)}"
        case EventKind.TRIAL_RETRIED if record:
            return f"{trial_text(record)}: {one_line(event.message) or 'is tried again'}"
        case _:
            return one_line(event.message) or event.kind.value.replace("_", " ")


def trial_text(record: TrialRecord) -> str:
    """Return a trial with its params: `trial 7 effective_batch_size=32 learning_rate=3e-4`."""
    return f"trial {record.number} {params_text(record.params)}".rstrip()


def decision_text(decision: Decision) -> str:
    """Return a judgement: `pruned at rung 1 (615 samples): loss 2.31 ranks 5 of 6`."""
    words = verb(decision.entry())
    if decision.rung is not None:
        words += f" at rung {decision.rung}"
    if decision.samples is not None:
        words += f" ({plural(decision.samples, 'sample')})"
    return f"{words}: {one_line(decision.reason)}"


def _start_text(record: TrialRecord) -> str:
    text = "started"
    if record.attempts > 1:
        text += f", attempt {record.attempts}"
    if record.samples:
        text += f", going on from {plural(record.samples, 'sample')}"
    return text


def _rung_text(rung: RungRecord) -> str:
    signals = ", ".join(f"{one_line(name)} {short(value)}" for name, value in rung.signals.items())
    return f"reached rung {rung.rung} ({plural(rung.samples, 'sample')}): {signals or 'no signals'}"


def _end_text(record: TrialRecord, metric: str) -> str:
    spent = f"{plural(record.samples, 'sample')}, {plural(record.step, 'step')}"
    if record.state is TrialState.COMPLETE:
        value = "no value" if record.value is None else short(record.value)
        return f"COMPLETE: {one_line(metric) or 'value'} = {value} ({spent})"
    # The reason of a PRUNED trial was told by the decision, one line above.
    reason = f": {one_line(record.reason)}" if record.state is TrialState.FAIL and record.reason else ""
    return f"{record.state.value} after {spent}{reason}"


class PlainProgress:
    """One line per event, with the sweep's seconds, for pipes and log files."""

    def __init__(self, stream: TextIO, *, metric: str = "") -> None:
        self._stream: TextIO | None = stream
        self._metric = metric

    def on_event(self, event: Event) -> None:
        """Write the event's line. A stream that cannot be written to is left alone from then on."""
        line = event_line(event, metric=self._metric)
        if line is None or self._stream is None:
            return
        try:
            self._stream.write(f"[{event.at_s:6.1f} s] {line}\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            # ValueError: the stream was closed. The sweep is worth more than its lines, so it goes on.
            self._stream = None
            logger.warning(LOST, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to put back: the stream is the caller's."""


class EventLog:
    """Appends decisions with their reasons, starts, ends and notes to a study's events.log, a line each.

    Args:
        path: The file.
        metric: Names a complete trial's value.
        now: The time.
        is_lost: Whether another driver has taken the study over; the log is then that one's.
    """

    KINDS = frozenset(EventKind) - {EventKind.REPORTED, EventKind.RUNG}

    def __init__(
        self, path: Path, *, metric: str = "", now: Callable[[], datetime.datetime] = wall_clock,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._path = path
        self._is_lost = is_lost
        self._metric = metric
        self._now = now
        self._is_broken = False
        self._file: FileIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what could not be written would be tried again when the file is closed, and fail there.
            self._file = path.open("ab+", buffering=0)
            self._end_torn_line(self._file)
        except OSError as error:
            self._give_up(error)

    @staticmethod
    def _end_torn_line(file: FileIO) -> None:
        """Give a line that a killed driver left unfinished its end, so that the next one stands alone."""
        size = file.seek(0, 2)
        if not size:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")

    def on_event(self, event: Event) -> None:
        """Append the event's line. When the disk refuses, say so once and let the sweep go on."""
        if event.kind not in self.KINDS or self._is_broken or self._file is None or self._is_lost():
            return
        line = event_line(event, metric=self._metric)
        rule = f" [{one_line(event.decision.rule)}]" if event.decision else ""
        stamp = self._now().isoformat(timespec="milliseconds")
        left = f"{stamp} {event.kind.value}{rule} {line}\n".encode()
        try:
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
        except (OSError, ValueError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file; later events are not written. Never raises: the sweep may end for a reason of its own."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._give_up(error)
        self._is_broken = True

    def _give_up(self, error: Exception) -> None:
        if not self._is_broken:
            logger.warning(
                "%s can no longer be written: %s. The study has every decision.", self._path, error
            )
        self._is_broken = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
