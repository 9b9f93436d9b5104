"""Rungs are marks in samples."""

import pytest

from sweeper.errors import ConfigError
from sweeper.rungs import rung_samples, rungs_at_fractions


def test_marks_grow_by_the_factor_and_stop_below_the_budget() -> None:
    assert rung_samples(first=100, budget=2700, reduction_factor=3) == (100, 300, 900)


def test_the_budget_itself_is_no_rung() -> None:
    assert rung_samples(first=100, budget=100, reduction_factor=2) == ()


@pytest.mark.parametrize(
    ("first", "factor", "told"), [(0, 2, "between 1 and"), (101, 2, "got 101"), (1, 1, "got 1")]
)
def test_marks_without_sense_are_refused(first: int, factor: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        rung_samples(first=first, budget=100, reduction_factor=factor)


def test_fractions_are_rounded_up_to_whole_samples() -> None:
    assert rungs_at_fractions([0.1, 0.3], budget=2048) == (205, 615)


def test_a_fraction_that_is_a_whole_number_of_samples_is_not_rounded_up() -> None:
    assert rungs_at_fractions([0.1, 0.3, 0.7], budget=30) == (3, 9, 21)
