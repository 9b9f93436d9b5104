"""Predicts each open trial from the finished ones, and keeps the outlooks up to date as trials report and end. Pure.

While few trials have ended, everything is fitted again with each of them. Later the fit is renewed whenever a twentieth
more have ended, and learns from at most 64 of them: the better half, and others spread over the rest. So what a trial's
end costs does not grow with the study, and a report costs one prediction. The best known value is always the newest.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sweeper.pruners.audit import audit_decision
from sweeper.pruners.correlation import Array
from sweeper.pruners.design import STUDY
from sweeper.pruners.inputs import NO_RUNG, InputReader
from sweeper.pruners.ledger import Ledger, is_at_rest, is_complete
from sweeper.pruners.outlook import LEVELS, MAX_DOUBT, OutlookTable
from sweeper.pruners.predict import Predictor
from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialRecord

# Chance that a trial's signals mean something else than they did in the finished ones: then its point decides.
_MISLED = 0.5
_MIN_FINISHED = 4  # with fewer there is nothing to fit
# Of the estimated noise that is tolerated: what two seeds of one point may differ by decides nothing.
_NOISE_SHARE = 1.0
_FITTED_AT_ONCE = 40  # ends of trials that each renew the fit; later a twentieth more of them do
_MOST_TEACHERS = 64  # of one study: a fit with all its rungs then takes some 50 ms (2 cores, November 2026)
_AT_ONCE = 1024  # trials predicted together: 20 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Goodness on a scale that is linear near the best value and logarithmic far from it.

    Without it one point that forgot everything would set the scale, and all good ones would look alike.
    """

    best: float
    unit: float  # median distance of the finished trials from the best

    def warp(self, goodness: Array) -> Array:
        return np.asarray(np.arcsinh((goodness - self.best) / self.unit))

    def unwarp(self, value: float) -> float:
        return float(self.best + self.unit * math.sinh(min(max(value, -20.0), 20.0)))


class Fit:
    """What finished trials teach: a predictor for every rung that enough of them passed.

    Args:
        teachers: The study's own trials to learn from; one of them is complete at least.
        prior: Trials of an earlier study to learn from. None of them counts as known best.
        records: The study's own.
        reader: Reads the inputs.
        sign: 1 where more of the metric is better, -1 where less is.
    """

    def __init__(
        self,
        teachers: Sequence[int],
        prior: Sequence[int],
        records: Mapping[int, TrialRecord],
        reader: InputReader,
        *,
        sign: float,
    ) -> None:
        self._reader, self._sign = reader, sign
        known = reader.known(records)
        best = max(self._goodness(records[n]) for n in teachers if is_complete(records[n]))
        everyone = sorted((*prior, *teachers))
        values = np.array([self._goodness(known[n]) for n in everyone if is_complete(known[n])])
        self.scale = Scale(best=best, unit=float(np.median(np.abs(best - values))) or 1.0)
        self._names: dict[int, list[str]] = {}
        self._predictors: dict[int, Predictor] = {}
        for rung in sorted({NO_RUNG, *(rung for n in everyone for rung in known[n].rungs)}):
            self._learn(rung, [n for n in everyone if _teaches(known[n], rung)], records)
        passed = {NO_RUNG, *(rung for n in teachers for rung in records[n].rungs)}
        sure = (one for rung, one in self._predictors.items() if rung in passed and one.doubt < MAX_DOUBT)
        noises = [one.noise() for one in sure]
        # The least that a predictor sees around what is known of the finished trials; 0 where none is sure.
        self.noise = self.scale.unit * min(noises, default=0.0)

    @property
    def can_predict(self) -> bool:
        """Whether enough has finished to learn from."""
        return NO_RUNG in self._predictors

    def rung_of(self, record: TrialRecord) -> int:
        """Return the newest rung of a trial that it can be predicted at."""
        return next(
            (rung for rung in sorted(record.rungs, reverse=True) if rung in self._predictors), NO_RUNG
        )

    def doubt(self, rung: int) -> float:
        return self._predictors[rung].doubt

    def predict(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord], *, levels: Array
    ) -> tuple[Array, Array, Array]:
        """Return means, half 95 % intervals, and chances (trial x level) to end above each level, on the scale."""
        parts = []
        for start in range(0, len(numbers), _AT_ONCE):
            members = numbers[start : start + _AT_ONCE]
            inputs = self._reader.inputs(members, rung, records, names=self._names[rung])
            found = self._predictors[rung].predict(inputs)
            parts.append((found.mean(), 1.96 * found.deviation(), found.chance_above(levels).T))
        means, reaches, above = (np.concatenate(part) for part in zip(*parts, strict=True))
        return means, reaches, above

    def _learn(self, rung: int, numbers: Sequence[int], records: Mapping[int, TrialRecord]) -> None:
        known = self._reader.known(records)
        complete = [self._goodness(known[number]) for number in numbers if is_complete(known[number])]
        if len(complete) < _MIN_FINISHED:
            return
        worst = min(complete)  # a diverged point is at least as bad as any that ended
        values = [self._goodness(known[n]) if is_complete(known[n]) else worst for n in numbers]
        self._names[rung] = self._reader.names(numbers, rung, records)
        inputs = self._reader.inputs(numbers, rung, records, names=self._names[rung])
        self._predictors[rung] = Predictor(inputs, self.scale.warp(np.array(values)))

    def _goodness(self, record: TrialRecord) -> float:
        return self._sign * float(record.value or 0.0)


