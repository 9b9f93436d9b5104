"""The manifest of a checkpoint: where it stands, and what its files must be. Written last."""

import dataclasses
import hashlib
import json
from pathlib import Path, PurePosixPath

MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest, and the one before it in case the newest is damaged


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
    sha256: str


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
        files = {name: {"bytes": file.n_bytes, "sha256": file.sha256} for name, file in self.files.items()}
        content = {"step": self.step, "samples": self.samples, "files": files}
        return json.dumps({**content, "check": _check(content)}, indent=1)


def name_of(step: int) -> str:
    """Return the name of the checkpoint after a step; names sort as steps do."""
    return f"step-{step:08d}"


def describe(directory: Path, *, step: int, samples: int) -> Manifest:
    """Return the manifest of a directory's files."""
    files = {
        file.relative_to(directory).as_posix(): FileFacts(n_bytes=file.stat().st_size, sha256=sha256_of(file))
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
    return Manifest(step=step, samples=samples, files=files)


def parse(text: str | bytes) -> Manifest | None:
    """Return a manifest, or None where the text is no whole one: a damaged manifest is a damaged checkpoint."""
    try:
        content = json.loads(text)
        if content.pop("check") != _check(content):
            return None
        files = {
            name: FileFacts(n_bytes=int(file["bytes"]), sha256=str(file["sha256"]))
            for name, file in content["files"].items()
        }
        manifest = Manifest(step=int(content["step"]), samples=int(content["samples"]), files=files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return manifest if all(_stays_inside(name) for name in files) else None


def matches(directory: Path, manifest: Manifest, *, read: bool) -> bool:
    """Whether a directory holds the files of a manifest: by their sizes, or, with `read`, by their content."""
    try:
        for name, expected in manifest.files.items():
            file = directory / name
            if file.stat().st_size != expected.n_bytes or (read and sha256_of(file) != expected.sha256):
                return False
    except OSError:  # a file is missing, or the disk cannot read it
        return False
    return True


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)
