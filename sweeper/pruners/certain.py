"""The certain mode of the rank rule: nobody is stopped before it is sure. Pure.

At a rung, at least `ceil(keep_frac * n)` of the n points that enter it are to be better than a trial before it is
stopped. All points of the grid enter the first rung. Which ones enter a later rung is known only in part while others
still run, so a peer counts there only once it can no longer be stopped earlier, and n is taken as large as it can still
become. A trial's score is a mean of ranks, which later peers can still move, so a peer is surely better only if it
stays better wherever the others come to stand.

What is sure stays so, and in the end everything is known: so the survivors are a function of the values alone, whatever
the order of reports and the number of slots. A trial that ends before it is sure that it must be stopped has
completed, and is no survivor.

What is not decided yet is looked at again as trials come to a rung: every pair of them, so in large studies only after
some more have come (a twenty-fifth of 10,000). That changes when somebody is stopped, not who survives.

A clone that begins at another trial's checkpoint counts at no rung before that: the other one was judged there.

The probe mode is the same rule for trials that wait: whoever comes to a rung is set aside until all that enter it have
come there, and only the survivors go on. So nobody trains further than the rule needs to know.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from sweeper.pruners.changes import Changes
from sweeper.pruners.level import Level, Verdict
from sweeper.records import LoggedRecords, RungRecord, TrialRecord


class CertainRank:
    """Knows who surely does not survive. Keeps caches only: the same records lead to the same survivors.

    Args:
        directions: Signals with 1 where high is good and -1 where low is.
        weights: Weight of each signal; they sum to 1.
        keep_frac: Fraction of the entering points that goes on.
        n_points: Points that are planned or drawn, of which some may be repeats; None: as many as there are records.
    """

    def __init__(
        self,
        *,
        directions: Mapping[str, float],
        weights: Mapping[str, float],
        keep_frac: float,
        n_points: int | None = None,
    ) -> None:
        self._directions, self._weights = dict(directions), np.array([weights[name] for name in directions])
        self._keep_frac, self._n_points = keep_frac, n_points
        self._changes = Changes()
        self._left_out: set[int] = set()  # trials that train others on and draws in vain: they take no part
        self._added: set[int] = set()  # points that are none of those that were to be drawn
        self._warm: set[int] = set()  # trials that begin at others' checkpoints, perhaps past a rung
        self._forget(0)

    def _forget(self, n: int) -> None:
        self._n = n  # points of the grid
        self._levels: list[Level] = []
        self._top: dict[int, int] = {}  # the newest rung of each trial that has come to one
        self._finished: dict[int, None] = {}
        self._open_condemned: set[int] = set()
        self._condemned: dict[int, Verdict] = {}

    def read(self, records: Mapping[int, TrialRecord]) -> None:
        """Take in who came to a rung and who ended, and what follows from that."""
        is_anew, numbers = self._changes.read(records)
        if is_anew:
            for kept in (self._left_out, self._added, self._warm):
                kept.clear()
        self._left_out.update(n for n in numbers if records[n].is_continued or records[n].is_in_vain)
        self._added.update(n for n in numbers if _is_added(records[n]))
        n_warm = len(self._warm)
        self._warm.update(number for number in numbers if _is_warm(records[number]))
        n = self._count(records)
        if is_anew or n != self._n or n_warm != len(self._warm):
            self._forget(n)
            numbers = list(records)
        for number in numbers:
            if number not in self._left_out:
                self._take_in(records[number], records)
        self._conclude()

    def _count(self, records: Mapping[int, TrialRecord]) -> int:
        """Return how many points there are in the end, as far as is known now."""
        known = len(records) - len(self._left_out)
        if self._n_points is None or (isinstance(records, LoggedRecords) and records.all_drawn):
            return known
        n_in_vain = sum(records[number].is_in_vain for number in self._left_out)
        return max(known, self._n_points - n_in_vain + len(self._added))

    def verdict(self, number: int) -> Verdict | None:
        """Return why a trial does not survive, by the first rung where that is sure; None while it is not."""
        return self._condemned.get(number)

    def is_safe(self, number: int, rung: int) -> bool:
        """Whether a trial surely survives a rung that it has come to."""
        return number in self._levels[rung].safe

    @property
    def open_condemned(self) -> list[int]:
        """The trials that have not ended and surely do not survive."""
        return sorted(self._open_condemned)

    def survivors(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return the trials that are not condemned. Final once every trial has ended."""
        self.read(records)
        return [n for n in sorted(records) if n not in self._condemned and n not in self._left_out]

    def waiting(self, numbers: Iterable[int], records: Mapping[int, TrialRecord]) -> set[int]:
        """Return which of some trials are open and stand at a rung to which others still have to come."""
        self.read(records)
        levels = [level for level in self._levels if level.n_pending]
        return {
            number
            for number in numbers
            if number not in self._finished and any(number in level.known for level in levels)
        }

    def _take_in(self, record: TrialRecord, records: Mapping[int, TrialRecord]) -> None:
        number = record.number
        before, top = self._top.get(number, -1), max(record.rungs, default=-1)
        self._top[number] = top
        while len(self._levels) <= top:
            self._add_level(records)
        if number in self._warm:
            self._pass_over(record, records)
        if record.state.is_finished and number not in self._finished:
            self._finished[number] = None
            self._open_condemned.discard(number)
            top = len(self._levels) - 1  # it comes to no other one: there it is last
        for level in self._levels[before + 1 : top + 1]:
            if number not in level.known:
                self._enter(level, record)

    def _add_level(self, records: Mapping[int, TrialRecord]) -> None:
        rung = len(self._levels)
        n_sure = 0 if rung else self._n - len(self._warm)
        level = Level(rung, n=self._n, n_sure=n_sure, weights=self._weights)
        if rung > 0:
            level.exclude(self._condemned)
            level.make_sure(self._levels[-1].safe)
        self._levels.append(level)
        for number in self._warm:
            self._pass_over(records[number], records)
        for number in self._finished:
            self._enter(level, records[number])

    def _pass_over(self, record: TrialRecord, records: Mapping[int, TrialRecord]) -> None:
        """Leave a trial out at the rungs that it began past."""
        for level in self._levels:
            if record.number not in level.safe and _began_past(record, level.rung, records):
                level.pass_over(record.number)
                for one in self._levels[level.rung + 1 : level.rung + 2]:
                    one.make_sure([record.number])

    def _enter(self, level: Level, record: TrialRecord) -> None:
        number, verdict = record.number, self._condemned.get(record.number)
        if (verdict is None or verdict.rung >= level.rung) and number not in level.safe:
            is_sure = level.rung == 0 or number in self._levels[level.rung - 1].safe
            level.add(number, self._values(record, level.rung), is_sure=is_sure)
            if level.rung == 0 and number in self._warm:
                level.make_sure([number])

    def _values(self, record: TrialRecord, rung: int) -> list[float]:
        """Return the signals at the rung as goodness. What is not finite, and what never came here, is last."""
        at = _at(record, rung)
        signals = {} if at is None else at.signals
        values = ((sign, signals.get(name, math.nan)) for name, sign in self._directions.items())
        return [sign * value if math.isfinite(value) else -math.inf for sign, value in values]

    def _conclude(self) -> None:
        """Look again at the rungs where something has changed; what is found at one changes the later ones."""
        for level in self._levels:
            if not level.is_due:
                continue
            verdicts, safe = level.look(self._keep_frac)
            for number, verdict in verdicts.items():
                known = self._condemned.get(number)
                if known is None or known.rung > level.rung:
                    self._condemned[number] = verdict
                    if number not in self._finished:
                        self._open_condemned.add(number)
            later = self._levels[level.rung + 1 :]
            for one in later:
                one.exclude(verdicts)
            for one in later[:1]:
                one.make_sure(safe)


def _at(record: TrialRecord, rung: int) -> RungRecord | None:
    """Return what a trial showed at a rung. Of two rungs that fall on one step it recorded the later one."""
    later = [index for index in record.rungs if index >= rung]
    return record.rungs[min(later)] if later else None


def _is_added(record: TrialRecord) -> bool:
    return record.origin is not None and not record.is_continued


def _is_warm(record: TrialRecord) -> bool:
    return record.origin is not None and record.origin.warm_start and not record.is_continued


def _began_past(record: TrialRecord, rung: int, records: Mapping[int, TrialRecord]) -> bool:
    """Whether a trial began at a checkpoint that lies past a rung: there the one that it comes from was judged."""
    origin = record.origin
    source = None if origin is None or origin.source is None else records.get(origin.source)
    if origin is None or source is None or not origin.from_step:
        return False
    at = _at(source, rung)
    return _began_past(source, rung, records) or (at is not None and at.step <= origin.from_step)
