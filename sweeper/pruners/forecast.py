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
from sweeper.pruners.fit import Fit, Scale
from sweeper.pruners.inputs import NO_RUNG, InputReader
from sweeper.pruners.ledger import Ledger, is_at_rest
from sweeper.pruners.outlook import LEVELS, OutlookTable
from sweeper.pruners.teachers import chosen_teachers, fit_size, teaches
from sweeper.records import TrialRecord

# Chance that a trial's signals mean something else than they did in the finished ones: then its point decides.
_MISLED = 0.5
# Of the estimated noise that is tolerated: what two seeds of one point may differ by decides nothing.
_NOISE_SHARE = 1.0


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
        self._prior = chosen_teachers([n for n in marked if teaches(marked[n], NO_RUNG)], marked, sign)
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
        numbers = ledger.teachers(fit_size(ledger.n_teachers))
        key = (tuple(numbers), self.reader.version)
        if key == self._fit_key:
            return
        self._fit_key, self._table, self._fit = key, None, None
        chosen = chosen_teachers(numbers, records, self._sign)
        if any(records[number].has_result for number in chosen):
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
