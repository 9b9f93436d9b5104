"""What lies on a file system: looks that never take an error of the file system for an absence.

Python's own do, the newer the more: `Path.glob` and `rglob` leave out what cannot be listed (3.12), as `os.walk` always
did, and `Path.exists`, `is_file` and `is_dir` say no of what cannot be looked at (3.14).
"""

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sweeper.errors import SweeperError

T = TypeVar("T")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # what `Path.exists` took for an absence up to 3.13
# What a shared file system says that loses its server, or one of its servers, for some time.
_PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EREMOTEIO", "ENETDOWN", "EHOSTDOWN", "ENOTCONN")
    if hasattr(errno, name)
)
_PATIENCE_S = 120.0
_AGAIN_S = 0.5


def is_there(path: Path) -> bool:
    """Whether a path names anything. This and all below raise OSError where that cannot be told."""
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether a path names a file, or a link to one."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_directory(path: Path) -> bool:
    """Whether a path names a directory, or a link to one."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def names_in(directory: Path) -> list[str]:
    """Return the names in a directory, in order; none where there is no such directory."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def paths_below(directory: Path, *, skips_closed: bool = False, at_most: int | None = None) -> list[Path]:
    """Return all that lies below a directory, in order, as `rglob("*")` does.

    Args:
        directory: That is to be there.
        skips_closed: Whether what a directory below holds may be left out where this user may not list it.
        at_most: After so many paths no further ones are looked for; None: all are.
    """
    entries = itertools.islice(_entries_below(directory, skips_closed), at_most)
    return sorted(Path(entry.path) for entry in entries)


def names_below(directory: Path, *, skips_closed: bool = False) -> Iterator[str]:
    """Yield the names of what lies below a directory as they are found, what lies in it first. Arguments as above."""
    return (entry.name for entry in _entries_below(directory, skips_closed))


def files_below(directory: Path, *, skips_closed: bool = False) -> list[Path]:
    """Return the files below a directory, and the links to files. Arguments as of `paths_below`."""
    return sorted(Path(entry.path) for entry in _entries_below(directory, skips_closed) if entry.is_file())


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except ValueError:  # no name of a path: it holds a NUL
        return None
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None


def _entries_below(directory: Path | str, skips_closed: bool) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as listed:
        entries = list(listed)
    yield from entries
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            try:
                yield from _entries_below(entry.path, skips_closed)
            except PermissionError:
                if not skips_closed:
                    raise


def read_error(path: Path, error: OSError) -> SweeperError:
    """Return the error for what cannot be read at a path, or below it."""
    place = path if error.filename is None else error.filename
    return SweeperError(
        f"{place} cannot be read: {error.strerror or error}. What was recorded so far is kept. Mend the cause and go "
        "on with `sweeper resume`, or run the same command again."
    )


def may_pass(error: OSError) -> bool:
    """Whether an error is one of a shared file system that stumbles, which the next try may not meet."""
    return error.errno in _PASSING


class Patience:
    """Waits between the tries to read or write something on a shared file system that stumbles.

    Args:
        path: What is read or written.
        error_of: Makes the error for what cannot be.
    """

    def __init__(self, path: Path, *, error_of: Callable[[Path, OSError], SweeperError] = read_error) -> None:
        self._path = path
        self._error_of = error_of
        self._since: float | None = None

    def bear(self, error: OSError) -> None:
        """Wait before the next try.

        Raises:
            SweeperError: If the error is not one that passes, or has not passed for long.
        """
        self._since = self._since or time.monotonic()
        if not may_pass(error) or time.monotonic() - self._since > _PATIENCE_S:
            raise self._error_of(self._path, error) from error
        time.sleep(_AGAIN_S)

    def renew(self) -> None:
        """Take note that something was read."""
        self._since = None


def patiently(path: Path, read: Callable[[], T]) -> T:
    """Return what a function reads from a path, asked again while a shared file system stumbles.

    Raises:
        SweeperError: If it cannot be read.
    """
    patience = Patience(path)
    while True:
        try:
            return read()
        except OSError as error:
            patience.bear(error)
