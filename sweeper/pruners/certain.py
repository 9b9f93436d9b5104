"""The certain mode of the rank rule: nobody is stopped before it is sure. Pure.

At a rung, at least `ceil(keep_frac * n)` of the n points that enter it are to be better than a trial before it is
stopped. All points of the grid enter the first rung. Which ones enter a later rung is known only in part while others
still run, so a peer counts there only once it can no longer be stopped earlier, and n is taken as large as it can still
become. A trial's score is a mean of ranks, which later peers can still move, so a peer is surely better only if it
stays better wherever the others come to stand.

What is sure stays so, and in the end everything is known: so the survivors are a function of the values alone, whatever
the order of reports and the number of slots. A trial that ends before it is sure that it must be stopped has
completed, and is no survivor.

The probe mode is the same rule for trials that wait: whoever comes to a rung is set aside until all that enter it have
come there, and only the survivors go on. So nobody trains further than the rule needs to know.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sweeper.pruners.correlation import Array
from sweeper.records import RungRecord, TrialRecord

Bools = npt.NDArray[np.bool_]

_TIE = 1e-9  # scores are sums of the same ranks in another order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a trial is surely no survivor."""

    rung: int
    n_better: int  # peers that are surely better there
    n_kept: int
    n_entering: int  # at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertainRank:
    """The rule's settings.

    Args:
        directions: Signals with 1 where high is good and -1 where low is.
        weights: Weight of each signal; they sum to 1.
        keep_frac: Fraction of the entering points that goes on.
        n_points: Points of the whole grid; None: as many as there are records.
    """

    directions: Mapping[str, float]
    weights: Mapping[str, float]
    keep_frac: float
    n_points: int | None = None

    def condemned(self, records: Mapping[int, TrialRecord]) -> dict[int, Verdict]:
        """Return the trials that surely do not survive, each with the first rung where that is so."""
        possible = set(records)
        sure = set(records)
        n_unknown = max(0, (self.n_points or 0) - len(records))
        found: dict[int, Verdict] = {}
        for rung in sorted({index for record in records.values() for index in record.rungs}):
            level = _Level(self, rung, sorted(possible), sure, n_unknown, records)
            verdicts = level.verdicts()
            found.update(verdicts)
            sure = level.safe()
            possible -= set(verdicts)
        return found

    def survivors(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return the trials that are not condemned. Final once every trial has ended."""
        condemned = self.condemned(records)
        return [number for number in sorted(records) if number not in condemned]

    def waiting(self, records: Mapping[int, TrialRecord]) -> set[int]:
        """Return the open trials that stand at a rung to which others still have to come."""
        n_unknown = max(0, (self.n_points or 0) - len(records))
        condemned = self.condemned(records)
        entering, found = set(records), set[int]()
        for rung in sorted({index for record in records.values() for index in record.rungs}):
            if n_unknown or not all(_is_known(records[number], rung) for number in entering):
                found |= {
                    n
                    for n in entering
                    if not records[n].state.is_finished and _at(records[n], rung) is not None
                }
            entering -= {number for number, verdict in condemned.items() if verdict.rung <= rung}
        return found


class _Level:
    """One rung: who is known there, and who is better than whom, now and at worst."""

    def __init__(
        self,
        rule: CertainRank,
        rung: int,
        possible: Sequence[int],
        sure: set[int],
        n_unknown: int,
        records: Mapping[int, TrialRecord],
    ) -> None:
        self._rule, self._rung = rule, rung
        self._known = [n for n in possible if _is_known(records[n], rung)]
        self._n_pending = len(possible) - len(self._known) + n_unknown
        self._sure = np.array([number in sure for number in self._known], dtype=bool)
        self._n_most = len(possible) + n_unknown
        self._n_least = len(sure) + n_unknown if rung == 0 else len(sure)
        self._records = records
        self._here = np.array([_at(records[n], rung) is not None for n in self._known], dtype=bool)

    @functools.cached_property
    def _bounds(self) -> tuple[Array, Array]:
        """What `_differences` returns. Every pair of trials: asked only where somebody can be sure at all."""
        rule, records = self._rule, self._records
        values = [np.array([self._value(records[n], name) for n in self._known]) for name in rule.directions]
        weights = [rule.weights[name] for name in rule.directions]
        return _differences(values, weights, self._sure, self._n_pending)

    def verdicts(self) -> dict[int, Verdict]:
        """Return who is surely stopped here. A trial that ended before the rung is not stopped, only last."""
        n_kept = math.ceil(self._rule.keep_frac * self._n_most)
        if np.count_nonzero(self._sure) < n_kept:
            return {}
        n_better = ((self._bounds[0] > _TIE) & self._sure[:, None]).sum(axis=0)
        return {
            number: Verdict(
                rung=self._rung, n_better=int(n_better[i]), n_kept=n_kept, n_entering=self._n_most
            )
            for i, number in enumerate(self._known)
            if n_better[i] >= n_kept
        }

    def safe(self) -> set[int]:
        """Return who surely enters the rung and can no longer be stopped there."""
        n_kept = math.ceil(self._rule.keep_frac * self._n_least)
        if self._n_pending >= n_kept:
            return set()
        n_maybe = (self._bounds[1] > _TIE).sum(axis=0) + self._n_pending
        return {number for i, number in enumerate(self._known) if self._sure[i] and n_maybe[i] < n_kept}

    def _value(self, record: TrialRecord, name: str) -> float:
        """Return a signal at the rung as goodness. What is not finite, and what never came here, is last."""
        at = _at(record, self._rung)
        value = math.nan if at is None else at.signals.get(name, math.nan)
        return self._rule.directions[name] * value if math.isfinite(value) else -math.inf


def _differences(
    values: Sequence[Array], weights: Sequence[float], sure: Bools, n_pending: int
) -> tuple[Array, Array]:
    """Return by how many ranks each trial (row) is ahead of each other one (column), at least and at most.

    One peer moves the difference of two trials by 1 for every signal in which it stands between them, by a half where
    it ties with one. A sure peer does so; one that may still be stopped earlier does or does not; one that has not
    come yet may stand anywhere.
    """
    n = len(sure)
    beats = np.zeros((n, n))  # [i, p]: weighted signals in which i is better than peer p, ties a half
    ahead = np.zeros((n, n))  # [j, i]: weighted signals in which j is better than i
    for column, weight in zip(values, weights, strict=True):
        better = column[:, None] > column[None, :]
        beats += weight * (better + 0.5 * (column[:, None] == column[None, :]))
        ahead += weight * better
    standing = beats[:, sure].sum(axis=1)
    least = standing[:, None] - standing[None, :] - n_pending * ahead.T
    most = standing[:, None] - standing[None, :] + n_pending * ahead
    for peer in np.flatnonzero(~sure):
        moved = beats[:, None, peer] - beats[None, :, peer]
        least += np.minimum(moved, 0.0)
        most += np.maximum(moved, 0.0)
    return least, most


def _at(record: TrialRecord, rung: int) -> RungRecord | None:
    """Return what a trial showed at a rung. Of two rungs that fall on one step it recorded the later one."""
    later = [index for index in record.rungs if index >= rung]
    return record.rungs[min(later)] if later else None


def _is_known(record: TrialRecord, rung: int) -> bool:
    return record.state.is_finished or _at(record, rung) is not None
