"""The ways between a trial and whoever runs it: what it reports, when it is to end, and what it can go on from."""

import dataclasses
from pathlib import Path
from typing import Protocol

from sweeper.records import Report


class TrialStopped(Exception):  # noqa: N818 - control flow, not an error; the name is part of the surface
    """Raised by `report` when the trial is to end. Let it through."""


class Channel(Protocol):
    """The way from a trial to whoever runs it."""

    def send(self, report: Report, *, wait: bool) -> None:
        """Hand over one window; with `wait`, block until it was judged or the trial was told to stop.

        A trial that is to save before it ends is told by `should_pause`.

        Raises:
            TrialStopped: If the trial was told to stop; not where several workers train it, who hear of that together.
        """

    def should_stop(self) -> bool:
        """Whether the trial was told to stop since. Cheap; polled at every step boundary."""

    def should_pause(self) -> bool:
        """Whether the sweep is being interrupted: the trial is to save a checkpoint and end. As cheap."""


class CheckpointStore(Protocol):
    """Where a trial keeps what it can go on from. Whole or absent, never half."""

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Take over a directory as the checkpoint after `step`; return its name."""

    def load(self) -> "LoadedCheckpoint | None":
        """Return the newest good checkpoint, or None where the trial starts from scratch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A checkpoint that was verified, on local disk."""

    path: Path
    step: int
    samples: int
