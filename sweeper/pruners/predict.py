"""Predicts final metrics from a point's place in the grid and its early signals. Pure.

Gaussian processes over the design and the signals, averaged over a fixed set of length scales, shares and noise
levels, each weighted by how well it explains the finished trials, with the amplitude integrated out. With eight trials
the one best set is far too sure of itself; the average is not. The weights also decide what the signals are worth:
where they say nothing, the sets without them win, and the prediction is that of the point alone. One more set says that
nothing known says anything; its weight is the predictor's doubt in itself.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2 and 5.4; Student-t
    predictions with the amplitude integrated out as in O'Hagan, Kendall's Advanced Theory of Statistics 2B (1994).
    Kernels are scikit-learn's. Its GaussianProcessRegressor gives the same numbers for one set (a test compares
    them), but took 22 ms for one fit and prediction with 30 trials where all 55 sets stacked take 5 ms (2 cores,
    November 2026).
"""

import dataclasses
import functools
import itertools

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr
from sklearn.gaussian_process.kernels import RBF, Matern

from sweeper.pruners.correlation import Array

_LENGTHS = (0.2, 0.5, 1.2)  # of the design, whose columns span 1
_SHARES = (  # of design, metric, other signals
    (1.0, 0.0, 0.0),
    (0.6, 0.4, 0.0),
    (0.25, 0.75, 0.0),
    (0.6, 0.0, 0.4),
    (0.3, 0.0, 0.7),
    (0.4, 0.35, 0.25),
)
_NOISES = (0.003, 0.03, 0.2)  # variance beside the signal's 1
_BIAS = 4.0  # variance of the constant
_SIGNAL_LENGTH = 1.4  # standard deviations per root of the number of signals: smooth, nearly monotone
_SHAPE, _RATE = 1.5, 0.75  # inverse gamma of the amplitude of values scaled to variance 1
_NOTHING_PRIOR = 0.15  # odds, beside all other sets, that nothing known says anything about the result
_NEGLIGIBLE = 1e-4  # weight of a set that predictions do without
_CLIP = 3.0  # standard deviations; a signal further out says no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is known of some trials, one row each; NaN where a signal is missing."""

    design: Array
    metric: Array  # the study's metric at the rung, and its change since the one before; may have no columns
    others: Array  # every other signal; may have no columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted final metrics as a mixture of Student-t: one row for every set, one column for every trial."""

    weights: Array
    means: Array
    scales: Array
    freedom: float

    def chance_above(self, thresholds: Array) -> Array:
        """Return each trial's probability (column) to end above each threshold (row)."""
        standard = (self.means[:, None, :] - thresholds[None, :, None]) / self.scales[:, None, :]
        above = stdtr(self.freedom, standard)
        return np.asarray(np.tensordot(self.weights, above, axes=1))

    def mean(self) -> Array:
        return np.asarray(self.weights @ self.means)

    def deviation(self) -> Array:
        """Return the standard deviations of the mixture."""
        within = self.scales**2 * self.freedom / (self.freedom - 2.0)
        return np.asarray(np.sqrt(self.weights @ (within + (self.means - self.mean()) ** 2)))


