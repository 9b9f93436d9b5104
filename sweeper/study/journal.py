"""A journal file for Optuna's journal storage that survives whatever dies while writing it."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from sweeper.errors import SweeperError
from sweeper.files import write_error
from sweeper.looking import Patience, is_there, may_pass, patiently
from sweeper.study.journal_lock import JournalLock


class JournalBackend(BaseJournalBackend):
    """A journal file, one JSON line per operation, that is whole whatever died while writing it.

    Optuna's own backend appends after a torn last line, after which every read fails (checked with optuna
    5.0.0). Here a tail without a newline is cut under the lock before anything is appended, and a write that
    fails half-way is cut again, or gone on with where the file system stumbles.
    """

    def __init__(self, path: Path, *, lock: JournalLock | None = None) -> None:
        self.path = path
        self._lock = lock or JournalLock(path)
        self._read = (0, 0)  # lines that were read so far, and where the next one begins
        self._guard: Callable[[list[bytes]], None] | None = None
        self._guarded_to = 0  # where the lines begin that the guard has not seen
        self._gathered = (
            threading.local()
        )  # `logs`: what a thread is to append at once; the lease's beats go past it
        if patiently(path, lambda: is_there(path)):  # who only reads may lack the permission to touch it
            return
        try:
            path.touch(exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error

    @property
    def n_read(self) -> int:
        """Lines that were read so far; a reader that fails does so in the last of them."""
        return self._read[0]

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield operations from a number on. A last line without a newline is not there yet.

        Raises:
            SweeperError: If a line is no JSON object, or the file cannot be read.
        """
        if getattr(self._gathered, "logs", None):
            return  # Optuna looks for what it has just appended; on a shared file system each look is a round trip
        # Its reader goes on where it left off; anybody else's number is counted from the beginning.
        number, offset = self._read if log_number_from == self._read[0] else (0, 0)
        for line in self._lines(offset):
            entry = self._parsed(line, number)
            number, offset = number + 1, offset + len(line)
            self._read = (number, offset)
            if number > log_number_from:
                yield entry

    def _lines(self, offset: int) -> Iterator[bytes]:
        """Yield whole lines from an offset on; a shared file system that stumbles is asked again."""
        patience = Patience(self.path)
        while True:
            try:
                with open(self.path, "rb") as file:
                    file.seek(offset)
                    for line in file:
                        if not line.endswith(b"\n"):
                            return
                        offset += len(line)
                        patience.renew()
                        yield line
                return
            except OSError as error:
                patience.bear(error)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, number + 1) from error
        if not isinstance(entry, dict):
            raise damaged(self.path, number + 1)
        return entry

    @property
    def is_gathering(self) -> bool:
        """Whether this thread is in a block `together`."""
        return getattr(self._gathered, "logs", None) is not None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Append what this thread appends in the block as one write, at the next `commit` and at the block's end.

        Until then nobody reads it, this process neither; an fsync takes longer than all else that a write does.
        """
        self._gathered.logs = []
        try:
            yield
            self.commit()
        finally:
            self._gathered.logs = None

    def commit(self) -> None:
        """Append what was gathered. Raises as `append_logs` does; what was gathered is then given up."""
        logs = getattr(self._gathered, "logs", None)
        if logs:
            self._gathered.logs = []
            self._write(logs)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Commit, and write at once in the block."""
        self.commit()
        with self.past_gathered():
            yield

    @contextlib.contextmanager
    def past_gathered(self) -> Iterator[None]:
        """Read the file in the block as it is, and write at once; what was gathered before stays so."""
        gathered = getattr(self._gathered, "logs", None)
        self._gathered.logs = None
        try:
            yield
        finally:
            self._gathered.logs = gathered

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations as one write, fsynced; all of them or none. In a block `together`, keep them for it.

        While a shared file system stumbles it is tried again, and what came through is not written twice.

        Raises:
            SweeperError: If the file cannot be written. It is as it was before; where the file system has stumbled for
                too long, the first of the operations may stand there.
            Exception: What the guard raises.
        """
        gathered = getattr(self._gathered, "logs", None)
        if gathered is None:
            self._write(logs)
        else:
            gathered.extend(logs)

    def guard(self, look: Callable[[list[bytes]], None] | None) -> None:
        """Show `look` the lines of others from now on, under the lock, before this process appends behind them.

        What it raises keeps this process from appending: nobody can come between its look and the write.
        """
        self._guard = look
        self._guarded_to = self._read[1]

    def _write(self, logs: list[dict[str, Any]]) -> None:
        lines = _Lines([json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs])
        patience = Patience(self.path, error_of=write_error)
        while True:
            try:
                while not self._appended(lines):
                    pass  # the lock was broken before anything was written
                return
            except OSError as error:
                patience.bear(error)

    def _appended(self, lines: "_Lines") -> bool:
        """Append to the file under the lock; return whether the lock still stood when it came to that."""
        with self._lock.held() as still_holds:
            # Appending: should another process have written meanwhile all the same, nothing of its is overwritten.
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(descriptor).st_size
                end = _end_of_last_line(descriptor, size)
                self._show_to_guard(descriptor, end)
                if not still_holds():
                    return False
                if end != size:
                    os.ftruncate(descriptor, end)
                self._guarded_to = end + lines.append(self.path, descriptor, end)
                return True
            finally:
                os.close(descriptor)

    def _show_to_guard(self, descriptor: int, end: int) -> None:
        if self._guard is not None and end > self._guarded_to:
            self._guard(_lines_between(descriptor, self._guarded_to, end))
        self._guarded_to = end


class _Lines:
    """Lines that are to be appended to a journal, each once, however many tries it takes."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines
        self._start: int | None = None  # where the last try has begun

    def append(self, path: Path, descriptor: int, end: int) -> int:
        """Append to a file that is open for appending, after its last whole line; return the bytes that were."""
        if self._start is not None:
            self._take_up(path, self._start, _lines_between(descriptor, self._start, end))
        self._start = end
        data = b"".join(self._lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError as error:
            # What may have been read by now stays where the next try finds it: whoever has read it counts on it. And
            # another process may have written behind it.
            if not may_pass(error) and os.fstat(descriptor).st_size == end + written:
                os.ftruncate(descriptor, end)
            raise
        return len(data)

    def _take_up(self, path: Path, start: int, found: list[bytes]) -> None:
        """Leave out the lines that came through at the last try: those that are found where it began."""
        n_there = 0
        while n_there < min(len(self._lines), len(found)) and self._lines[n_there] == found[n_there]:
            n_there += 1
        if n_there:
            with open(path, "r+b") as file:
                # In their place, as they are: after an error the system calls written what may not be on the disk.
                file.seek(start)
                file.write(b"".join(self._lines[:n_there]))
            del self._lines[:n_there]


def damaged(path: Path, line: int) -> SweeperError:
    """Return the error for a journal that is damaged in a line, from 1."""
    return SweeperError(
        f"{path}:{line}: the study's journal is damaged in this line, so it cannot be read. "
        "Restore the file from a copy, or start anew under another name."
    )


def _lines_between(descriptor: int, start: int, end: int) -> list[bytes]:
    return os.pread(descriptor, max(0, end - start), start).splitlines(keepends=True)


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Return the offset just past the last newline, looking back from the end."""
    step = 1  # nearly always the last byte is the newline
    position = size
    while position > 0:
        start = max(0, position - step)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position, step = start, 65536
    return 0
