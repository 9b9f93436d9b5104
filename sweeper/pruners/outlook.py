"""What is expected of each trial that has not ended: its final metric, and its chance to be the best. Pure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.pruners.correlation import Array
from sweeper.pruners.design import STUDY
from sweeper.pruners.inputs import NO_RUNG, InputReader
from sweeper.pruners.predict import Predictor
from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialRecord, TrialState

# Steps above the threshold, in median distances from the best, at which chances to be the top are compared.
_LEVELS = np.concatenate([np.linspace(0.0, 1.0, 15), np.geomspace(1.15, 6.0, 10)])
# Chance that a trial's signals mean something else than they did in the finished ones: then its point decides.
_MISLED = 0.5
_MIN_FINISHED = 4  # with fewer there is nothing to fit
_MAX_DOUBT = 0.05  # that nothing known says anything about the results
# Of the estimated noise that is tolerated: what two seeds of one point may differ by decides nothing.
_NOISE_SHARE = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is predicted for one trial, in goodness: the metric, or its negative where low is good."""

    number: int
    rung: int  # that the prediction stands on; -1: on the point alone
    chance: float  # to end best of all, by more than the tolerance above the best known
    expected: float
    low: float  # 95 % interval
    high: float
    is_trusted: bool  # whether the signals there say anything about the finished trials


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


class Forecaster:
    """Predicts from the records. What it keeps is a cache: a new one says the same.

    Args:
        metric: Name of the study's metric among the signals.
        sign: 1 where more is better, -1 where less is.
        tolerance: What counts as better, in units of the metric; None: a part of the estimated noise.
        prior: Completed trials of an earlier study. They teach, as trials that differ from this study's in one more
            dimension: which study it is. None of them counts as known best.
    """

    def __init__(
        self,
        *,
        metric: str | None,
        sign: float,
        tolerance: float | None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        self._prior = {
            number: dataclasses.replace(record, params={**record.params, STUDY: "prior"})
            for number, record in (prior or {}).items()
        }
        self.reader = InputReader(metric)
        self._sign = sign
        self._given_tolerance = tolerance
        self._predictors: dict[int, tuple[Any, Predictor | None]] = {}
        self._newest: tuple[Any, dict[int, Outlook]] | None = None

    def goodness(self, record: TrialRecord) -> float:
        return self._sign * float(record.value or 0.0)

    def scale(self, records: Mapping[int, TrialRecord]) -> Scale:
        """Return the scale of the finished trials, of which there is one at least."""
        best = max(self.goodness(record) for record in records.values() if is_complete(record))
        values = np.array([self.goodness(r) for r in self._known(records).values() if is_complete(r)])
        return Scale(best=best, unit=float(np.median(np.abs(best - values))) or 1.0)

    def _known(self, records: Mapping[int, TrialRecord]) -> Mapping[int, TrialRecord]:
        """Return all trials that teach or are predicted: the study's own and the earlier one's."""
        return {**self._prior, **records} if self._prior else records

    def tolerance(self, records: Mapping[int, TrialRecord]) -> float:
        """Return what a trial must be better by: the user's word, or a part of the noise of the best predictor."""
        if self._given_tolerance is not None:
            return self._given_tolerance
        rungs = {NO_RUNG, *(rung for record in records.values() for rung in record.rungs)}
        found = [self._predictor(rung, records) for rung in sorted(rungs)]
        noises = [p.noise() for p in found if p is not None and p.doubt < _MAX_DOUBT]
        return _NOISE_SHARE * self.scale(records).unit * min(noises, default=0.0)

    def outlooks(self, records: Mapping[int, TrialRecord], *, tolerance: float) -> dict[int, Outlook]:
        """Predict every open trial at the newest rung where enough finished trials can be learned from."""
        key = (
            tolerance,
            tuple(
                (n, r.state.is_finished, r.value, len(r.rungs), r.point_id)
                for n, r in sorted(records.items())
            ),
        )
        if self._newest is None or self._newest[0] != key:
            self._newest = (key, self._predicted(records, tolerance))
        return self._newest[1]

    def _predicted(self, records: Mapping[int, TrialRecord], tolerance: float) -> dict[int, Outlook]:
        scale, known = self.scale(records), self._known(records)
        threshold = float(scale.warp(np.array(scale.best + tolerance)))
        still_open = [number for number in sorted(records) if not records[number].state.is_finished]
        groups: dict[int, list[int]] = {}
        for number in still_open:
            groups.setdefault(self._rung_of(records[number], records), []).append(number)
        levels = threshold + _LEVELS
        found: list[tuple[int, int, float, float, float]] = []  # trial, rung, doubt, mean, reach
        above = []
        for rung, members in groups.items():
            predictor = self._predictor(rung, records)
            if predictor is None:
                continue
            prediction = predictor.predict(self.reader.inputs(members, rung, known))
            means, reach = prediction.mean(), 1.96 * prediction.deviation()
            chances = prediction.chance_above(levels)
            plain = self._predictor(NO_RUNG, records) if rung != NO_RUNG else None
            if plain is not None:
                by_point = plain.predict(self.reader.inputs(members, NO_RUNG, known)).chance_above(levels)
                chances = (1 - _MISLED) * chances + _MISLED * by_point
            above.append(chances)
            found += [
                (number, rung, predictor.doubt, float(mean), float(far))
                for number, mean, far in zip(members, means, reach, strict=True)
            ]
        if not found:
            return {}
        n_peers = len(found) + sum(map(is_complete, records.values()))
        tops = chances_to_be_top(np.concatenate(above, axis=1))
        return {
            number: Outlook(
                number=number, rung=rung, chance=max(float(top), doubt / n_peers),
                expected=scale.unwarp(mean), low=scale.unwarp(mean - far), high=scale.unwarp(mean + far),
                is_trusted=doubt < _MAX_DOUBT,
            )
            for (number, rung, doubt, mean, far), top in zip(found, tops, strict=True)
        }  # fmt: skip

    def _rung_of(self, record: TrialRecord, records: Mapping[int, TrialRecord]) -> int:
        usable = (
            rung for rung in sorted(record.rungs, reverse=True) if self._predictor(rung, records) is not None
        )
        return next(usable, NO_RUNG)

    def _predictor(self, rung: int, records: Mapping[int, TrialRecord]) -> Predictor | None:
        """Return the predictor for trials at a rung; None where too few finished trials passed it."""
        known = self._known(records)
        numbers = [n for n in sorted(known) if _teaches(known[n], rung)]
        key = (tuple(numbers), len(records))
        if rung not in self._predictors or self._predictors[rung][0] != key:
            self._predictors[rung] = (key, self._fitted(numbers, rung, records))
        return self._predictors[rung][1]

    def _fitted(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]
    ) -> Predictor | None:
        known = self._known(records)
        complete = [self.goodness(known[number]) for number in numbers if is_complete(known[number])]
        if len(complete) < _MIN_FINISHED:
            return None
        worst = min(complete)  # a diverged point is at least as bad as any that ended
        values = [self.goodness(known[n]) if is_complete(known[n]) else worst for n in numbers]
        return Predictor(self.reader.inputs(numbers, rung, known), self.scale(records).warp(np.array(values)))


