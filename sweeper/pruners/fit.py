"""What finished trials teach about the others, fitted once. Pure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from sweeper.pruners.correlation import Array
from sweeper.pruners.inputs import NO_RUNG, InputReader
from sweeper.pruners.outlook import MAX_DOUBT
from sweeper.pruners.predict import Predictor
from sweeper.pruners.teachers import goodness, teaches
from sweeper.records import TrialRecord

_MIN_FINISHED = 4  # with fewer there is nothing to fit
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
        best = max(goodness(records[n], sign) for n in teachers if records[n].has_result)
        everyone = sorted((*prior, *teachers))
        values = np.array([goodness(known[n], sign) for n in everyone if known[n].has_result])
        self.scale = Scale(best=best, unit=float(np.median(np.abs(best - values))) or 1.0)
        self._names: dict[int, list[str]] = {}
        self._predictors: dict[int, Predictor] = {}
        for rung in sorted({NO_RUNG, *(rung for n in everyone for rung in known[n].rungs)}):
            self._learn(rung, [n for n in everyone if teaches(known[n], rung)], records)
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
        complete = [goodness(known[number], self._sign) for number in numbers if known[number].has_result]
        if len(complete) < _MIN_FINISHED:
            return
        worst = min(complete)  # a diverged point is at least as bad as any that ended
        values = [goodness(known[n], self._sign) if known[n].has_result else worst for n in numbers]
        self._names[rung] = self._reader.names(numbers, rung, records)
        inputs = self._reader.inputs(numbers, rung, records, names=self._names[rung])
        self._predictors[rung] = Predictor(inputs, self.scale.warp(np.array(values)))
