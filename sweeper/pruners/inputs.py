"""Turns trial records into what the predictor takes: design, metric and other signals at a rung. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sweeper.pruners.correlation import Array
from sweeper.pruners.design import design_matrix, smooth_matrix, spread_out
from sweeper.pruners.predict import Inputs
from sweeper.records import GRAD_NORM, TrialRecord

NO_RUNG = -1  # of a trial that has not come to its first one


class InputReader:
    """Reads inputs from records. Keeps the last design, which changes only when points are added."""

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._numbers: tuple[int, ...] = ()
        self._rows: dict[int, Array] = {}
        self._spread: tuple[tuple[tuple[int, ...], int], list[int]] | None = None

    def calibration(self, records: Mapping[int, TrialRecord], n: int) -> list[int]:
        """Return the trials whose points cover the space best, the most central first."""
        numbers = tuple(sorted(records))
        if self._spread is None or self._spread[0] != (numbers, n):
            points = design_matrix([records[number].params for number in numbers])
            self._spread = ((numbers, n), [numbers[index] for index in spread_out(points, n)])
        return self._spread[1]

    def inputs(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> Inputs:
        """Return the inputs of trials at a rung that they reached, or of their points alone for `NO_RUNG`."""
        self._read_design(records)
        names = sorted({name for r in records.values() if rung in r.rungs for name in r.rungs[rung].signals})
        metric = [name for name in names if name == self._metric]
        others = [name for name in names if name != self._metric]
        return Inputs(
            design=np.stack([self._rows[number] for number in numbers]),
            # The metric's slope tells a curve that still rises from one that has come to rest.
            metric=self._columns(numbers, metric, rung, records, slopes=rung > 0),
            others=self._columns(numbers, others, rung, records, slopes=False),
        )

    def _read_design(self, records: Mapping[int, TrialRecord]) -> None:
        numbers = tuple(sorted(records))
        if numbers != self._numbers:
            matrix = smooth_matrix([records[number].params for number in numbers])
            self._numbers = numbers
            self._rows = dict(zip(numbers, matrix, strict=True))

    @staticmethod
    def _columns(
        numbers: Sequence[int],
        names: Sequence[str],
        rung: int,
        records: Mapping[int, TrialRecord],
        *,
        slopes: bool,
    ) -> Array:
        columns = []
        for name in names:
            now = _column(numbers, rung, name, records)
            columns.append(now)
            if slopes:
                columns.append(now - _column(numbers, rung - 1, name, records))
        return np.stack(columns, axis=1) if columns else np.zeros((len(numbers), 0))


def _column(numbers: Sequence[int], rung: int, name: str, records: Mapping[int, TrialRecord]) -> Array:
    rungs = [records[number].rungs.get(rung) for number in numbers]
    values = np.array([math.nan if at is None else at.signals.get(name, math.nan) for at in rungs])
    if name == GRAD_NORM:
        return np.where(values > 0, np.log(np.where(values > 0, values, 1.0)), math.nan)
    return np.where(np.isfinite(values), values, math.nan)
