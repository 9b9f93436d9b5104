"""Whether one model scores better than another on the same items, beyond the chance of which items those are. Pure.

What it does not know is the seed: two trainings of one point differ too. `sweeper confirm` measures that.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from sweeper.confirm.statistics import smallest_n

N_RESAMPLES = 9_999
INTERVAL = 0.95
_DRAWN = 0  # seed of the resamples: the same items always give the same answer
_MAX_VALUES = 20_000_000  # that one batch of resamples may hold: 160 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemComparison:
    """A against B on one measure of one source. Differences are positive where A is better."""

    source: str  # an eval set, or `bench/<name>`
    measure: str
    n: int  # items that both were measured on
    means: tuple[float, float]  # over these items, of A and B
    difference: float
    low: float  # bootstrap interval of 95 %, of this comparison alone
    high: float
    p: float  # two-sided, by permutation of signs; 1 where nothing was tested
    least: int | None = None  # with fewer items no difference can be claimed; None where there are enough
    p_corrected: float = 1.0  # by Holm, for all comparisons together
    is_real: bool = False


def compare_items(
    source: str, measure: str, first: Sequence[float], second: Sequence[float], *, lower_is_better: bool, alpha: float
) -> ItemComparison:  # fmt: skip
    """Compare two models' values of the same items, in the same order.

    Too few items for any permutation to reject with are not tested: `least` says how many it takes.
    """
    sign = -1.0 if lower_is_better else 1.0
    differences = sign * (np.asarray(first, dtype=float) - np.asarray(second, dtype=float))
    n, least = len(differences), smallest_n("permutation", alpha=alpha)
    nothing = float("nan")
    means = (float(np.mean(first)), float(np.mean(second))) if n else (nothing, nothing)
    mean = float(differences.mean()) if n else nothing
    low, high, p = nothing, nothing, 1.0
    if n >= least:
        low, high = bootstrap_interval(differences)
        p = permutation_p(differences)
    return ItemComparison(
        source=source, measure=measure, n=n, means=means, difference=mean, low=low, high=high, p=p,
        least=least if n < least else None,
    )  # fmt: skip


def bootstrap_interval(differences: "np.ndarray") -> tuple[float, float]:
    """Return the interval of the mean difference over items, by percentiles.

    Not bias-corrected and accelerated: that takes n**2 values, and has no answer where nearly all items are alike.
    """
    if np.ptp(differences) == 0.0:
        return float(differences[0]), float(differences[0])
    found = stats.bootstrap(
        (differences,), np.mean, method="percentile", confidence_level=INTERVAL, n_resamples=N_RESAMPLES,
        vectorized=True, batch=max(1, _MAX_VALUES // len(differences)), rng=np.random.default_rng(_DRAWN),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def permutation_p(differences: "np.ndarray") -> float:
    """Return how likely a mean difference as large is if each item could as well have gone the other way.

    Items on which both score alike say nothing and are left out; they would only add equal flips.
    """
    told = differences[differences != 0.0]
    if len(told) == 0:
        return 1.0
    found = stats.permutation_test(
        (told,), np.mean, permutation_type="samples", n_resamples=N_RESAMPLES, vectorized=True,
        batch=max(1, _MAX_VALUES // len(told)), rng=np.random.default_rng(_DRAWN),
    )  # fmt: skip
    return float(found.pvalue)
