"""Rows of a curve in memory, as columns. Pure."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from sweeper.records import StepRow

_TYPES = "qqqddd"  # of the columns of `StepRow`: 64-bit integers, then floats that may be missing
_N_COUNTS = _TYPES.count("q")


class StepRows(Sequence[StepRow]):
    """Rows that are only ever appended to: 51 bytes each, where a list of them takes 270.

    500 trials of 20,000 steps are 10 million of them, and all that run are kept. A slice is a list.

    Args:
        rows: The first ones.
    """

    def __init__(self, rows: Iterable[StepRow] = ()) -> None:
        self._columns: list[array[Any]] = [array(code) for code in _TYPES]
        # 1 where a float is None; its column has NaN there.
        self._missing = [bytearray() for _ in _TYPES[_N_COUNTS:]]
        self.extend(rows)

    def extend(self, rows: Iterable[StepRow]) -> None:
        """Append rows; all of them or none."""
        given = list(zip(*rows, strict=True))
        if not given:
            return
        counts, floats = given[:_N_COUNTS], given[_N_COUNTS:]
        columns: list[array[Any]] = [*map(_integers, counts), *map(_floats, floats)]
        missing = [_missing(column) for column in floats]
        for kept, more in zip(self._columns, columns, strict=True):
            kept.extend(more)
        for marks, further in zip(self._missing, missing, strict=True):
            marks.extend(further)

    def columns(self) -> list[tuple["array[Any]", bytearray]]:
        """Return for each column of `StepRow` its values, and for each of them a 1 if it is missing, else a 0."""
        none = bytearray(len(self))
        return list(zip(self._columns, [none] * _N_COUNTS + self._missing, strict=True))

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[StepRow]:
        return iter(self[:])

    @overload
    def __getitem__(self, index: int) -> StepRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[StepRow]: ...

    def __getitem__(self, index: int | slice) -> StepRow | list[StepRow]:
        if isinstance(index, int):
            place = range(len(self))[index]
            return self[place : place + 1][0]
        counts = [column[index] for column in self._columns[:_N_COUNTS]]
        floats = [
            [
                None if is_missing else value
                for value, is_missing in zip(column[index], marks[index], strict=True)
            ]
            for column, marks in zip(self._columns[_N_COUNTS:], self._missing, strict=True)
        ]
        return [StepRow(*values) for values in zip(*counts, *floats, strict=True)]


def _integers(values: Sequence[Any]) -> "array[int]":
    try:
        return array("q", values)
    except TypeError:  # a user's code may tell floats
        return array("q", map(int, values))


def _floats(values: Sequence[Any]) -> "array[float]":
    return array(
        "d", [math.nan if value is None else value for value in values] if None in values else values
    )


def _missing(values: Sequence[Any]) -> bytes:
    return bytes(value is None for value in values) if None in values else bytes(len(values))
