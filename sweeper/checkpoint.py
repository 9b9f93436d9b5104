"""A trial's checkpoints on a file system: whole or absent, checked by their hashes.

trials/N/checkpoints/step-00000128/
    …            whatever the trial saved
    MANIFEST.json  step, samples, and size and SHA-256 of every file; written last, before the rename
"""

import hashlib
import json
import shutil
import uuid
from pathlib import Path

from sweeper.context import LoadedCheckpoint
from sweeper.files import publish_directory

MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest, and the one before it in case the newest is damaged


class DirectoryCheckpoints:
    """Checkpoints of one trial under a directory that every node sees."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Take over a directory as the checkpoint after `step`; return its name. Older ones are removed."""
        self._root.mkdir(parents=True, exist_ok=True)
        beside = self._root / f".{uuid.uuid4().hex[:8]}.tmp"
        shutil.move(source, beside)
        files = {
            str(file.relative_to(beside)): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(beside.rglob("*"))
            if file.is_file()
        }
        manifest = {"step": step, "samples": samples, "files": files}
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        name = f"step-{step:08d}"
        publish_directory(beside, self._root / name)
        self._remove_older()
        return name

    def load(self) -> LoadedCheckpoint | None:
        """Return the newest checkpoint whose files are all there and unchanged, or None."""
        for path in sorted(self._root.glob("step-*"), reverse=True):
            loaded = _verified(path)
            if loaded is not None:
                return loaded
        return None

    def clear(self) -> None:
        """Remove every checkpoint."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _remove_older(self) -> None:
        for path in sorted(self._root.glob("step-*"))[:-KEPT]:
            shutil.rmtree(path)


def _verified(path: Path) -> LoadedCheckpoint | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            file = path / name
            if file.stat().st_size != expected["bytes"] or _sha256(file) != expected["sha256"]:
                return None
        return LoadedCheckpoint(path=path, step=int(manifest["step"]), samples=int(manifest["samples"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A damaged manifest is a damaged checkpoint: the one before it is used.
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
