"""What a tracker is told, and what it must do."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from sweeper.records import TrialRecord, TrialState

BY_SAMPLES = (
    "by_samples/"  # prefix of a signal whose horizontal axis is samples, where a tracker knows only steps
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One trial as it stood when something happened: a copy, since records change."""

    number: int
    state: TrialState
    params: Mapping[str, Any]
    step: int
    samples: int
    reason: str | None
    value: float | None  # of a COMPLETE trial
    metrics: Mapping[str, float]  # final ones, of a COMPLETE trial

    @classmethod
    def of(cls, record: TrialRecord) -> Self:
        is_complete = record.state is TrialState.COMPLETE
        return cls(
            number=record.number,
            state=record.state,
            params=dict(record.params),
            step=record.step,
            samples=record.samples,
            reason=record.reason,
            value=record.value if is_complete else None,
            metrics=dict(record.metrics) if is_complete else {},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Values of a trial's signals after a step. NaN stays NaN."""

    step: int
    samples: int
    values: Mapping[str, float]


class Tracker(Protocol):
    """One tracker. Called from a single thread; may raise anything, and is then closed and left alone."""

    def start(self, run: Run) -> bool:
        """Open a trial's run; return whether it was there, with all that was logged to it.

        Called again for each attempt; a run that exists is gone on with.
        """

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Record signals, in the order of their steps."""

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """Record a decision, or how the trial ended; a tag that is there is replaced."""

    def end(self, run: Run) -> None:
        """Close the run."""

    def close(self) -> None:
        """Close all that is open. Called once, also after one of the others has raised."""
