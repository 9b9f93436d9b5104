"""The order of the rows of a trial that mixes data sets, or trains in phases."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.training.stream import SampleStream

Indices = np.ndarray[Any, np.dtype[np.int64]]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """A stretch of a trial in which every sample is drawn from the same data sets."""

    weights: Mapping[str, float]  # shares of the samples, by data set; they need not sum to one
    samples: int
    replay_frac: float = 0.0  # of the samples, drawn instead from what was trained on before this stretch


class FixedOrder:
    """Row indices by position, worked out once. As `SampleStream`, but with an end."""

    def __init__(self, order: Indices) -> None:
        self._order = order

    def indices(self, start: int, stop: int) -> list[int]:
        """Return the rows at positions start to stop, stop not included."""
        found: list[int] = self._order[start:stop].tolist()
        return found


def mixed_order(sets: Mapping[str, tuple[int, int]], mixtures: Sequence[Mixture], *, seed: int) -> FixedOrder:
    """Return which row stands at each position of a trial.

    The order depends on the seed, the data sets in their order, and the mixtures; never on a batch size, nor on the
    order in which weights are written. At every position each data set has had its share of the samples to within a
    few; the rows of each come in a seeded order, all of them once before any comes again, also across phases. Replayed
    are samples of the phases before, in a seeded order of their own. Within a mixture the order does not depend on its
    length, so a longer trial begins as a shorter one.

    Args:
        sets: First row and number of rows of each data set.
        mixtures: One after the other.
        seed: Of the order.
    """
    drawn = dict.fromkeys(sets, 0)
    parts: list[Indices] = []
    for number, mixture in enumerate(mixtures):
        before = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        is_replay = _weyl(mixture.samples, (seed, number, 0, 0)) < mixture.replay_frac
        part = np.empty(mixture.samples, dtype=np.int64)
        n_replayed = int(is_replay.sum())
        if n_replayed:
            stream = SampleStream(len(before), seed=seed, key=(number,))
            part[is_replay] = before[stream.indices(0, n_replayed)]
        own = _own(sets, mixture, mixture.samples - n_replayed, drawn, seed=seed, number=number)
        part[~is_replay] = own
        parts.append(part)
    return FixedOrder(np.concatenate(parts))


def _own(
    sets: Mapping[str, tuple[int, int]],
    mixture: Mixture,
    n_samples: int,
    drawn: dict[str, int],
    *,
    seed: int,
    number: int,
) -> Indices:
    """Return the rows that a mixture draws from its data sets, and count them in `drawn`."""
    # In the data sets' order: that of the weights is not kept everywhere, and is no part of a point's id.
    names = [name for name in sets if mixture.weights.get(name, 0.0) > 0]
    shares = np.cumsum([mixture.weights[name] for name in names])
    chosen = np.searchsorted(shares[:-1] / shares[-1], _weyl(n_samples, (seed, number, 0, 1)), side="right")
    rows = np.empty(n_samples, dtype=np.int64)
    for index, name in enumerate(names):
        first, n_rows = sets[name]
        at = np.flatnonzero(chosen == index)
        stream = SampleStream(n_rows, seed=seed, key=(zlib.crc32(name.encode()),))
        rows[at] = first + np.asarray(stream.indices(drawn[name], drawn[name] + len(at)), dtype=np.int64)
        drawn[name] += len(at)
    return rows


def _weyl(n: int, key: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return n numbers in [0, 1) of which any prefix fills the interval evenly, from a seeded start.

    Steps by the golden ratio, the most even of such sequences; in whole numbers, so that every machine agrees.
    """
    start = np.random.default_rng(key).integers(0, 2**63, dtype=np.uint64)
    steps = np.arange(n, dtype=np.uint64) * _GOLDEN + start  # wraps at 2**64
    return (steps >> np.uint64(11)).astype(np.float64) * 2.0**-53
