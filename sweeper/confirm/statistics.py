"""Whether one candidate is better than another beyond the noise of the seed. Pure: numbers in, numbers out.

Every candidate is compared with one reference that was named before any of the numbers was there. The candidates
are trained with the same seeds, so a comparison is made on the differences seed by seed; with several comparisons a
correction keeps the risk of a single false claim among them all at most `alpha`: Holm's for t, Westfall and Young's
for signs.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from sweeper.errors import ConfigError

TestName = Literal["t", "permutation"]
ALPHA = 0.05  # risk of claiming any difference where there is none
_MIN_T = 2  # values that have a standard deviation
PERMUTATION = "paired permutation"
_EXACT_LIMIT = 13  # pairs; 2**13 sign changes are tried in full, of more a sample
_RESAMPLES = 9_999
_DRAWN = 0  # seed of the resamples: the same values always give the same answer
_INTERVAL = 0.95

Values = Mapping[
    int, float
]  # of one candidate: final metric by seed; only seeds that were trained to the end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One candidate against the reference. Differences are positive where the candidate is better."""

    candidate: int  # index; the reference is 0
    test: str  # what was made: "paired t", "paired permutation", "Welch's t", or "none"
    n: int  # pairs; without pairs, values of the smaller side
    difference: float  # mean, in the metric's units; NaN where there are no values
    low: float  # bounds of its interval of 95 %, of this comparison alone
    high: float
    noise: float  # standard deviation of the difference from seed to seed
    p: float  # two-sided; 1 where nothing could be tested
    p_corrected: float = 1.0  # for all comparisons together
    n_diverged: tuple[int, int] = (0, 0)  # seeds of the reference and of the candidate, which have no value
    is_real: bool = False  # p_corrected <= alpha, and no seed of either has diverged


def smallest_n(test: TestName, *, alpha: float = ALPHA) -> int:
    """Return the fewest seeds with which `test` can reject at all, correction included.

    >>> smallest_n("permutation"), smallest_n("permutation", alpha=0.01), smallest_n("t")
    (6, 8, 2)
    """
    if test == "t":
        return _MIN_T
    # Of n differences 2**n choices of signs are equally likely, and two of them are the most extreme. The correction
    # flips all comparisons together, so their number does not matter.
    n = 1
    while 2.0 / 2**n > alpha:
        n += 1
    return n


def refuse_too_few(test: TestName, *, n_seeds: int, n_comparisons: int, alpha: float = ALPHA) -> None:
    """Refuse a number of seeds with which no difference could ever be claimed.

    Raises:
        ConfigError: With the smallest number that can.
    """
    least = smallest_n(test, alpha=alpha)
    if n_seeds < least:
        comparisons = "1 comparison" if n_comparisons == 1 else f"{n_comparisons} comparisons"
        raise ConfigError(
            f"`--seeds` = {n_seeds} is too few: over {comparisons} the test `{test}` cannot claim any difference at a "
            f"risk of {alpha:g}, however large it is. The smallest number that can is {least}; 8 find a difference of "
            "three standard deviations."
        )


def compare(
    candidates: Sequence[Values], *, maximize: bool, test: TestName = "t", alpha: float = ALPHA,
    n_diverged: Sequence[int] = (),
) -> tuple[Comparison, ...]:  # fmt: skip
    """Compare each candidate with the first.

    Seeds that diverged have no value to compare, and are the worst that can come out: where there are any, the seeds
    that are left say nothing of the candidate, so no difference is claimed.

    Args:
        candidates: Values by seed; the first is the reference.
        maximize: Whether more is better.
        test: Student's paired t, or the permutation of the pairs' signs, which assumes no normal noise.
        alpha: Risk of claiming any difference where there is none.
        n_diverged: How many seeds of each candidate diverged; empty: none.
    """
    lost = n_diverged or [0] * len(candidates)
    sign = 1.0 if maximize else -1.0
    made = [
        _compare(candidates[0], values, index, sign, test)
        for index, values in enumerate(candidates[1:], start=1)
    ]
    corrected = _corrected(candidates, made)
    return tuple(
        dataclasses.replace(comparison, p_corrected=p, n_diverged=both, is_real=p <= alpha and not any(both))
        for comparison in made
        for p, both in [(corrected[comparison.candidate], (lost[0], lost[comparison.candidate]))]
    )


