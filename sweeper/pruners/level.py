"""One rung of the certain mode: who is known there, and who is surely better than whom. Pure."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from sweeper.pruners.correlation import Array
from sweeper.pruners.pairs import Pairs
from sweeper.rungs import n_going_on

_PAIRS_A_REPORT = 250_000  # about; looking at so many takes some 3 ms (2 cores, November 2026)
_FIRST_ROOM = 64  # trials


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a trial is surely no survivor."""

    rung: int
    n_better: int  # peers that are surely better there
    n_kept: int
    n_entering: int  # at most


class Level:
    """One rung: who is known there, and who is better than whom, now and at worst.

    Args:
        rung: Its index.
        n: Points of the grid.
        n_sure: Those that surely enter it.
        weights: Of the signals.
    """

    def __init__(self, rung: int, *, n: int, n_sure: int, weights: Array) -> None:
        self.rung = rung
        self.known: dict[int, int] = {}  # trial -> column
        self.safe: set[int] = set()  # who surely enters the rung, and can no longer be stopped there
        self._weights = weights
        self._n_most = n  # that may still enter the rung
        self._n_least = n_sure  # that surely enter it
        self._numbers = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._values = np.zeros((len(weights), _FIRST_ROOM))  # goodness
        self._is_in, self._is_sure, self._is_decided = (np.zeros(_FIRST_ROOM, dtype=bool) for _ in range(3))
        self._excluded: set[int] = set()
        self._n_columns = 0
        self._n_news = 0  # since it was last looked at
        self._news_between_looks = max(1, n * n // _PAIRS_A_REPORT)

    @property
    def n_pending(self) -> int:
        """Points that may enter the rung and have not come to it yet."""
        return self._n_most - len(self.known)

    @property
    def is_due(self) -> bool:
        """Whether enough has changed to look at it again; once all have come, anything is enough."""
        return self._n_news >= (self._news_between_looks if self.n_pending else 1)

    def add(self, number: int, values: Iterable[float], *, is_sure: bool) -> None:
        """Take in one more trial that has come here, or has ended and never will."""
        column = self._n_columns
        if column == len(self._numbers):
            self._numbers, self._is_in, self._is_sure, self._is_decided = (
                np.concatenate([a, np.zeros_like(a)])
                for a in (self._numbers, self._is_in, self._is_sure, self._is_decided)
            )
            self._values = np.hstack([self._values, np.zeros_like(self._values)])
        self.known[number] = column
        self._numbers[column], self._values[:, column] = number, list(values)
        self._is_in[column], self._is_sure[column] = True, is_sure
        self._n_columns += 1
        self._n_news += 1

    def exclude(self, numbers: Iterable[int]) -> None:
        """Leave out trials that surely do not come as far as this rung."""
        for number in numbers:
            if number not in self._excluded:
                self._excluded.add(number)
                self._n_most -= 1
                self._n_news += 1
                column = self.known.pop(number, None)
                if column is not None:
                    self._is_in[column] = False

    def pass_over(self, number: int) -> None:
        """Leave out a trial that began past this rung: it surely enters the next one."""
        self._n_least -= self.rung > 0  # there it was made sure when it passed the one before over
        self.exclude([number])
        self.safe.add(number)

    def make_sure(self, numbers: Iterable[int]) -> None:
        """Take note of trials that surely enter the rung."""
        for number in numbers:
            self._n_least += 1
            self._n_news += 1
            if number in self.known:
                self._is_sure[self.known[number]] = True

    def look(self, keep_frac: float) -> tuple[dict[int, Verdict], set[int]]:
        """Return who is found now to be surely stopped here, and who surely not. That stays so."""
        self._n_news = 0
        known = np.flatnonzero(self._is_in[: self._n_columns])
        sure = known[self._is_sure[known]]
        verdicts: dict[int, Verdict] = {}
        safe: set[int] = set()
        n_kept, n_least_kept = n_going_on(keep_frac, self._n_most), n_going_on(keep_frac, self._n_least)
        may_condemn, may_save = len(sure) >= n_kept, self.n_pending < n_least_kept
        if not (may_condemn or may_save):
            return verdicts, safe
        pairs = Pairs(self._values, self._weights, known, sure, n_pending=self.n_pending)
        if may_condemn:
            open_ones = known[~self._is_decided[known]]
            for column, n_better in pairs.count_surely_better(open_ones, n_kept):
                self._is_decided[column] = True
                number = int(self._numbers[column])
                verdicts[number] = Verdict(
                    rung=self.rung, n_better=n_better, n_kept=n_kept, n_entering=self._n_most
                )
        if may_save:
            open_ones = sure[~self._is_decided[sure]]
            for column in pairs.hardly_beaten(open_ones, n_least_kept - self.n_pending):
                self._is_decided[column] = True
                safe.add(int(self._numbers[column]))
        self.safe |= safe
        return verdicts, safe
