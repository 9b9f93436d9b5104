"""Files that are whole or absent: write beside, fsync, rename. Pure."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part, also after a power cut."""
    with written_beside(path) as beside:
        beside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Like `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; it takes the name of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
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
    for file in beside.rglob("*"):
        if file.is_file():
            sync_file(file)
    if path.exists():
        shutil.rmtree(path)
    os.replace(beside, path)
    sync_directory(path.parent)


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
