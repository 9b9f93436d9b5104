"""Rows of a data source with their places: JSONL, Parquet, directories of them, and the hub."""

import codecs
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.config.local_paths import DATA_SUFFIXES
from sweeper.config.trial_models import DataSource
from sweeper.errors import ConfigError, Problem
from sweeper.looking import is_directory, is_there, paths_below
from sweeper.training.hub import load_split

_MAX_PATHS = 1_000_000  # below a data directory; a larger tree is somebody's home rather than data
_NO_TEXT = {
    codecs.BOM_UTF16_LE: "The file is UTF-16, but must be UTF-8. Save it as UTF-8.",
    codecs.BOM_UTF16_BE: "The file is UTF-16, but must be UTF-8. Save it as UTF-8.",
    b"\x1f\x8b": "The file is compressed by gzip, but must be plain JSON lines. Unpack it with `gunzip`.",
}


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
    return path.is_absolute() or source.path.startswith(".") or path.suffix in DATA_SUFFIXES or is_there(path)


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
    try:
        if not is_there(path):
            raise ConfigError(f"The data file `{path}` does not exist. Correct `path`.")
        is_tree = is_directory(path)
        found = paths_below(path, skips_closed=True, at_most=_MAX_PATHS + 1) if is_tree else None
    except OSError as error:
        raise _unreadable(path, error) from error
    if found is not None and len(found) > _MAX_PATHS:
        raise ConfigError(
            f"The data directory `{path}` holds more than {_MAX_PATHS:,} files and directories. Name the directory "
            "below it that has the data, or the file."
        )
    files = [path] if found is None else [file for file in found if file.suffix in DATA_SUFFIXES]
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
    for place, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = str(error)  # of a number with too many digits
            if isinstance(error, RecursionError):
                said = "it is nested too deeply"
            if isinstance(error, json.JSONDecodeError):
                said = f"{error.msg} at column {error.colno}"
            raise ConfigError(
                place.problem(f"This line is no JSON: {said}. Write one object per line.")
            ) from error
        if not isinstance(row, dict):
            raise ConfigError(
                place.problem(f"This line is a JSON {type(row).__name__}, but must be an object.")
            )
        yield place, row


def _lines(file: Path) -> Iterator[tuple[Place, str]]:
    """Yield a file's lines as text; each is decoded alone, so that one that is no UTF-8 can be named.

    Raises:
        ConfigError: If the file cannot be read, or is no UTF-8.
    """
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                place = Place(str(file), number, is_line=True)
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                    _refuse_known(line, place)
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise ConfigError(
                        place.problem(
                            f"This line is no UTF-8: its byte {error.start + 1} is 0x{line[error.start]:02x}. Save the "
                            "file as UTF-8."
                        )
                    ) from error
                yield place, text
    except OSError as error:
        raise _unreadable(file, error) from error


def _refuse_known(line: bytes, place: Place) -> None:
    """Say of a file that is often met what it is, and what to do."""
    for start, message in _NO_TEXT.items():
        if line.startswith(start):
            raise ConfigError(place.problem(message))


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(f"The data file `{file}` cannot be read: {error.strerror or error}. Make it readable.")


def _parquet_rows(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield Place(str(file), number), row
    except PermissionError as error:
        raise _unreadable(file, error) from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        after = f" after row {number}" if number else ""
        raise ConfigError(
            f"`{file}` cannot be read as Parquet{after}: {error}. Write it again, or correct `path`."
        ) from error


def _hub_rows(source: DataSource) -> Iterator[tuple[Place, dict[str, Any]]]:
    split, rows = load_split(source)
    for number, row in enumerate(rows, start=1):
        yield Place(f"{source.path}[{split}]", number), row
