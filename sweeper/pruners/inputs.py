"""Turns trial records into what the predictor takes: design, metric and other signals at a rung. Pure."""

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.pruners.correlation import Array
from sweeper.pruners.design import calibration_points, smooth_matrix
from sweeper.pruners.predict import Inputs
from sweeper.records import GRAD_NORM, TrialRecord

NO_RUNG = -1  # of a trial that has not come to its first one


class InputReader:
    """Reads inputs from records. Keeps the design, which changes only when points are added.

    Args:
        metric: Name of the study's metric among the signals.
        prior: Completed trials of an earlier study, which teach too; their numbers are negative.
    """

    def __init__(self, metric: str | None, prior: Mapping[int, TrialRecord]) -> None:
        self._metric = metric
        self._prior = dict(prior)
        self._numbers: list[int] = []
        self._params: list[dict[str, Any]] = []
        self.version = 0  # of the design
        self.n_beside = 0  # points that were added beside those that a sampler draws, less its draws in vain
        self._rows: dict[int, Array] = {}
        self._spread: dict[int, list[int]] = {}

    def read(self, records: Mapping[int, TrialRecord]) -> None:
        """Take in which points there are. To be called when trials were added, and for other records.

        A trial that trains another one on is no point of its own, nor is a draw in vain.
        """
        points = {n: one for n, one in records.items() if not (one.is_continued or one.is_in_vain)}
        numbers = sorted(points)
        n_in_vain = sum(record.is_in_vain for record in records.values())
        self.n_beside = sum(record.origin is not None for record in points.values()) - n_in_vain
        params = [records[number].params for number in numbers]
        if numbers != self._numbers or params != self._params:
            self._numbers, self._params, self._rows, self._spread = numbers, params, {}, {}
            self.version += 1

    @property
    def n_points(self) -> int:
        """Points of the study that are known so far."""
        return len(self._numbers)

    def calibration(self, n: int) -> list[int]:
        """Return the trials that are to run to their end before anybody is judged, the most central first."""
        if n not in self._spread:
            self._spread[n] = [self._numbers[index] for index in calibration_points(self._params, n)]
        return self._spread[n]

    def names(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[str]:
        """Return the signals that trials show at a rung."""
        known = self.known(records)
        return sorted(
            {name for n in numbers if rung in known[n].rungs for name in known[n].rungs[rung].signals}
        )

    def inputs(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord], *, names: Sequence[str]
    ) -> Inputs:
        """Return the inputs of trials at a rung that they reached, or of their points alone for `NO_RUNG`.

        Args:
            names: The signals to read.
        """
        known = self.known(records)
        if not self._rows:
            everyone = [*sorted(self._prior), *self._numbers]
            varied = {name for number in everyone for name in known[number].params}
            matrix = smooth_matrix([_params(known[number], varied) for number in everyone])
            self._rows = dict(zip(everyone, matrix, strict=True))
        metric = [name for name in names if name == self._metric]
        others = [name for name in names if name != self._metric]
        return Inputs(
            design=np.stack([self._rows[number] for number in numbers]),
            # The metric's slope tells a curve that still rises from one that has come to rest.
            metric=_columns(numbers, metric, rung, known, slopes=rung > 0),
            others=_columns(numbers, others, rung, known, slopes=False),
        )

    def known(self, records: Mapping[int, TrialRecord]) -> Mapping[int, TrialRecord]:
        """Return all trials that teach or are predicted: the study's own and the earlier one's."""
        return ChainMap(self._prior, records) if self._prior else records  # type: ignore[arg-type]


def _params(record: TrialRecord, names: Iterable[str]) -> dict[str, Any]:
    """Return a trial's params, and of what only others vary the setting that it was trained with."""
    return {name: record.settings[name] for name in names if name in record.settings} | record.params


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
