"""What is expected of each open trial: its final metric, and its chance to be the best. Pure."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sweeper.pruners.correlation import Array
from sweeper.pruners.inputs import NO_RUNG

Bools = npt.NDArray[np.bool_]

# Steps above the threshold, in median distances from the best, at which chances to be the top are compared.
LEVELS = np.concatenate([np.linspace(0.0, 1.0, 15), np.geomspace(1.15, 6.0, 10)])
MAX_DOUBT = 0.05  # that nothing known says anything about the results
_IMPOSSIBLE = 1e-150  # its inverse, times what is as small, is still a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is predicted for one trial, on the scale of the fit that predicts it."""

    number: int
    rung: int  # that the prediction stands on; -1: on the point alone
    chance: float  # to end best of all, by more than the tolerance above the best known
    expected: float
    reach: float  # half of the 95 % interval


class OutlookTable:
    """The outlooks of all open trials. A trial that comes to a rung costs one pass over arrays, and no new fit.

    Args:
        numbers: The open trials.
        n_complete: Trials that have ended with a metric.
    """

    def __init__(self, numbers: Sequence[int], *, n_complete: int) -> None:
        n = len(numbers)
        self._row_of = {number: row for row, number in enumerate(numbers)}
        self._numbers = np.array(numbers, dtype=np.int64)
        self._n_complete = n_complete
        self._rung = np.full(n, NO_RUNG)
        self._doubt, self._mean, self._reach = np.ones(n), np.zeros(n), np.zeros(n)
        self._is_open = np.zeros(n, dtype=bool)
        self._is_audited, self._is_at_rest, self._is_training = (self._is_open.copy() for _ in range(3))
        self._logs = np.zeros((n, len(LEVELS)))  # of the chances to stay below each level
        self._steps = np.zeros((n, len(LEVELS)))
        self._chances: Array | None = None

    def __contains__(self, number: int) -> bool:
        row = self._row_of.get(number)
        return row is not None and bool(self._is_open[row])

    def put(
        self, numbers: Sequence[int], rung: int, *, doubt: float, means: Array, reaches: Array, above: Array
    ) -> None:
        """Set what is predicted for trials at one rung.

        Args:
            above: Each trial's (row) chance to end above each level (column); the first level is the threshold.
        """
        rows = self._rows(numbers)
        self._rung[rows], self._doubt[rows] = rung, doubt
        self._mean[rows], self._reach[rows] = means, reaches
        self._logs[rows], self._steps[rows] = _chance_parts(above)
        self._is_open[rows] = True
        self._chances = None

    def mark(self, number: int, *, is_audited: bool, is_at_rest: bool, is_training: bool) -> None:
        """Say whether a trial is an audit, whether it could be given a slot, and whether it holds one."""
        row = self._row_of[number]
        self._is_audited[row], self._is_at_rest[row], self._is_training[row] = (
            is_audited,
            is_at_rest,
            is_training,
        )

    def drop(self, number: int, *, n_complete: int) -> None:
        """Forget a trial that has ended."""
        row = self._row_of.get(number)
        if row is not None and self._is_open[row]:
            self._is_open[row] = False
            self._logs[row] = self._steps[row] = 0.0
        self._n_complete = n_complete
        self._chances = None

    def rung(self, number: int) -> int:
        """Return the rung that a trial's outlook stands on."""
        return int(self._rung[self._row_of[number]])

    def outlook(self, number: int) -> Outlook | None:
        """Return a trial's outlook; None where it has ended or is not known."""
        if number not in self:
            return None
        row = self._row_of[number]
        return Outlook(
            number=number, rung=int(self._rung[row]), chance=float(self._all_chances()[row]),
            expected=float(self._mean[row]), reach=float(self._reach[row]),
        )  # fmt: skip

    def judged(self, among: Iterable[int] | None = None) -> list[int]:
        """Return the open trials that are no audits, the least likely to be the best first.

        Args:
            among: Only these trials; None: all.
        """
        return self._by_chance(self._judged(among))

    def stoppable(
        self, among: Iterable[int] | None = None, *, skip_waiting: bool, at_most: float
    ) -> list[int]:
        """Return those of the same trials that may be stopped by their own chance, in the same order.

        Args:
            among: Only these trials; None: all.
            skip_waiting: Whether the point alone is reason enough.
            at_most: The largest chance.
        """
        chosen = self._judged(among) & self._may_stop(skip_waiting)
        return self._by_chance(chosen & (self._all_chances() <= at_most))

    def may_stop(self, *, skip_waiting: bool, among: Iterable[int] | None = None) -> tuple[bool, float]:
        """Return whether every open trial that is no audit may be stopped, and the sum of their chances.

        Where there is none, nobody may.

        Args:
            skip_waiting: Whether the point alone is reason enough.
            among: Only these trials; None: all.
        """
        chosen = self._judged(among)
        may_stop = bool(chosen.any() and self._may_stop(skip_waiting)[chosen].all())
        return may_stop, float(self._all_chances()[chosen].sum())

    def first(self, among: Iterable[int] | None = None, *, by_chance: bool) -> int | None:
        """Return the trial to start first: no audit, the likeliest to be the best, the one that may end highest.

        Args:
            among: These trials; None: all that could be given a slot.
            by_chance: Whether the chances count.
        """
        rows = np.flatnonzero(self._is_open & (self._is_at_rest if among is None else self._mask(among)))
        if not len(rows):
            return None
        chances = self._all_chances()[rows] if by_chance else np.zeros(len(rows))
        kept = np.arange(len(rows))
        highs = self._mean[rows] + self._reach[rows]
        for goodness in (~self._is_audited[rows], chances, highs, -self._numbers[rows]):
            kept = kept[goodness[kept] == goodness[kept].max()]
        return int(self._numbers[rows[kept[0]]])

    def leader(self, number: int, *, worth: float) -> Outlook | None:
        """Return the likeliest trial that trains, where a trial's chance is less than `worth` of that one's.

        None where it is not, where nobody else trains, and for audits.
        """
        row = self._row_of.get(number)
        if row is None or not self._is_open[row] or self._is_audited[row]:
            return None
        trains = self._is_open & ~self._is_audited & self._is_training
        trains[row] = False
        rows, chances = np.flatnonzero(trains), self._all_chances()
        if not len(rows):
            return None
        first = rows[np.argmax(chances[rows])]
        return self.outlook(int(self._numbers[first])) if chances[row] < worth * chances[first] else None

    def _all_chances(self) -> Array:
        if self._chances is None:
            n_peers = int(np.count_nonzero(self._is_open)) + self._n_complete
            tops = _tops(self._logs, self._steps)
            self._chances = np.where(self._is_open, np.maximum(tops, self._doubt / max(n_peers, 1)), 0.0)
        return self._chances

    def _judged(self, among: Iterable[int] | None) -> Bools:
        chosen = self._is_open & ~self._is_audited
        return chosen if among is None else chosen & self._mask(among)

    def _may_stop(self, skip_waiting: bool) -> Bools:
        """Return where what is predicted may stop a trial at all."""
        trusted = self._doubt < MAX_DOUBT
        return trusted if skip_waiting else trusted & (self._rung != NO_RUNG)

    def _by_chance(self, chosen: Bools) -> list[int]:
        rows = np.flatnonzero(chosen)
        order = np.lexsort((self._numbers[rows], self._all_chances()[rows]))
        return [int(number) for number in self._numbers[rows[order]]]

    def _rows(self, numbers: Iterable[int]) -> npt.NDArray[np.intp]:
        return np.array([self._row_of[number] for number in numbers], dtype=np.intp)

    def _mask(self, numbers: Iterable[int]) -> Bools:
        mask = np.zeros(len(self._numbers), dtype=bool)
        mask[[self._row_of[number] for number in numbers if number in self._row_of]] = True
        return mask


def _chance_parts(above: Array) -> tuple[Array, Array]:
    """Return what each trial (row) adds to the chances of all: log chances to stay below, and its own steps."""
    logs = np.log(np.clip(1.0 - above, _IMPOSSIBLE, 1.0))
    steps = above.copy()
    steps[:, :-1] -= above[:, 1:]  # past the last level nobody is
    steps[:, :-1] *= np.exp(-logs[:, 1:])  # the sum over all holds its own one too
    return logs, steps


def _tops(logs: Array, steps: Array) -> Array:
    """Return each trial's chance to end above the threshold and above all other open trials.

    Only one trial can be the top, so these chances say far less than those to beat the threshold while good points
    are still open; and a study fails only if a stopped trial would have been the top, so their sum bounds its risk.
    Between two levels the others are taken to stay below the upper one, which makes the chance rather too large. Given
    the finished trials, the open ones are taken as independent.

    Args:
        logs: From `_chance_parts`, of all trials.
        steps: Likewise.
    """
    others = np.exp(logs.sum(axis=0))
    return np.asarray(steps @ np.append(others[1:], 1.0))
