"""The manifest of a checkpoint: where it stands, and what its files must be. Written last."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from sweeper.looking import files_below

MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest, and the one before it in case the newest is damaged
SLICE_BYTES = 64 << 20  # of a larger file that are hashed by themselves, so that several threads can
_THREADS = 8
_READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is there, as its manifest says."""

    name: str
    step: int
    samples: int
    n_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What one file of a checkpoint must be."""

    n_bytes: int
    sha256: str  # of the file, or of its slices' SHA-256 one after another
    slice_bytes: int | None = None  # of each slice but the last; None: of the file as a whole

    def as_json(self) -> dict[str, int | str]:
        """Return it as the manifest holds it."""
        whole: dict[str, int | str] = {"bytes": self.n_bytes, "sha256": self.sha256}
        return whole if self.slice_bytes is None else {**whole, "slice_bytes": self.slice_bytes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of MANIFEST.json."""

    step: int
    samples: int
    files: dict[str, FileFacts]  # by path inside the checkpoint

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files.values())

    def dump(self) -> str:
        files = {name: file.as_json() for name, file in self.files.items()}
        content = {"step": self.step, "samples": self.samples, "files": files}
        return json.dumps({**content, "check": _check(content)}, indent=1)


def name_of(step: int) -> str:
    """Return the name of the checkpoint after a step; names sort as steps do."""
    return f"step-{step:08d}"


def outlived(names: Sequence[str], *, whole: Sequence[str], newest: str) -> list[str]:
    """Return which checkpoints are of no use any more, once the one called `newest` is whole.

    Later ones are not of this attempt, and may be all that another one has.

    >>> outlived(["step-1", "step-2", "step-3", "step-4", "step-9"], whole=["step-1", "step-2"], newest="step-4")
    ['step-1', 'step-3']
    """
    older = [name for name in names if name < newest]
    kept = [name for name in older if name in whole][1 - KEPT :]
    return [name for name in older if name not in kept]


def describe(directory: Path, *, step: int, samples: int) -> Manifest:
    """Return the manifest of a directory's files. Raises OSError where one cannot be read."""
    files = {file.relative_to(directory).as_posix(): _facts_of(file) for file in files_below(directory)}
    return Manifest(step=step, samples=samples, files=files)


def parse(text: str | bytes) -> Manifest | None:
    """Return a manifest, or None where the text is no whole one: a damaged manifest is a damaged checkpoint."""
    try:
        content = json.loads(text)
        if content.pop("check") != _check(content):
            return None
        files = {
            name: FileFacts(
                n_bytes=int(file["bytes"]),
                sha256=str(file["sha256"]),
                slice_bytes=int(file["slice_bytes"]) if "slice_bytes" in file else None,
            )
            for name, file in content["files"].items()
        }
        manifest = Manifest(step=int(content["step"]), samples=int(content["samples"]), files=files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_sound = all(_stays_inside(name) and _has_sound_slices(file) for name, file in files.items())
    return manifest if is_sound else None


def matches(directory: Path, manifest: Manifest, *, read: bool) -> bool:
    """Whether a directory holds the files of a manifest: by their sizes, or, with `read`, by their content.

    Raises:
        OSError: If that cannot be told.
    """
    try:
        for name, expected in manifest.files.items():
            file = directory / name
            if file.stat().st_size != expected.n_bytes:
                return False
            if read and sha256_of(file, slice_bytes=expected.slice_bytes) != expected.sha256:
                return False
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return True


def _facts_of(file: Path) -> FileFacts:
    n_bytes = file.stat().st_size
    slice_bytes = SLICE_BYTES if n_bytes > SLICE_BYTES else None
    return FileFacts(
        n_bytes=n_bytes, sha256=sha256_of(file, slice_bytes=slice_bytes), slice_bytes=slice_bytes
    )


def sha256_of(path: Path, *, slice_bytes: int | None = None) -> str:
    """Return the SHA-256 of a file, or of those of its slices, one after another, which several threads compute."""
    if slice_bytes is None:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    starts = range(0, path.stat().st_size, slice_bytes)
    n_threads = min(_THREADS, len(os.sched_getaffinity(0)), max(len(starts), 1))
    with ThreadPoolExecutor(n_threads) as pool:
        parts = pool.map(functools.partial(_slice_digest, path, slice_bytes), starts)
        return hashlib.sha256(b"".join(parts)).hexdigest()


def _slice_digest(path: Path, n_bytes: int, start: int) -> bytes:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while n_bytes > 0 and (n_read := file.readinto(buffer[:n_bytes])):
            digest.update(buffer[:n_read])
            n_bytes -= n_read
    return digest.digest()


def _check(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _has_sound_slices(file: FileFacts) -> bool:
    return file.slice_bytes is None or file.slice_bytes >= _READ_BYTES
