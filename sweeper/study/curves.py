"""Curves: one Parquet table per trial with every optimiser step. Only the driver writes them."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.errors import SweeperError, named_line
from sweeper.files import write_bytes, write_error
from sweeper.looking import patiently
from sweeper.records import StepRow
from sweeper.step_rows import StepRows

_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("samples", pa.int64()),
        ("tokens", pa.int64()),
        ("loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("learning_rate", pa.float64()),
    ]
)
_CHECKSUM = (
    b"sweeper:sha256"  # of the values, in the file's metadata: Parquet itself notices few flipped bits
)


Stamp = tuple[int, int, int]  # inode, time and size; every write leaves other ones


class DamagedCurveError(SweeperError):
    """A curve's file does not hold what was written."""


class CurveStore:
    """The curves of one study, in a directory. A table is replaced as a whole, so it is never half.

    Args:
        directory: Where they lie.
        check: Called before every write; raises where this process may write no more.
    """

    def __init__(self, directory: Path, *, check: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._check = check
        self._read: dict[int, tuple[Stamp, int]] = {}  # the file that `rows_after` last read, its last step

    def path(self, number: int) -> Path:
        return self._directory / f"{number:05d}.parquet"

    def write(self, number: int, rows: Sequence[StepRow]) -> None:
        """Replace a trial's curve.

        Raises:
            SweeperError: If it cannot be written; the old one is as it was.
        """
        self._check()
        columns = rows if isinstance(rows, StepRows) else StepRows(rows)
        # Copied: an array that something else still looks into takes no further rows.
        arrays = [
            pa.array(np.array(values), mask=np.array(missing, dtype=bool), from_pandas=False)
            for values, missing in columns.columns()
        ]
        table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
        table = table.replace_schema_metadata({_CHECKSUM: _checksum(table)})
        sink = io.BytesIO()
        # Without dictionaries, which hold nearly every value: half the time and half the size.
        pq.write_table(table, sink, compression="zstd", use_dictionary=False)
        write_bytes(self.path(number), sink.getvalue(), check=self._check)

    def rows(self, number: int) -> list[StepRow]:
        """Return a trial's curve; empty where it never reported. Null is None, NaN stays NaN.

        Raises:
            DamagedCurveError: If the file is damaged.
            SweeperError: If it cannot be read.
        """
        table = self._table(number)
        if table is None:
            return []
        return _rows_of(table)

    def rows_after(self, number: int, step: int) -> list[StepRow]:
        """Return the rows of a trial's curve past a step; a file is read again only once it is another one.

        For who asks again and again. Raises as `rows` does.
        """
        stamp = self.stamp(number)
        read = self._read.get(number)
        if stamp is None or (read is not None and read[0] == stamp and read[1] <= step):
            return []
        table = self._table(number)
        if table is None or not table.num_rows:
            return []
        steps = table.column("step").to_numpy()
        self._read[number] = (stamp, int(steps.max()))
        return _rows_of(table.filter(pa.array(steps > step)))

    def frame(self, number: int) -> pd.DataFrame:
        """Return a trial's curve as a table with the columns of `StepRow`. Raises as `rows` does."""
        table = self._table(number)
        if table is None:
            return pd.DataFrame({field.name: pd.Series(dtype="float64") for field in _SCHEMA})
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
        return frame

    def stamp(self, number: int) -> Stamp | None:
        """Return what tells a trial's curve from the one before the last write; None where it never reported."""
        path = self.path(number)
        return patiently(path, lambda: _stamp_of(path))

    def set_aside(self, number: int) -> None:
        """Move a damaged curve out of the way, so that its trial can be trained again.

        Raises:
            SweeperError: If it cannot be moved.
        """
        self._check()
        path = self.path(number)
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError as error:
            raise write_error(aside, error) from error

    def _table(self, number: int) -> pa.Table | None:
        path = self.path(number)
        try:
            content = patiently(path, lambda: _content(path))
        except SweeperError as error:
            raise SweeperError(
                f"{error} A curve that stays so can be restored from a copy, or removed: a trial that is not finished "
                "is then trained again from its start."
            ) from error
        if content is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(content))
        except (OSError, pa.ArrowException, ValueError, UnicodeError, MemoryError) as error:
            raise _damaged(path, f"{named_line(error):.100}") from error
        metadata = table.schema.metadata or {}
        if not table.schema.equals(_SCHEMA, check_metadata=False):
            raise _damaged(path, "it has other columns than a curve")
        with contextlib.suppress(UnicodeError):
            if metadata.get(_CHECKSUM, b"").decode() == _checksum(table):
                return table
        raise _damaged(path, "its values are not those that were written")


def _stamp_of(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _content(path: Path) -> bytes | None:
    """Return a file's content; None where there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _rows_of(table: pa.Table) -> list[StepRow]:
    columns = [table.column(field.name).to_pylist() for field in _SCHEMA]
    return [StepRow(*values) for values in zip(*columns, strict=True)]


def _checksum(table: pa.Table) -> str:
    digest = hashlib.sha256(str(table.num_rows).encode())
    for field in _SCHEMA:
        column = table.column(field.name).combine_chunks()
        digest.update(np.asarray(column.is_null()).tobytes())
        digest.update(np.asarray(column.fill_null(0)).tobytes())
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> DamagedCurveError:
    return DamagedCurveError(
        f"The curve {path} is damaged ({why}). Restore it from a copy, or remove it: a trial that is not finished "
        "is then trained again from its start."
    )
