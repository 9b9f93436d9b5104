"""Where a study lives: Optuna's storages, opened with checks, and a journal file that survives a torn write."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock, JournalStorage

from sweeper.errors import ConfigError

JOURNAL_NAME = "study.journal"


class JournalBackend(BaseJournalBackend):
    """A journal file, one JSON line per operation, that is whole whatever died while writing it.

    Optuna's own backend appends after a torn last line, after which every read fails (checked with optuna
    5.0.0). Here a tail without a newline is cut under the lock before anything is appended, and a write that
    fails half-way is cut again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileSymlinkLock(str(path))
        self._offsets: dict[int, int] = {0: 0}
        path.touch(exist_ok=True)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield operations from a number on. A last line without a newline is not there yet."""
        start = log_number_from if log_number_from in self._offsets else 0
        with open(self._path, "rb") as file:
            file.seek(self._offsets[start])
            for number, line in enumerate(file, start=start):
                if not line.endswith(b"\n"):
                    return
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ConfigError(
                        f"{self._path}:{number + 1}: the study's journal is damaged in this line, "
                        "so it cannot be read. Restore the file from a copy, or start anew under another name."
                    ) from error
                self._offsets[number + 1] = self._offsets[number] + len(line)
                if number >= log_number_from:
                    yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations as one write, fsynced; all of them or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            with open(self._path, "r+b") as file:
                end = _end_of_last_line(file.seek(0, os.SEEK_END), file)
                file.truncate(end)
                file.seek(end)
                try:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        finally:
            self._lock.release()


def _end_of_last_line(size: int, file: Any) -> int:
    """Return the offset just past the last newline, looking back from the end."""
    position = size
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        position = start
    return 0


def mask_url(url: str) -> str:
    """Return a storage URL without its password, for messages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}{port}"))


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """Open the storage of a study: the journal in its directory, or what a URL names.

    Raises:
        ConfigError: If it cannot be reached, with the URL's password masked.
    """
    if url is None:
        return JournalStorage(JournalBackend(directory / JOURNAL_NAME))
    try:
        if url.startswith(("postgresql", "mysql", "sqlite")):
            return optuna.storages.RDBStorage(_with_driver(url), engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise ConfigError(
            f"The storage {mask_url(url)} needs a database driver that is not installed ({error.name}). "
            "Install it, for PostgreSQL with `pip install 'sweeper[postgresql]'`."
        ) from error
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and each driver have their own trees
        raise ConfigError(
            f"The storage {mask_url(url)} cannot be opened: {_first_line(error, url)}. "
            "Check that the server runs, and that host, port, user and database are right."
        ) from None  # the driver's own text may hold the password
    raise ConfigError(
        f"`storage` must start with postgresql://, mysql:// or sqlite:///, but got {mask_url(url)}. "
        "Leave it out to keep the study in a journal file in its directory."
    )


def _with_driver(url: str) -> str:
    """Let a plain postgresql:// mean psycopg 3, which the extra installs; SQLAlchemy would look for psycopg2."""
    return (
        url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url
    )


def _first_line(error: Exception, url: str) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    password = urlsplit(url).password
    return text.replace(password, "***").rstrip(".") if password else text.rstrip(".")
