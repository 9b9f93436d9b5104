"""Whether one model scores better than another on the same items, beyond the chance of which items those are. Pure.

What it does not know is the seed: two trainings of one point differ too. `sweeper confirm` measures that.
"""

import dataclasses
import itertools
import math
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


def least_items(counts: Sequence[int], *, alpha: float) -> list[int | None]:
    """Return for each comparison, of so many items, None where it is to be tested, else how many items it takes.

    Tested are the largest ones that can all be claimed together, were every item to go the same way: more comparisons
    take more items each, and those that could never be claimed would only cost the others.

    >>> least_items([6, 200], alpha=0.05), least_items([6, 6, 6, 6], alpha=0.05), least_items([5], alpha=0.05)
    ([None, None], [8, 8, 8, 8], [6])
    """
    tested = sorted(counts, reverse=True)
    while tested and not _is_claimable(tested, alpha):
        tested = [count for count in tested if count > tested[-1]]
    n_left = len(counts) - len(tested)
    needed = next(n for n in itertools.count(1) if _is_claimable([*tested, *[n] * n_left], alpha))
    return [None if tested and count >= tested[-1] else needed for count in counts]


def _is_claimable(counts: Sequence[int], alpha: float) -> bool:
    """Return whether Holm's correction lets comparisons of so many items all be claimed."""
    return all(
        count >= smallest_n("permutation", alpha=alpha / (len(counts) - index))
        for index, count in enumerate(sorted(counts, reverse=True))
    )


def compare_items(
    source: str, measure: str, first: Sequence[float], second: Sequence[float], *, lower_is_better: bool,
    least: int | None = None,
) -> ItemComparison:  # fmt: skip
    """Compare two models' values of the same items, in the same order.

    Where there are too few of them for any difference to be claimed, `least` says how many it takes; not tested then.
    """
    sign = -1.0 if lower_is_better else 1.0
    differences = sign * (np.asarray(first, dtype=float) - np.asarray(second, dtype=float))
    n = len(differences)
    nothing = float("nan")
    means = (float(np.mean(first)), float(np.mean(second))) if n else (nothing, nothing)
    mean = float(differences.mean()) if n else nothing
    low, high, p = nothing, nothing, 1.0
    if least is None:
        low, high = bootstrap_interval(differences)
        p = permutation_p(differences)
    return ItemComparison(
        source=source, measure=measure, n=n, means=means, difference=mean, low=low, high=high, p=p,
        least=least,
    )  # fmt: skip


def bootstrap_interval(differences: "np.ndarray") -> tuple[float, float]:
    """Return the interval of the mean difference over items, by percentiles, which are expanded where items are few.

    Not bias-corrected and accelerated: that takes n**2 values, and has no answer where nearly all items are alike.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, 3.3: percentiles alone cover as the
        normal interval with the biased deviation does, 85 % instead of 95 % at 6 items; so wider ones are taken.
    """
    if np.ptp(differences) == 0.0:
        return float(differences[0]), float(differences[0])
    found = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=N_RESAMPLES, vectorized=True,
        confidence_level=_expanded(len(differences)),
        batch=max(1, _MAX_VALUES // len(differences)), rng=np.random.default_rng(_DRAWN),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _expanded(n: int) -> float:
    """Return the share between the percentiles whose interval is as wide as Student's, of n values."""
    return 2.0 * float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 + INTERVAL) / 2, n - 1))) - 1.0


def permutation_p(differences: "np.ndarray") -> float:
    """Return how likely a mean difference as large is if each item could as well have gone the other way.

    Items on which both score alike say nothing and are left out; they would only add equal flips.
    """
    told = differences[differences != 0.0]
    if len(told) < 2:  # one flip and its mirror are equally likely
        return 1.0
    found = stats.permutation_test(
        (told,), np.mean, permutation_type="samples", n_resamples=N_RESAMPLES, vectorized=True,
        batch=max(1, _MAX_VALUES // len(told)), rng=np.random.default_rng(_DRAWN),
    )  # fmt: skip
    return float(found.pvalue)
