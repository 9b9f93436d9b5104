"""Rows of a data source with their places: JSONL, Parquet, directories of them, and the hub."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.config.local_paths import DATA_SUFFIXES
from sweeper.config.models import DataSource
from sweeper.errors import ConfigError, Problem


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands, for messages."""

    file: str
    row: int  # line of a JSONL file, row of a Parquet file or hub data set; from 1
    is_line: bool = False

    def problem(self, message: str) -> Problem:
        """Return a problem that stands here."""
        if self.is_line:
            return Problem(message, file=self.file, line=self.row)
        return Problem(f"Row {self.row}: {message}", file=self.file)


def is_local(source: DataSource) -> bool:
    """Whether a source is a path rather than the name of a hub data set."""
    path = Path(source.path)
    return path.exists() or path.is_absolute() or source.path.startswith(".") or path.suffix in DATA_SUFFIXES


def local_files(source: DataSource) -> list[Path]:
    """Return a local source's files in name order.

    Raises:
        ConfigError: If there is none, or one that cannot be read.
    """
    path = Path(source.path)
    hub_only = [name for name in ("name", "split", "revision") if getattr(source, name) is not None]
    if hub_only:
        raise ConfigError(
            f"`{hub_only[0]}` is for data sets of the hub, but `{path}` is a local path. Remove "
            f"`{hub_only[0]}`."
        )
    if not path.exists():
        raise ConfigError(f"The data file `{path}` does not exist. Correct `path`.")
    files = (
        sorted(file for file in path.rglob("*") if file.suffix in DATA_SUFFIXES) if path.is_dir() else [path]
    )
    if not files:
        raise ConfigError(f"The data directory `{path}` has no {' or '.join(DATA_SUFFIXES)} file.")
    if files[0].suffix not in DATA_SUFFIXES:
        raise ConfigError(f"`{path}` is no data file: its name must end in {' or '.join(DATA_SUFFIXES)}.")
    return files


def source_identity(source: DataSource) -> str:
    """Return a text that changes whenever the rows of a source may have changed."""
    described = source.model_dump()
    if is_local(source):
        stats = [(str(file.resolve()), file.stat()) for file in local_files(source)]
        described["files"] = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def read_rows(source: DataSource) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield a source's rows in order, at most `limit` of them.

    Raises:
        ConfigError: If a file is missing, or a line is no JSON object.
    """
    rows = _local_rows(source) if is_local(source) else _hub_rows(source)
    for index, item in enumerate(rows):
        if source.limit is not None and index >= source.limit:
            return
        yield item


def _local_rows(source: DataSource) -> Iterator[tuple[Place, dict[str, Any]]]:
    for file in local_files(source):
        yield from _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)


def _json_rows(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = Place(str(file), number, is_line=True)
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(
                    place.problem(
                        f"This line is no JSON: {error.msg} at column {error.colno}. Write one object per "
                        "line."
                    )
                ) from error
            if not isinstance(row, dict):
                raise ConfigError(
                    place.problem(f"This line is a JSON {type(row).__name__}, but must be an object.")
                )
            yield place, row


def _parquet_rows(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield Place(str(file), number), row
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(f"`{file}` cannot be read as Parquet: {error}.") from error


def _hub_rows(source: DataSource) -> Iterator[tuple[Place, dict[str, Any]]]:
    import datasets

    try:
        loaded = datasets.load_dataset(source.path, source.name, revision=source.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The data set `{source.path}` is no local path and could not be loaded from the hub: {error} "
            "Correct `path`, or download it and give its path."
        ) from error
    split = source.split or (next(iter(loaded)) if len(loaded) == 1 else "train")
    if split not in loaded:
        raise ConfigError(
            f"The data set `{source.path}` has no split `{split}`; it has {', '.join(loaded)}. Set `split`."
        )
    for number, row in enumerate(loaded[split], start=1):
        yield Place(f"{source.path}[{split}]", number), row