class Predictor:
    """Fitted to the finished trials of one study.

    Args:
        inputs: The finished trials.
        goodness: Their final metrics, high is good.
    """

    def __init__(self, inputs: Inputs, goodness: Array) -> None:
        self._center, self._spread = float(goodness.mean()), float(goodness.std()) or 1.0
        self._scalings = [_scaling(block) for block in (inputs.metric, inputs.others)]
        self._blocks = self._scaled(inputs)
        self._sets = _sets(inputs.metric.shape[1] > 0, inputs.others.shape[1] > 0)
        y = (goodness - self._center) / self._spread
        n = len(y)
        covariance = self._covariances(self._blocks, self._blocks, np.arange(len(self._sets)))
        covariance += np.array([one.noise for one in self._sets])[:, None, None] * np.eye(n)
        self._cholesky = np.linalg.cholesky(covariance)
        self._inverse = np.linalg.inv(covariance)
        self._alpha = self._inverse @ y
        quadratic = self._alpha @ y
        self._freedom = n + 2 * _SHAPE
        self._amplitude = (_RATE + quadratic / 2) / (_SHAPE + n / 2)
        log_determinant = 2 * np.log(np.diagonal(self._cholesky, axis1=1, axis2=2)).sum(axis=1)
        evidence = -log_determinant / 2 - (_SHAPE + n / 2) * np.log(_RATE + quadratic / 2)
        evidence += np.log([one.prior for one in self._sets])
        self._weights = np.exp(evidence - evidence.max())
        self._weights /= self._weights.sum()
        self.inflation = self._calibrated(y)

    def predict(self, inputs: Inputs) -> Prediction:
        """Predict the final metrics of further trials."""
        kept = np.flatnonzero(
            self._weights >= _NEGLIGIBLE
        )  # 10 of 55, as a rule: the rest costs time, not accuracy
        cross = self._covariances(self._scaled(inputs), self._blocks, kept)
        prior = np.array([_BIAS + sum(self._sets[index].shares) + self._sets[index].noise for index in kept])
        variance = prior[:, None] - ((cross @ self._inverse[kept]) * cross).sum(axis=2)
        scales = np.sqrt(np.maximum(variance, 1e-9) * self._amplitude[kept][:, None])
        return Prediction(
            weights=self._weights[kept] / self._weights[kept].sum(),
            means=self._center + self._spread * (cross @ self._alpha[kept][:, :, None])[:, :, 0],
            scales=self._spread * self.inflation * scales,
            freedom=self._freedom,
        )

    @property
    def doubt(self) -> float:
        """The probability that nothing known says anything about the result."""
        return float(self._weights[-1])

    def noise(self) -> float:
        """Return the standard deviation that the finished trials seem to have around what is known of them."""
        variance = np.array([one.noise for one in self._sets]) * self._amplitude
        return float(self._spread * np.sqrt(self._weights @ variance))

    def leave_one_out(self, y: Array) -> tuple[Array, Array]:
        """Return each finished trial's predicted mean and standard deviation from the others, in scaled values.

        Source: Rasmussen and Williams (2006), equations 5.10 to 5.12.
        """
        diagonal = np.diagonal(self._inverse, axis1=1, axis2=2)
        means = self._weights @ (y - self._alpha / diagonal)
        spread = (y - self._alpha / diagonal - means) ** 2
        variances = self._weights @ (self._amplitude[:, None] / diagonal + spread)
        return means, np.sqrt(variances)

    def _calibrated(self, y: Array) -> float:
        """Return how much wider the errors of leave-one-out are than predicted; never below 1."""
        means, deviations = self.leave_one_out(y)
        self.scores = (y - means) / deviations
        return max(1.0, float(np.sqrt(np.mean(self.scores**2))))

    def _scaled(self, inputs: Inputs) -> tuple[Array, Array, Array]:
        metric, others = (
            np.nan_to_num(np.clip((block - center) / spread, -_CLIP, _CLIP))
            for block, (center, spread) in zip((inputs.metric, inputs.others), self._scalings, strict=True)
        )
        return inputs.design, metric, others

    def _covariances(
        self, left: tuple[Array, ...], right: tuple[Array, ...], sets: npt.NDArray[np.intp]
    ) -> Array:
        """Return the covariance of the sets with these indices, without noise: sets x left x right."""
        design = {
            length: Matern(length_scale=length * max(1.0, np.sqrt(left[0].shape[1] / 2)), nu=2.5)(
                left[0], right[0]
            )
            if left[0].shape[1]
            else np.zeros((len(left[0]), len(right[0])))
            for length in _LENGTHS
        }
        signals = [
            RBF(length_scale=_SIGNAL_LENGTH * np.sqrt(a.shape[1]))(a, b)
            if a.shape[1]
            else np.zeros((len(a), len(b)))
            for a, b in zip(left[1:], right[1:], strict=True)
        ]
        stacked = np.stack([*design.values(), *signals]).reshape(len(_LENGTHS) + 2, -1)
        shares = np.array([self._sets[index].shares for index in sets])
        return np.asarray(_BIAS + (shares @ stacked).reshape(len(sets), len(left[0]), len(right[0])))


@dataclasses.dataclass(frozen=True)
class _Set:
    shares: tuple[float, ...]  # of the kernels: one for every length, metric, others
    noise: float
    prior: float  # weight before anything is known


@functools.cache
def _sets(has_metric: bool, has_others: bool) -> tuple[_Set, ...]:
    found = []
    for (design, metric, others), noise in itertools.product(_SHARES, _NOISES):
        if (metric and not has_metric) or (others and not has_others):
            continue
        for index in range(len(_LENGTHS)):
            on_length = [0.0] * len(_LENGTHS)
            on_length[index] = design
            found.append(_Set((*on_length, metric, others), noise, 1.0))
    nothing = _Set((0.0,) * (len(_LENGTHS) + 2), 1.0, _NOTHING_PRIOR * len(found))
    return (*found, nothing)


def _scaling(block: Array) -> tuple[Array, Array]:
    """Return center and spread of each column, of what is finite."""
    if not block.size:
        return np.zeros(block.shape[1]), np.ones(block.shape[1])
    finite = np.where(np.isfinite(block), block, np.nan)
    known = np.isfinite(finite).any(axis=0)
    finite[:, ~known] = 0.0
    spread = np.nanstd(finite, axis=0)
    return np.nanmean(finite, axis=0), np.where(spread > 0, spread, 1.0)
