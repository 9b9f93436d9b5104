"""The best learning rate against the batch size, from a parabola over the grid. Pure: numbers in, numbers out."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_INTERVAL = 0.95
_MIN_FREE = 3  # values beyond the parabola's terms, so that their scatter says how sure it is
_MIN_RATES = 3
_ROUNDING = 1e-9  # values that differ by less, relatively, are equal: what is fitted to them is rounding
_RATE, _BEND, _SLANT = 1, 2, 3  # places among the terms: x, x**2 and x z of log rate x and log batch z


class Trained(NamedTuple):
    """One trial that was trained to its end."""

    rate: float
    batch: int
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateFit:
    """Where the fitted parabola has its top."""

    rates: dict[int, Estimate]  # best rate of each batch size that was tried
    exponent: Estimate | None  # best rate ~ batch ** exponent; None where there is one batch size
    r_squared: float  # share of the values' variance that the parabola explains
    n: int  # trials


def fit_best_rate(trained: Sequence[Trained], *, maximize: bool) -> RateFit | None:
    """Fit the best rate as a power of the batch size.

    The metric is taken as a parabola in the logarithms of rate and batch size, all second-order terms included, so
    that the best rate's logarithm is a straight line in that of the batch size. Intervals are Fieller's, exact for
    normal noise of one size; what the parabola does not describe counts as noise too.

    Returns:
        The fit, or None where it cannot be told: there are fewer than three rates at some batch size or too few
        trials, or the parabola's bend may as well be the other way, so that it has no top.

    Source: Fieller, "Some problems in interval estimation", 1954, for the ratio of two estimated numbers.
    """
    usable = [one for one in trained if math.isfinite(one.value) and one.rate > 0]
    batches = sorted({one.batch for one in usable})
    if not batches or any(len({o.rate for o in usable if o.batch == b}) < _MIN_RATES for b in batches):
        return None
    matrix, middle = _design(usable, n_batches=len(batches))
    parabola = _solved(matrix, np.array([one.value for one in usable]) * (1.0 if maximize else -1.0))
    if parabola is None:
        return None
    tops = _tops(parabola, batches, middle[1])
    exponent = parabola.top(parabola.picking(_SLANT)) if len(batches) > 1 else None
    found = [top for top in tops if top is not None]
    if len(found) < len(tops) or (len(batches) > 1 and exponent is None):
        return None
    return RateFit(
        rates={batch: _rate_of(top, middle[0]) for batch, top in zip(batches, found, strict=True)},
        exponent=exponent,
        r_squared=parabola.r_squared,
        n=len(usable),
    )


def _design(usable: Sequence[Trained], *, n_batches: int) -> tuple[Any, tuple[float, float]]:
    """Return the parabola's terms, a row for each trial, and the middle of log rate and log batch that they are of."""
    x, z = (np.log([getattr(one, name) for one in usable]) for name in ("rate", "batch"))
    middle = (float(x.mean()), float(z.mean()))
    x, z = x - middle[0], z - middle[1]
    columns = [np.ones_like(x), x, x**2]
    if n_batches > 1:
        columns += [x * z, z]
    if n_batches > 2:
        columns.append(z**2)
    return np.stack(columns, axis=1), middle


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parabola:
    """A fitted parabola."""

    terms: Any  # in the order of `_design`
    covariance: Any
    t: float  # of Student, for the interval
    r_squared: float

    def picking(self, index: int) -> Any:
        """Return what picks one of the terms."""
        picked = np.zeros(len(self.terms))
        picked[index] = 1.0
        return picked

    def top(self, numerator: Any) -> Estimate | None:
        """Return -(numerator of terms) / (2 c) with its interval; None where that has no bounds or the bend is up."""
        bend = 2.0 * self.picking(_BEND)
        a, b = float(numerator @ self.terms), float(bend @ self.terms)
        va, vb, vab = (
            float(left @ self.covariance @ right)
            for left, right in ((numerator, numerator), (bend, bend), (numerator, bend))
        )
        square = b * b - self.t * self.t * vb
        if b >= 0 or square <= 0:
            return None
        half = a * b - self.t * self.t * vab
        root = math.sqrt(max(0.0, half * half - square * (a * a - self.t * self.t * va)))
        return Estimate(value=-a / b, low=(-half - root) / square, high=(-half + root) / square)


def _solved(matrix: Any, y: Any) -> _Parabola | None:
    """Fit the terms by least squares; None where the trials are too few or too alike to tell them."""
    n_free = len(y) - matrix.shape[1]
    if n_free < _MIN_FREE or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        return None
    from scipy.special import stdtrit  # `scipy.stats` takes half a second to load

    spread = float(((y - y.mean()) ** 2).sum())
    if spread <= len(y) * (_ROUNDING * float(np.abs(y).max())) ** 2:
        return None
    terms, *_ = np.linalg.lstsq(matrix, y, rcond=None)
    residual = float(((y - matrix @ terms) ** 2).sum())
    return _Parabola(
        terms=terms,
        covariance=np.linalg.inv(matrix.T @ matrix) * residual / n_free,
        t=float(stdtrit(n_free, (1 + _INTERVAL) / 2)),
        r_squared=1 - residual / spread,
    )


def _tops(parabola: _Parabola, batches: Sequence[int], middle: float) -> list[Estimate | None]:
    """Return where each batch size has its top; `middle` is that of log batch."""
    tops = []
    for batch in batches:
        # The slope at the top is nothing: b + e z + 2 c x = 0.
        slope = parabola.picking(_RATE)
        if len(batches) > 1:
            slope[_SLANT] = math.log(batch) - middle
        tops.append(parabola.top(slope))
    return tops


def _rate_of(top: Estimate, middle: float) -> Estimate:
    return Estimate(value=_exp(top.value + middle), low=_exp(top.low + middle), high=_exp(top.high + middle))


def _exp(value: float) -> float:
    return math.exp(min(700.0, value))
