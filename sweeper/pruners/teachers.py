"""Which of the trials that have ended the others are predicted from. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sweeper.pruners.inputs import NO_RUNG
from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialRecord

_FITTED_AT_ONCE = 40  # ends of trials that each renew the fit; later a twentieth more of them do
_MOST_TEACHERS = 64  # of one study: a fit with all its rungs then takes some 50 ms (2 cores, November 2026)


def fit_size(n: int) -> int:
    """Return how many of the trials that have ended are learned from.

    >>> fit_size(39), fit_size(41), fit_size(43), fit_size(1000)
    (39, 40, 42, 964)
    """
    if n <= _FITTED_AT_ONCE:
        return n
    size = _FITTED_AT_ONCE
    while size + size // 20 <= n:
        size += size // 20
    return size


def chosen_teachers(numbers: Sequence[int], records: Mapping[int, TrialRecord], sign: float) -> list[int]:
    """Return at most `_MOST_TEACHERS` trials to learn from: the better half of them the best, the others spread."""
    if len(numbers) <= _MOST_TEACHERS:
        return sorted(numbers)

    def place(number: int) -> tuple[float, int]:
        record = records[number]
        return (goodness(record, sign) if record.has_result else -math.inf, -number)

    ranked = sorted(numbers, key=place, reverse=True)
    n_best = _MOST_TEACHERS // 2
    rest = np.linspace(n_best, len(ranked) - 1, _MOST_TEACHERS - n_best).round().astype(int)
    return sorted((*ranked[:n_best], *(ranked[index] for index in rest)))


def teaches(record: TrialRecord, rung: int) -> bool:
    """Whether a trial says something about those at a rung. A diverged one says something about its neighbours.

    One that trains another one on has seen more data, and one that began with another one's weights does not give what
    its params give: they say nothing.
    """
    if record.is_continued or record.is_warm_started:
        return False
    if record.has_result:
        return rung == NO_RUNG or rung in record.rungs
    return rung == NO_RUNG and has_diverged(record)


def goodness(record: TrialRecord, sign: float) -> float:
    """Return the value of a complete trial so that more is better: `sign` is -1 where less of the metric is."""
    return sign * float(record.value or 0.0)
