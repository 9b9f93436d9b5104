"""The order of the training data."""

from typing import Any

import pytest

from sweeper.training.stream import MicroBatches, SampleStream


class Numbers:
    """Rows that are their own index."""

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"row": index}


def batches(*, start: int = 0, stop: int, size: int, n_rows: int = 10, seed: int = 0) -> list[list[int]]:
    stream = SampleStream(n_rows, seed=seed)
    micro = MicroBatches(
        Numbers(n_rows), stream, lambda rows: {"rows": rows}, start=start, stop=stop, micro_batch_size=size
    )
    return [[row["row"] for row in batch["rows"]] for batch in micro]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12, 24])
def test_every_batch_size_reads_the_same_rows_in_the_same_order(size: int) -> None:
    read = [row for batch in batches(stop=24, size=size) for row in batch]
    assert read == SampleStream(10, seed=0).indices(0, 24)


def test_every_epoch_reads_every_row_once() -> None:
    stream = SampleStream(10, seed=3)
    assert [sorted(stream.indices(start, start + 10)) for start in (0, 10, 20)] == [list(range(10))] * 3


def test_epochs_are_in_different_orders() -> None:
    stream = SampleStream(10, seed=3)
    assert stream.indices(0, 10) != stream.indices(10, 20)


def test_another_seed_is_another_order() -> None:
    assert SampleStream(10, seed=0).indices(0, 10) != SampleStream(10, seed=1).indices(0, 10)


def test_no_batch_is_partial_where_an_epoch_ends() -> None:
    assert {len(batch) for batch in batches(stop=24, size=8, n_rows=11)} == {8}


def test_a_stream_goes_on_from_any_position() -> None:
    assert batches(start=12, stop=24, size=4) == batches(stop=24, size=4)[3:]


def test_a_stream_can_be_read_again_from_an_earlier_epoch() -> None:
    stream = SampleStream(10, seed=0)
    first = stream.indices(0, 5)
    stream.indices(25, 30)
    assert stream.indices(0, 5) == first


def test_samples_that_do_not_fill_the_last_micro_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="10 samples cannot be cut into micro-batches of 4"):
        batches(stop=10, size=4)