def _corrected(candidates: Sequence[Values], made: Sequence[Comparison]) -> dict[int, float]:
    """Return each candidate's p-value, corrected for the number of those that could be tested."""
    tested = [comparison for comparison in made if comparison.test != "none"]
    if tested and all(comparison.test == PERMUTATION for comparison in tested):
        found = westfall_young(candidates[0], [candidates[comparison.candidate] for comparison in tested])
    else:
        found = holm([comparison.p for comparison in tested])
    corrected = {comparison.candidate: comparison.p for comparison in made}
    return corrected | {comparison.candidate: p for comparison, p in zip(tested, found, strict=True)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def westfall_young(reference: Values, others: Sequence[Values]) -> list[float]:
    """Return each candidate's p-value, corrected for all of them, by flipping the signs of whole seeds.

    A flip turns a seed's differences of all candidates at once, so what they have in common (the reference, the seed)
    is kept, and no p-value is paid for twice: the smallest possible one is 2 / 2**n, however many candidates there are.

    Source: Westfall and Young, "Resampling-Based Multiple Testing", 1993, step-down maxT. Differs: the statistic is
        |mean| / root mean square, which orders flips as |t| does and is finite without noise.
    """
    seeds = sorted({seed for values in others for seed in values.keys() & reference.keys()})
    differences = np.array(
        [
            [values[s] - reference[s] if s in values and s in reference else 0.0 for s in seeds]
            for values in others
        ]
    )
    n_pairs = np.array([sum(s in values and s in reference for s in seeds) for values in others])
    scale = np.sqrt(n_pairs * (differences**2).sum(axis=1))
    scaled = differences / np.where(scale > 0, scale, 1.0)[:, None]
    flipped = np.abs(_sign_flips(len(seeds)) @ scaled.T)  # a row per flip, the first being none
    observed = flipped[0]
    order = np.argsort(-observed, kind="stable")
    corrected, highest = [1.0] * len(others), 0.0
    for rank, index in enumerate(order):
        largest = flipped[:, order[rank:]].max(axis=1)
        highest = max(highest, float((largest >= observed[index] * (1 - 1e-9)).mean()))
        corrected[index] = highest
    return corrected


def _sign_flips(n: int) -> "np.ndarray":
    """Return choices of n signs, a row each: every one, or of too many a sample; the first leaves all as they are."""
    if n <= _EXACT_LIMIT:
        numbers = np.arange(2**n)
        return 1.0 - 2.0 * ((numbers[:, None] >> np.arange(n)) & 1)
    drawn = np.random.default_rng(_DRAWN).choice([-1.0, 1.0], size=(_RESAMPLES, n))
    return np.vstack([np.ones(n), drawn])


def _compare(reference: Values, values: Values, index: int, sign: float, test: TestName) -> Comparison:
    shared = sorted(reference.keys() & values.keys())
    if len(shared) >= _MIN_T:
        differences = np.array([sign * (values[seed] - reference[seed]) for seed in shared])
        return _paired(differences, index, test)
    first, second = (sign * np.array(list(side.values()), dtype=float) for side in (reference, values))
    if min(len(first), len(second)) >= _MIN_T:
        return _unpaired(first, second, index)
    difference = float(second.mean() - first.mean()) if len(first) and len(second) else math.nan
    return Comparison(
        candidate=index, test="none", n=min(len(first), len(second)), difference=difference, low=-math.inf,
        high=math.inf, noise=math.nan, p=1.0,
    )  # fmt: skip


def _paired(differences: "np.ndarray", index: int, test: TestName) -> Comparison:
    n, mean, noise = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    if noise <= 1e-12 * max(abs(mean), 1e-300):
        # No noise, so no t: the signs alone say how likely it is that all seeds agree by chance.
        name, p, half = PERMUTATION, (1.0 if mean == 0 else min(1.0, 2.0 / 2**n)), 0.0
    else:
        half = float(stats.t.ppf((1 + _INTERVAL) / 2, n - 1)) * noise / math.sqrt(n)
        name = "paired t" if test == "t" else PERMUTATION
        p = (
            2.0 * float(stats.t.sf(abs(mean) * math.sqrt(n) / noise, n - 1))
            if test == "t"
            else _permuted(differences)
        )
    return Comparison(
        candidate=index, test=name, n=n, difference=mean, low=mean - half, high=mean + half, noise=noise, p=p
    )


def _permuted(differences: "np.ndarray") -> float:
    resamples = np.inf if len(differences) <= _EXACT_LIMIT else _RESAMPLES
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=resamples,
        rng=np.random.default_rng(_DRAWN), vectorized=True,
    )  # fmt: skip
    return float(found.pvalue)


def _unpaired(first: "np.ndarray", second: "np.ndarray", index: int) -> Comparison:
    difference = float(second.mean() - first.mean())
    noise = math.sqrt(float(first.var(ddof=1)) + float(second.var(ddof=1)))
    n = min(len(first), len(second))
    if noise <= 1e-12 * max(abs(difference), 1e-300):
        low, high, p = difference, difference, 1.0  # nothing moves the values, so nothing can be tested
    else:
        found = stats.ttest_ind(second, first, equal_var=False)
        low, high = map(float, found.confidence_interval(_INTERVAL))
        p = float(found.pvalue)
    return Comparison(
        candidate=index, test="Welch's t", n=n, difference=difference, low=low, high=high, noise=noise, p=p
    )
