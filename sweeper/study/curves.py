"""Curves: one Parquet table per trial with every optimiser step. Only the driver writes them."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.files import write_bytes
from sweeper.records import StepRow

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


class CurveStore:
    """The curves of one study, in a directory. A table is replaced as a whole, so it is never half."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, number: int) -> Path:
        return self._directory / f"{number:05d}.parquet"

    def write(self, number: int, rows: Sequence[StepRow]) -> None:
        """Replace a trial's curve."""
        columns: list[Sequence[object]] = list(zip(*rows, strict=True)) if rows else [() for _ in _SCHEMA]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), sink, compression="zstd")
        write_bytes(self.path(number), sink.getvalue())

    def rows(self, number: int) -> list[StepRow]:
        """Return a trial's curve; empty where it never reported. Null is None, NaN stays NaN."""
        path = self.path(number)
        if not path.exists():
            return []
        table = pq.read_table(path)
        columns = [table.column(field.name).to_pylist() for field in _SCHEMA]
        return [StepRow(*values) for values in zip(*columns, strict=True)]

    def frame(self, number: int) -> pd.DataFrame:
        """Return a trial's curve as a table with the columns of `StepRow`."""
        path = self.path(number)
        if not path.exists():
            return pd.DataFrame({field.name: pd.Series(dtype="float64") for field in _SCHEMA})
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
        return frame
