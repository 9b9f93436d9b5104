"""The statistics of `confirm`: known cases against scipy, and their risk and power in simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeper.confirm.statistics import TestName, compare, holm, refuse_too_few, smallest_n
from sweeper.errors import ConfigError

REFERENCE = {0: 1.0, 1: 2.0, 2: 4.0, 3: 3.0, 4: 6.0}
OTHER = {0: 2.0, 1: 3.5, 2: 4.5, 3: 5.0, 4: 7.5}


def simulate(
    n_studies: int, *, n_points: int, shift: float, test: TestName = "t", rng_seed: int = 0
) -> float:
    """Return the share of studies of 8 seeds that claim: any difference, or the true one where there is one.

    Each trial has noise of standard deviation 1, beside what a seed does to all points alike.
    """
    rng = np.random.default_rng(rng_seed)
    claims = 0
    for _ in range(n_studies):
        values = rng.normal(size=(n_points, 8)) + rng.normal(size=8)
        values[1] += shift
        found = compare([dict(enumerate(map(float, row))) for row in values], maximize=True, test=test)
        claims += found[0].is_real if shift else any(comparison.is_real for comparison in found)
    return claims / n_studies


@pytest.mark.simulation
@pytest.mark.parametrize(("test", "n_points"), [("t", 2), ("t", 4), ("permutation", 3), ("permutation", 5)])
def test_without_a_difference_at_most_one_study_in_twenty_claims_one(test: TestName, n_points: int) -> None:
    assert simulate(1000, n_points=n_points, shift=0.0, test=test) <= 0.05


# The most comparisons, where a difference is hardest to find, each way once; the rest with the long tiers.
@pytest.mark.simulation
@pytest.mark.parametrize(
    ("test", "n_points", "shift"),
    [
        ("t", 5, 3.0),
        ("permutation", 5, -3.0),
        *(
            pytest.param(test, n_points, shift, marks=pytest.mark.slow)
            for test, n_points, shift in [
                ("t", 5, -3.0), ("permutation", 5, 3.0), ("t", 2, 3.0), ("t", 2, -3.0), ("t", 4, 3.0), ("t", 4, -3.0),
                ("permutation", 4, 3.0), ("permutation", 4, -3.0),
            ]
        ),
    ],
)  # fmt: skip
def test_a_difference_of_three_standard_deviations_is_found(
    test: TestName, n_points: int, shift: float
) -> None:
    assert simulate(500, n_points=n_points, shift=shift, test=test) > 0.9


@pytest.mark.parametrize(("maximize", "sign"), [(True, 1), (False, -1)])
def test_the_paired_t_is_scipy_s(maximize: bool, sign: int) -> None:
    (found,) = compare([REFERENCE, OTHER], maximize=maximize)
    expected = stats.ttest_rel(list(OTHER.values()), list(REFERENCE.values()))
    assert (found.test, found.n) == ("paired t", 5)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx(sign * 1.3)
    bounds = sorted(sign * bound for bound in expected.confidence_interval())
    assert (found.low, found.high) == pytest.approx(bounds)


def test_the_permutation_counts_the_signs() -> None:
    (found,) = compare([REFERENCE, OTHER], maximize=True, test="permutation")
    assert (found.test, found.p) == ("paired permutation", pytest.approx(2 / 2**5))
    assert not found.is_real


def test_without_common_seeds_the_sides_are_compared_as_groups() -> None:
    other = {seed + 10: value for seed, value in OTHER.items()}
    (found,) = compare([REFERENCE, other], maximize=True)
    expected = stats.ttest_ind(list(OTHER.values()), list(REFERENCE.values()), equal_var=False)
    assert (found.test, found.p) == ("Welch's t", pytest.approx(expected.pvalue))


@pytest.mark.parametrize("other", [{}, {0: 1.0}])
def test_what_cannot_be_tested_is_not_claimed(other: dict[int, float]) -> None:
    (found,) = compare([REFERENCE, other], maximize=True)
    assert (found.test, found.p_corrected, found.is_real) == ("none", 1.0, False)
    assert math.isnan(found.noise)


def test_what_cannot_be_tested_costs_the_others_nothing() -> None:
    reference = {seed: 0.5 + 0.01 * seed for seed in range(6)}
    better = {seed: value + 0.1 + 0.01 * seed**2 for seed, value in reference.items()}

    alone = compare([reference, better], maximize=True, test="permutation")
    beside = compare([reference, {}, better], maximize=True, test="permutation")

    assert (alone[0].p_corrected, alone[0].is_real) == (pytest.approx(2 / 2**6), True)
    assert (beside[1].p_corrected, beside[1].is_real) == (alone[0].p_corrected, True)
    assert (beside[0].p_corrected, beside[0].is_real) == (1.0, False)


@pytest.mark.parametrize(("n", "is_real"), [(5, False), (6, True)])
def test_values_that_no_seed_moves_count_as_signs(n: int, is_real: bool) -> None:
    (found,) = compare([dict.fromkeys(range(n), 1.0), dict.fromkeys(range(n), 2.0)], maximize=True)
    assert (found.difference, found.noise, found.is_real) == (1.0, 0.0, is_real)
    (equal,) = compare([dict.fromkeys(range(n), 1.0)] * 2, maximize=True)
    assert (equal.p, equal.is_real) == (1.0, False)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_its_definition_whatever_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    ordered = sorted(p_values)
    steps = [min(1.0, (len(ordered) - rank) * p) for rank, p in enumerate(ordered)]
    expected = [max(steps[: rank + 1]) for rank in range(len(steps))]
    assert sorted(corrected) == pytest.approx(expected)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))


@pytest.mark.parametrize(("alpha", "least"), [(0.1, 5), (0.05, 6), (0.01, 8)])
@pytest.mark.parametrize("n_comparisons", [1, 3, 6])
def test_too_few_seeds_are_refused_with_the_smallest_number_that_can_reject(
    n_comparisons: int, alpha: float, least: int
) -> None:
    refuse_too_few("permutation", n_seeds=least, n_comparisons=n_comparisons, alpha=alpha)
    with pytest.raises(ConfigError, match=rf"= {least - 1} is too few: .* that can is {least};"):
        refuse_too_few("permutation", n_seeds=least - 1, n_comparisons=n_comparisons, alpha=alpha)
    with pytest.raises(ConfigError, match="that can is 2;"):
        refuse_too_few("t", n_seeds=1, n_comparisons=n_comparisons, alpha=alpha)


def test_one_comparison_needs_no_correction_by_flips() -> None:
    (found,) = compare([REFERENCE, OTHER], maximize=True, test="permutation")
    assert found.p_corrected == pytest.approx(found.p)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_flips_never_correct_below_the_single_p_and_keep_the_order_of_the_statistic(
    seed: int, n_points: int
) -> None:
    rows = np.random.default_rng(seed).normal(size=(n_points, 7))
    found = compare([dict(enumerate(map(float, row))) for row in rows], maximize=True, test="permutation")
    alone = [comparison.p for comparison in found]
    by_flips = [comparison.p_corrected for comparison in found]
    assert all(corrected >= p - 1e-12 for corrected, p in zip(by_flips, alone, strict=True))
    differences = rows[1:] - rows[0]
    statistics = np.abs(differences.mean(axis=1)) / np.sqrt((differences**2).mean(axis=1))
    order = [comparison.candidate - 1 for comparison in found]
    by_statistic = sorted(range(len(found)), key=lambda index: -statistics[order[index]])
    assert [by_flips[index] for index in by_statistic] == sorted(by_flips)


@pytest.mark.parametrize("test", ["t", "permutation"])
@pytest.mark.parametrize("n_points", [2, 3, 5])
def test_the_smallest_number_of_seeds_does_reject(test: TestName, n_points: int) -> None:
    n = smallest_n(test)
    reference = {seed: 0.001 * seed for seed in range(n)}
    others = [{seed: -100.0 - 0.0011 * seed for seed in range(n)} for _ in range(n_points - 1)]
    assert all(found.is_real for found in compare([reference, *others], maximize=True, test=test))


def test_more_pairs_than_can_be_tried_in_full_are_sampled_by_a_seed() -> None:
    rng = np.random.default_rng(1)
    first, second = (dict(enumerate(rng.normal(size=20) + shift)) for shift in (0.0, 0.5))
    found = [compare([first, second], maximize=True, test="permutation")[0].p for _ in range(2)]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(compare([first, second], maximize=True)[0].p, abs=0.03)