class Forecaster:
    """Predicts from the records. What it keeps is a cache: a new one says the same.

    Args:
        metric: Name of the study's metric among the signals.
        sign: 1 where more is better, -1 where less is.
        tolerance: What counts as better, in units of the metric; None: a part of the estimated noise.
        prior: Completed trials of an earlier study. They teach, as trials that differ from this study's in one more
            dimension: which study it is.
    """

    def __init__(
        self,
        *,
        metric: str | None,
        sign: float,
        tolerance: float | None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        marked = {
            number: dataclasses.replace(record, params={**record.params, STUDY: "prior"})
            for number, record in (prior or {}).items()
        }
        self.reader = InputReader(metric, marked)
        self._prior = _chosen([n for n in marked if _teaches(marked[n], NO_RUNG)], marked, sign)
        self._sign = sign
        self._given_tolerance = tolerance
        self._fit: Fit | None = None
        self._fit_key: tuple[tuple[int, ...], int] | None = None
        self._learned_at: tuple[int, int] | None = (
            None  # ends and points that the fit was last looked at with
        )
        self._table: OutlookTable | None = None
        self._by_point: dict[
            int, tuple[Array, Array, Array]
        ] = {}  # of each open trial, what `Fit.predict` says
        self._tabled_best = math.nan
        self._touched: set[int] = set()

    def take_in(self, *, is_anew: bool, numbers: Iterable[int]) -> None:
        """Take note of trials that have changed; with `is_anew` forget all outlooks."""
        self._touched.update(numbers)
        if is_anew:
            self._table, self._learned_at = None, None

    def table(self, records: Mapping[int, TrialRecord], ledger: Ledger) -> OutlookTable:
        """Return the outlooks of all open trials. It is empty where too few have finished to predict."""
        self._renew_fit(records, ledger)
        if self._table is None or self._tabled_best != ledger.best:
            self._table = self._tabled(records, ledger)
            self._tabled_best = ledger.best
        else:
            for number in self._touched:
                self._update(self._table, records[number], records, ledger)
        self._touched.clear()
        return self._table

    @property
    def tolerance(self) -> float:
        """What a trial must be better by: the user's word, or a part of the noise of the best predictor."""
        if self._given_tolerance is not None:
            return self._given_tolerance
        return _NOISE_SHARE * self._fit.noise if self._fit is not None else 0.0

    @property
    def scale(self) -> Scale:
        """The scale that the outlooks are on."""
        assert self._fit is not None
        return self._fit.scale

    def _renew_fit(self, records: Mapping[int, TrialRecord], ledger: Ledger) -> None:
        at = (ledger.n_teachers, len(records))
        if at == self._learned_at:
            return
        self._learned_at = at
        self.reader.read(records)
        numbers = ledger.teachers(_fit_size(ledger.n_teachers))
        key = (tuple(numbers), self.reader.version)
        if key == self._fit_key:
            return
        self._fit_key, self._table, self._fit = key, None, None
        chosen = _chosen(numbers, records, self._sign)
        if any(is_complete(records[number]) for number in chosen):
            fit = Fit(chosen, self._prior, records, self.reader, sign=self._sign)
            self._fit = fit if fit.can_predict else None

    def _tabled(self, records: Mapping[int, TrialRecord], ledger: Ledger) -> OutlookTable:
        self._by_point = {}
        fit = self._fit
        if fit is None:
            return OutlookTable([], n_complete=ledger.n_complete)
        known = [n for n in sorted(records) if not (records[n].state.is_finished or records[n].is_continued)]
        table = OutlookTable(known, n_complete=ledger.n_complete)
        if known:
            levels, groups = self._levels(ledger), dict[int, list[int]]()
            by_point = fit.predict(known, NO_RUNG, records, levels=levels)
            self._by_point = dict(zip(known, zip(*by_point, strict=True), strict=True))
            for number in known:
                groups.setdefault(fit.rung_of(records[number]), []).append(number)
                self._mark(table, records[number])
            for rung, members in groups.items():
                self._put(table, members, rung, records, levels)
        return table

    def _update(
        self, table: OutlookTable, record: TrialRecord, records: Mapping[int, TrialRecord], ledger: Ledger
    ) -> None:
        if record.state.is_finished:
            table.drop(record.number, n_complete=ledger.n_complete)
        elif record.number in table and self._fit is not None:
            rung = self._fit.rung_of(record)
            if rung != table.rung(record.number):
                self._put(table, [record.number], rung, records, self._levels(ledger))
            self._mark(table, record)

    def _put(
        self,
        table: OutlookTable,
        numbers: Sequence[int],
        rung: int,
        records: Mapping[int, TrialRecord],
        levels: Array,
    ) -> None:
        assert self._fit is not None
        plain = (np.array(part) for part in zip(*(self._by_point[number] for number in numbers), strict=True))
        means, reaches, above = plain
        if rung != NO_RUNG:
            means, reaches, signalled = self._fit.predict(numbers, rung, records, levels=levels)
            above = (1 - _MISLED) * signalled + _MISLED * above
        table.put(numbers, rung, doubt=self._fit.doubt(rung), means=means, reaches=reaches, above=above)

    def _levels(self, ledger: Ledger) -> Array:
        assert self._fit is not None
        return np.asarray(self._fit.scale.warp(np.array(ledger.best + self.tolerance)) + LEVELS)

    @staticmethod
    def _mark(table: OutlookTable, record: TrialRecord) -> None:
        is_audited = audit_decision(record) is not None
        table.mark(
            record.number,
            is_audited=is_audited,
            is_at_rest=is_at_rest(record),
            is_training=record.is_training,
        )


def _fit_size(n: int) -> int:
    """Return how many of the trials that have ended are learned from.

    >>> _fit_size(39), _fit_size(41), _fit_size(43), _fit_size(1000)
    (39, 40, 42, 975)
    """
    if n <= _FITTED_AT_ONCE:
        return n
    size = _FITTED_AT_ONCE
    while size + size // 20 <= n:
        size += size // 20
    return size


def _chosen(numbers: Sequence[int], records: Mapping[int, TrialRecord], sign: float) -> list[int]:
    """Return at most `_MOST_TEACHERS` trials to learn from: the better half of them the best, the others spread."""
    if len(numbers) <= _MOST_TEACHERS:
        return sorted(numbers)

    def goodness(number: int) -> tuple[float, int]:
        record = records[number]
        return (sign * float(record.value or 0.0) if is_complete(record) else -math.inf, -number)

    ranked = sorted(numbers, key=goodness, reverse=True)
    n_best = _MOST_TEACHERS // 2
    rest = np.linspace(n_best, len(ranked) - 1, _MOST_TEACHERS - n_best).round().astype(int)
    return sorted((*ranked[:n_best], *(ranked[index] for index in rest)))


def _teaches(record: TrialRecord, rung: int) -> bool:
    """Whether a trial says something about those at a rung. A diverged one says something about its neighbours.

    One that trains another one on has seen more data, and says nothing.
    """
    if record.is_continued:
        return False
    if is_complete(record):
        return rung == NO_RUNG or rung in record.rungs
    return rung == NO_RUNG and has_diverged(record)
