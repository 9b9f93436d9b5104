"""The one seeded stream of training rows: position = samples, at every batch size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np


class Rows(Protocol):
    """Rows by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Order(Protocol):
    """Which row stands at which position of a trial."""

    def indices(self, start: int, stop: int) -> list[int]:
        """Return the rows at positions start to stop, stop not included."""


class SampleStream:
    """An endless order of row indices: one permutation per epoch, one after the other.

    Which row stands at a position depends on the seed and the number of rows alone, never on the batch size,
    so trials of all batch sizes have seen the same rows after the same number of samples.
    """

    def __init__(self, n_rows: int, *, seed: int, key: tuple[int, ...] = ()) -> None:
        """Make the order of so many rows. Streams of one seed with different keys are independent."""
        if n_rows < 1:
            raise ValueError("A stream needs at least one row.")
        self._n_rows = n_rows
        self._key = (seed, *key)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def indices(self, start: int, stop: int) -> list[int]:
        """Return the rows at positions start to stop, stop not included."""
        return [self._index(position) for position in range(start, stop)]

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, self._n_rows)
        if epoch != self._epoch:
            self._order = np.random.default_rng((*self._key, epoch)).permutation(self._n_rows)
            self._epoch = epoch
        return int(self._order[offset])


class MicroBatches:
    """A stream cut into collated micro-batches, in order; what the trainer takes for its data loader.

    Draws nothing from the global random state, so that a resumed trial finds it as it was. Where several ranks train,
    each takes its part of every `micro_batch_size * n_ranks` rows that follow one another, so that all together see
    the same rows at every step as one alone would.
    """

    def __init__(
        self,
        dataset: Rows,
        stream: Order,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        *,
        start: int,
        stop: int,
        micro_batch_size: int,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        together = micro_batch_size * n_ranks
        if (stop - start) % together:
            raise ValueError(
                f"{stop - start} samples cannot be cut into micro-batches of {micro_batch_size} on {n_ranks} rank(s)."
            )
        self.dataset = dataset
        self._stream = stream
        self._collate = collate
        self._positions: Sequence[int] = range(start + rank * micro_batch_size, stop, together)
        self._size = micro_batch_size

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position in self._positions:
            yield self._collate(
                [self.dataset[i] for i in self._stream.indices(position, position + self._size)]
            )
