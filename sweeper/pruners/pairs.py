"""Who is better than whom at a rung, at least and at most, while others still have to come. Pure."""

import numpy as np
import numpy.typing as npt

from sweeper.pruners.correlation import Array

Indices = npt.NDArray[np.intp]

TIE = 1e-9  # equal scores are often sums of other ranks, which floats do not add up to the same
_PAIRS_AT_ONCE = 1_000_000  # 8 MB each for a few arrays


class Pairs:
    """By how many ranks one trial is ahead of another, at least and at most.

    One peer moves the difference of two trials by 1 for every signal in which it stands between them, by a half where
    it ties with one. A sure peer does so; one that may still be stopped earlier does or does not, which is counted
    for each signal on its own; one that has not come yet may stand anywhere.
    """

    def __init__(
        self, values: Array, weights: Array, known: Indices, sure: Indices, *, n_pending: int
    ) -> None:
        self._values, self._weights, self._n_pending = values, weights, n_pending
        self._known, self._sure = known, sure
        unsure = np.setdiff1d(known, sure, assume_unique=True)
        self._standing = np.zeros(values.shape[1])
        self._maybe = np.zeros(values.shape)  # by signal: what the unsure peers may add
        for row, (column, weight) in enumerate(zip(values, weights, strict=True)):
            self._standing[known] += weight * _n_below(column[known], column[sure])
            if len(unsure):
                self._maybe[row, known] = weight * _n_below(column[known], column[unsure])
        self._has_unsure = len(unsure) > 0

    def count_surely_better(self, columns: Indices, n_wanted: int) -> list[tuple[int, int]]:
        """Return the columns to which at least so many sure ones are surely better, with how many are."""
        standing = np.sort(self._standing[self._sure])
        n_at_most = len(standing) - np.searchsorted(standing, self._standing[columns] + TIE, side="right")
        columns = columns[n_at_most >= n_wanted]
        n_better = self._counted(columns, self._sure, -1.0)
        return [(int(c), int(n)) for c, n in zip(columns, n_better, strict=True) if n >= n_wanted]

    def hardly_beaten(self, columns: Indices, n_allowed: int) -> list[int]:
        """Return the columns to which fewer than so many may be better."""
        standing = np.sort(self._standing[self._known])
        n_at_least = len(standing) - np.searchsorted(standing, self._standing[columns] + TIE, side="right")
        columns = columns[n_at_least < n_allowed]
        n_maybe = self._counted(columns, self._known, 1.0)
        return [int(c) for c, n in zip(columns, n_maybe, strict=True) if n < n_allowed]

    def _counted(self, columns: Indices, peers: Indices, sign: float) -> npt.NDArray[np.intp]:
        """Return how many peers are ahead of each column: at least (sign -1), or at most (sign 1)."""
        counts = [np.zeros(0, dtype=np.intp)]
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(peers)))
        limit = np.maximum if sign > 0 else np.minimum
        for start in range(0, len(columns), at_once):
            block = columns[start : start + at_once]
            ahead = self._standing[peers][:, None] - self._standing[block][None, :]
            for values, weight, maybe in zip(self._values, self._weights, self._maybe, strict=True):
                mine, theirs = values[block][None, :], values[peers][:, None]
                if self._n_pending:
                    ahead += sign * self._n_pending * weight * (theirs > mine if sign > 0 else mine > theirs)
                if self._has_unsure:
                    ahead += limit(maybe[peers][:, None] - maybe[block][None, :], 0.0)
            counts.append((ahead > TIE).sum(axis=0))
        return np.concatenate(counts)


def _n_below(values: Array, peers: Array) -> Array:
    """Return how many peers each value is better than; equal ones count a half."""
    ordered = np.sort(peers)
    first, past = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((first + past) / 2)
