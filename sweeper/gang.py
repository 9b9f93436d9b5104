"""What the workers of one trial agree on: who they are, when they stop, and when they save. Pure: knows no torch.

Each worker (rank) runs the same code on data of its own. Only rank 0 speaks with whoever runs the trial; what it hears
reaches all ranks at the same step boundary, since a rank that stopped alone would leave the others waiting for ever.
"""

from pathlib import Path
from typing import Any, Protocol

from sweeper.channel import Channel, CheckpointStore, LoadedCheckpoint, TrialStopped
from sweeper.errors import ConfigError
from sweeper.records import Report


class Ranks(Protocol):
    """The workers of one trial, as one of them sees them. Every method is called by all of them, or hangs."""

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    def total(self, values: list[int]) -> list[int]:
        """Return the sums over all ranks, place by place."""

    def of_first(self, value: Any) -> Any:
        """Return rank 0's value, whatever the others gave."""

    def gathered(self, value: Any) -> list[Any] | None:
        """Return all values by rank on rank 0, None elsewhere."""


class Gang:
    """A trial's channel where several workers train it.

    Args:
        ranks: The workers.
        channel: Rank 0's way to whoever runs the trial; unused on the others.
    """

    def __init__(self, ranks: Ranks, channel: Channel) -> None:
        self.ranks = ranks
        self._channel = channel
        self._stops = False  # this rank is to end at the next boundary; only rank 0's word counts there
        self._has_stopped = False  # agreed on, as is the next
        self._pauses = False

    @property
    def leads(self) -> bool:
        """Whether this is the rank that reports and saves."""
        return self.ranks.rank == 0

    def send(self, report: Report, *, wait: bool) -> None:
        """Hand over a window on rank 0, waiting for its judgement; the others wait at the next `agree`."""
        if not self.leads:
            return
        try:
            self._channel.send(report, wait=wait)
        except TrialStopped:
            self._stops = True

    def stop(self) -> None:
        """Let all ranks end at the next boundary, if this is rank 0."""
        self._stops = True

    def should_stop(self) -> bool:
        """Whether all ranks have agreed to end."""
        return self._has_stopped

    def should_pause(self) -> bool:
        """Whether all ranks have agreed to save a checkpoint and end."""
        return self._pauses

    def agree(self, count: int = 0) -> int:
        """Let all ranks come to the same step boundary; return the sum of their counts.

        Raises:
            TrialStopped: On every rank, if rank 0 was told to stop.
        """
        stops = self.leads and (self._stops or self._channel.should_stop())
        pauses = self.leads and self._channel.should_pause()
        total, stop, pause = self.ranks.total([count, int(stops), int(pauses)])
        self._pauses = pause > 0
        if stop:
            self._has_stopped = True
            raise TrialStopped
        return total


class SharedCheckpoints:
    """A trial's checkpoints where several workers train it: rank 0 saves, all load the same one.

    Args:
        own: This rank's view of the store.
        ranks: The workers.
    """

    def __init__(self, own: CheckpointStore, ranks: Ranks) -> None:
        self._own = own
        self._ranks = ranks

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Save on rank 0.

        Raises:
            RuntimeError: If another rank asks.
        """
        if self._ranks.rank != 0:
            raise RuntimeError(
                f"Rank {self._ranks.rank} cannot save a checkpoint: rank 0 does it for all. Call "
                "`context.checkpoint.save` only where `context.rank` is 0."
            )
        return self._own.save(source, step=step, samples=samples)

    def load(self) -> LoadedCheckpoint | None:
        """Return the newest good checkpoint, the same on every rank.

        Raises:
            ConfigError: If this rank does not find what rank 0 goes on from.
        """
        loaded = self._own.load() if self._ranks.rank == 0 else None  # first, since it tidies up
        step = self._ranks.of_first(None if loaded is None else loaded.step)
        if self._ranks.rank == 0 or step is None:
            return loaded
        loaded = self._own.load()
        if loaded is None or loaded.step != step:
            found = "none" if loaded is None else f"that of step {loaded.step}"
            raise ConfigError(
                f"Rank {self._ranks.rank} finds {found} where rank 0 goes on from the checkpoint of step {step}. The "
                "study's directory must be one that all nodes share, or set `trial.checkpoint.url`."
            )
        return loaded
