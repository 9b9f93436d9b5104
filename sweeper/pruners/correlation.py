"""Rank correlations with bootstrap intervals: overall, within groups, and with other values taken out. Pure."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

N_RESAMPLES = 500
MIN_TRIALS = 6  # of independent data 3 to 6 % of the intervals leave out 0; of 5 it would be 13 to 16 %
MIN_GROUP = 4  # trials of one batch size or one rate
_COVERAGE = 0.95
_RIDGE = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation and its 95 % bootstrap interval."""

    rho: float  # in [-1, 1]
    low: float
    high: float
    n: int  # trials that it stands on

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on that side of 0, else 0."""
        return 1 if self.low > 0 else (-1 if self.high < 0 else 0)


def spearman(x: Array, y: Array, *, seed: int) -> Correlation | None:
    """Return Spearman's correlation; None for fewer than `MIN_TRIALS` or where one side is constant.

    Source of the interval: the percentile bootstrap over trials, Efron and Tibshirani (1993), chapter 13.
    """
    if len(x) < MIN_TRIALS or _is_constant(x) or _is_constant(y):
        return None
    draws = _resamples(len(x), seed)
    return _with_interval(_rank_rho(x, y, _all(x))[0], _rank_rho(x, y, draws), n=len(x))


def within_groups(x: Array, y: Array, groups: Array, *, seed: int) -> Correlation | None:
    """Return the mean of the correlations within each group, weighted by the group's trials.

    Groups of fewer than `MIN_GROUP` trials say nothing and are left out; trials are resampled within their group.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    kept = [m for m in members if len(m) >= MIN_GROUP and not _is_constant(x[m]) and not _is_constant(y[m])]
    if not kept:
        return None
    weights = np.array([len(m) for m in kept], dtype=float)
    rho = np.array([_rank_rho(x[m], y[m], _all(m))[0] for m in kept])
    drawn = []
    for index, m in enumerate(kept):
        drawn.append(_rank_rho(x[m], y[m], _resamples(len(m), seed + index)))
    return _with_interval(
        float(rho @ weights / weights.sum()),
        weights
        @ np.nan_to_num(np.array(drawn))
        / weights.sum(),  # a constant resample correlates with nothing
        n=int(weights.sum()),
    )


def partial(x: Array, y: Array, others: Array, *, seed: int) -> Correlation | None:
    """Return the rank correlation that is left when the ranks of `others` (one column each) are taken out of both.

    The residuals of ranks, regressed linearly on the ranks of the others, are correlated.
    """
    if len(x) < MIN_TRIALS + others.shape[1] or _is_constant(x) or _is_constant(y):
        return None
    draws = _resamples(len(x), seed)
    rho = _partial_rho(x, y, others, _all(x))[0]
    if not np.isfinite(rho):
        return None
    return _with_interval(rho, _partial_rho(x, y, others, draws), n=len(x))


def _resamples(n: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, size=(N_RESAMPLES, n))


def _with_interval(rho: float, drawn: Array, *, n: int) -> Correlation:
    tail = 100 * (1 - _COVERAGE) / 2
    # A constant resample correlates with nothing. Left out, one trial that differs from all others would look sure.
    low, high = np.percentile(np.nan_to_num(drawn), [tail, 100 - tail])
    # The percentile interval may miss its own centre where few trials and many ties are resampled.
    low, high = min(low, rho), max(high, rho)
    return Correlation(rho=round(float(rho), 4), low=round(float(low), 4), high=round(float(high), 4), n=n)


def _all(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the one draw that takes each value once."""
    return np.arange(len(values))[None]


def _ranks(values: Array, draws: npt.NDArray[np.int64]) -> Array:
    """Rank the values that each row of `draws` takes; equal ones share the mean of their ranks.

    By counting: all draws are of the same values, which are sorted once. To sort each took three times as long.
    """
    known, codes = np.unique(values, return_inverse=True)
    drawn = codes.reshape(-1)[draws]
    places = drawn + len(known) * np.arange(len(draws))[:, None]
    counts = np.bincount(places.reshape(-1), minlength=len(draws) * len(known)).reshape(len(draws), -1)
    means = counts.cumsum(axis=1) - (counts - 1) / 2
    return np.asarray(means.reshape(-1)[places])


def _rank_rho(x: Array, y: Array, draws: npt.NDArray[np.int64]) -> Array:
    """Return the correlation of ranks of each draw; NaN where one is constant."""
    return _rho(_ranks(x, draws), _ranks(y, draws))


def _rho(x: Array, y: Array) -> Array:
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    # Residuals of a perfect fit are rounding noise, whose correlation would look like a finding.
    known = scale > 1e-6
    return np.where(known, (x * y).sum(axis=1) / np.where(known, scale, 1.0), np.nan)


def _partial_rho(x: Array, y: Array, others: Array, draws: npt.NDArray[np.int64]) -> Array:
    ranks = np.stack([_ranks(column, draws) for column in others.T], axis=2)
    design = np.concatenate([np.ones((*ranks.shape[:2], 1)), ranks], axis=2)
    turned = np.swapaxes(design, 1, 2)
    # The ridge keeps a resample solvable in which one of the others is constant; it moves no other digit.
    normal = turned @ design + _RIDGE * np.eye(design.shape[2])
    values = np.stack([_ranks(x, draws), _ranks(y, draws)], axis=2)
    residuals = values - design @ np.linalg.solve(normal, turned @ values)
    return _rho(residuals[..., 0], residuals[..., 1])


def _is_constant(values: Array) -> bool:
    return bool(np.ptp(values) == 0)
