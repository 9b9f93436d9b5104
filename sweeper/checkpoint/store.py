"""What a place for a trial's checkpoints can do."""

from pathlib import Path
from typing import Protocol

from sweeper.channel import LoadedCheckpoint
from sweeper.checkpoint.manifest import Saved
from sweeper.errors import SweeperError


class UnreachedError(SweeperError):
    """An object store did not do what it was asked to. It may a moment later."""


class KeptCheckpoints(Protocol):
    """The checkpoints of one trial, as the driver looks over them.

    `saved` and `remove` raise SweeperError where the place cannot be reached, of an object store `UnreachedError`.
    """

    def saved(self) -> list[Saved]:
        """Return those that look whole, oldest first, without reading all of their files."""

    def remove(self, name: str) -> None:
        """Remove one."""

    def clear(self) -> None:
        """Remove all."""


class Checkpoints(KeptCheckpoints, Protocol):
    """The checkpoints of one trial: written and read by its worker, looked over by the driver."""

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Take over a directory as the checkpoint after `step`; return its name.

        Of the older ones the newest whole one stays. Those that cannot be removed are named and left to the next call.
        """

    def load(self) -> LoadedCheckpoint | None:
        """Return the newest usable one whose files are all there and unchanged, or None.

        What is later than what may be used is removed, whole or not.
        """
