"""Files that are whole or absent: write beside, fsync, rename. Pure."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import SweeperError
from sweeper.looking import Patience, files_below, is_there

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, quota used up, file size limit


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that nothing more can be written."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        # safetensors keeps the system's words, but not its error (0.8.0).
        if "No space left on device" in str(seen) or "Disk quota exceeded" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def write_error(path: Path, error: OSError) -> SweeperError:
    """Return the error for a file that cannot be written."""
    if is_disk_full(error):
        return SweeperError(
            f"The disk is full: {path} cannot be written ({error.strerror or error}). What was recorded so far is "
            "kept. Make room and go on with `sweeper resume`, or run the same command again."
        )
    return SweeperError(
        f"{path} cannot be written: {error.strerror or error}. What was recorded so far is kept. Mend the cause "
        "and go on with `sweeper resume`, or run the same command again."
    )


def write_bytes(path: Path, data: bytes, *, check: Callable[[], None] = lambda: None) -> None:
    """Write a file so that a reader sees the old or the new content, never a part, also after a power cut.

    It is written again while a shared file system stumbles.

    Args:
        path: The file.
        data: Its content.
        check: Called before each further try; raises where the file may be written no more.

    Raises:
        SweeperError: If it cannot be written; what stood at `path` is as it was.
    """
    patience = Patience(path, error_of=write_error)
    while True:
        try:
            with _beside(path) as beside:
                beside.write_bytes(data)
            return
        except OSError as error:
            patience.bear(error)
        check()


def write_text(path: Path, text: str) -> None:
    """Like `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; it takes the name of `path` when the block ends well.

    Raises:
        SweeperError: If it cannot be written; what stood at `path` is as it was.
    """
    try:
        with _beside(path) as beside:
            yield beside
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        sync_file(beside)
        os.replace(beside, path)
        sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def publish_directory(beside: Path, path: Path) -> None:
    """Give a finished directory its name. What stood there before is replaced.

    Files are fsynced first, so that the name never stands for half of them.
    """
    for file in files_below(beside):
        sync_file(file)
    if is_there(path):
        shutil.rmtree(path)
    os.replace(beside, path)
    sync_directory(path.parent)


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or the nearest above it that is there as far as this process can see."""
    # Not `Path.exists`, which raises where a directory above may not be entered (Python 3.11).
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Flush a directory's names to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