def chances_to_be_top(above: Array) -> Array:
    """Return each trial's chance to end above the threshold and above all other open trials.

    Args:
        above: Each trial's (column) chance to end above each level (row); the first level is the threshold.

    Only one trial can be the top, so these chances say far less than those to beat the threshold while good points
    are still open; and a study fails only if a stopped trial would have been the top, so their sum bounds its risk.
    Between two levels the others are taken to stay below the upper one, which makes the chance rather too large. Given
    the finished trials, the open ones are taken as independent.
    """
    below = np.clip(1.0 - above, 1e-300, 1.0)
    logs = np.log(below)
    others = np.exp(logs.sum(axis=1, keepdims=True) - logs)
    # Past the last level nobody is.
    inside = above - np.concatenate([above[1:], np.zeros((1, above.shape[1]))])
    upper = np.concatenate([others[1:], np.ones((1, above.shape[1]))])
    return np.asarray((inside * upper).sum(axis=0))


def is_complete(record: TrialRecord) -> bool:
    """Whether a trial has a final metric."""
    return record.state is TrialState.COMPLETE and record.value is not None and math.isfinite(record.value)


def _teaches(record: TrialRecord, rung: int) -> bool:
    """Whether a trial says something about those at a rung. A diverged one says something about its neighbours."""
    if is_complete(record):
        return rung == NO_RUNG or rung in record.rungs
    return rung == NO_RUNG and has_diverged(record)
