"""The effective batch is exact or refused; what fits is found without trying twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.batch import BatchPlan, Known, cuts, largest_that_fits, plan_batch
from sweeper.errors import ConfigError


@pytest.mark.parametrize(
    ("effective", "micro", "ranks", "cut"),
    [
        (64, 8, 1, (8, 8, 1)),
        (64, 8, 2, (8, 4, 2)),
        (8, 8, 1, (8, 1, 1)),
        (4, 8, 1, (4, 1, 1)),
        (6, 8, 2, (3, 1, 2)),
        (7680, 8, 1, (8, 960, 1)),
    ],
)
def test_a_batch_is_cut_into_whole_passes(
    effective: int, micro: int, ranks: int, cut: tuple[int, int, int]
) -> None:
    plan = plan_batch(effective_batch_size=effective, micro_batch_size=micro, data_parallel_size=ranks)
    assert (plan.micro_batch_size, plan.gradient_accumulation_steps, plan.data_parallel_size) == cut


@pytest.mark.parametrize(
    ("effective", "micro", "ranks", "told"),
    [
        (60, 8, 1, r"= 8, but got 60\. Nearest valid values: 56 and 64\.$"),
        (60, 4, 2, r"= 8, but got 60\. Nearest valid values: 56 and 64\.$"),
        (5, 4, 2, r"= 8, but got 5\. Nearest valid values: 8\.$"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_with_the_nearest_ones(
    effective: int, micro: int, ranks: int, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_batch(effective_batch_size=effective, micro_batch_size=micro, data_parallel_size=ranks)


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 8))
def test_the_effective_batch_is_the_product_of_its_parts(effective: int, micro: int, ranks: int) -> None:
    try:
        plan = plan_batch(effective_batch_size=effective, micro_batch_size=micro, data_parallel_size=ranks)
    except ConfigError:
        return
    assert plan.effective_batch_size == effective
    assert plan.micro_batch_size <= micro


def test_halving_keeps_the_effective_batch() -> None:
    halved = BatchPlan(micro_batch_size=8, gradient_accumulation_steps=3, data_parallel_size=2).halved()
    assert halved == BatchPlan(micro_batch_size=4, gradient_accumulation_steps=6, data_parallel_size=2)
    assert halved.effective_batch_size == 48


def test_an_odd_micro_batch_cannot_be_halved() -> None:
    assert BatchPlan(micro_batch_size=3, gradient_accumulation_steps=1, data_parallel_size=1).halved() is None


@given(effective=st.integers(1, 600), room=st.integers(1, 600))
def test_what_is_found_is_the_first_cut_that_fits_and_nothing_is_tried_twice(
    effective: int, room: int
) -> None:
    sizes, tried = list(cuts(effective)), []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    known = Known()
    found = largest_that_fits(sizes, fits, known)
    assert found == next((size for size in sizes if size <= room), sizes[-1])
    assert len(tried) == len(set(tried))
    n_tried = len(tried)
    assert largest_that_fits(sizes, fits, known) == found
    assert len(tried) == n_tried


def test_another_batch_size_learns_from_what_was_tried_before() -> None:
    known = Known(fits=16, fails=64)
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return False

    assert largest_that_fits([128, 64, 32, 16, 8], fits, known) == 16
    assert tried == [32]
    assert known == Known(fits=16, fails=32)


@given(micro=st.integers(1, 600), accumulation=st.integers(1, 20), limit=st.integers(1, 600))
def test_a_cut_keeps_the_effective_batch_and_the_limit(micro: int, accumulation: int, limit: int) -> None:
    plan = BatchPlan(micro_batch_size=micro, gradient_accumulation_steps=accumulation, data_parallel_size=2)
    cut = plan.cut(limit)
    assert cut.effective_batch_size == plan.effective_batch_size
    assert cut.micro_batch_size <= min(limit, micro)
    assert cut.cut(limit) == cut
