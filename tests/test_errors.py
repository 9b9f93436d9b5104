"""What our messages say of foreign errors, whatever text those have."""

import doctest
from pathlib import Path

import pyarrow.parquet
import pytest

from sweeper import errors
from sweeper.errors import SweeperError, first_line, last_line, named_line
from sweeper.study.curves import CurveStore


def test_the_examples_of_the_docstrings_are_right() -> None:
    assert doctest.testmod(errors) == doctest.TestResults(failed=0, attempted=3)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_error_without_a_text_is_told_by_its_type(text: str) -> None:
    error = MemoryError(text)
    assert (first_line(error), last_line(error), named_line(error)) == ("MemoryError",) * 3


def test_the_last_line_is_the_one_that_says_why() -> None:
    assert last_line(RuntimeError("The task failed:\n  in step 3\nno space left\n")) == "no space left"


def test_a_curve_that_does_not_fit_into_memory_is_told_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_table(_: object) -> None:
        raise MemoryError

    curves = CurveStore(tmp_path)
    curves.path(0).parent.mkdir(parents=True, exist_ok=True)
    curves.path(0).write_bytes(b"PAR1")
    monkeypatch.setattr(pyarrow.parquet, "read_table", read_table)
    with pytest.raises(
        SweeperError, match=rf"^The curve {curves.path(0)} is damaged \(MemoryError\)\. Restore"
    ):
        curves.frame(0)
