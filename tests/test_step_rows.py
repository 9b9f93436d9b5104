"""Rows kept as columns are the rows that were put in."""

import math

import pytest

from sweeper.records import StepRow
from sweeper.step_rows import StepRows

ROWS = [
    StepRow(1, 10, 0, 1.5, None, 1e-3),
    StepRow(2, 20, 2**60, math.inf, -math.inf, None),
    StepRow(3, 30, 7, None, 0.1 + 0.2, 5e-324),
]


def test_rows_come_back_as_they_were_put_in():
    rows = StepRows(ROWS[:1])
    rows.extend(ROWS[1:])
    rows.extend(())

    assert (len(rows), list(rows), rows[:]) == (3, ROWS, ROWS)
    assert [rows[0], rows[-1], *rows[1:2], *rows[:-5]] == [ROWS[0], ROWS[2], ROWS[1]]
    assert [type(value) for value in rows[0]] == [int, int, int, float, type(None), float]
    assert not StepRows()


def test_nan_stays_nan_and_none_stays_none():
    (row,) = StepRows([StepRow(1, 10, 0, math.nan, None, 1.0)])

    assert math.isnan(row.loss)
    assert row.grad_norm is None


def test_there_is_no_row_past_the_last():
    with pytest.raises(IndexError):
        StepRows(ROWS)[3]


def test_counts_that_are_whole_floats_become_whole_numbers():
    rows = StepRows([StepRow(1.0, 10.0, 0, 1.0, 1.0, None)])

    assert repr(rows[0]) == repr(StepRow(1, 10, 0, 1.0, 1.0, None))


def test_a_row_that_cannot_be_kept_leaves_the_rows_as_they_were():
    rows = StepRows(ROWS)
    with pytest.raises(OverflowError):
        rows.extend([ROWS[0], StepRow(2**63, 10, 0, 1.0, 1.0, None)])

    assert list(rows) == ROWS
