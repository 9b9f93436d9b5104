"""A trial's checkpoints on a file system.

trials/N/checkpoints/step-00000128/
    …              whatever the trial saved
    MANIFEST.json  step, samples, and size and SHA-256 of every file; written last, before the rename
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from sweeper.channel import LoadedCheckpoint
from sweeper.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    Saved,
    describe,
    matches,
    name_of,
    outlived,
    parse,
)
from sweeper.files import publish_directory


class DirectoryCheckpoints:
    """Checkpoints of one trial under a directory that every node sees.

    Args:
        root: The directory; made when the first one is saved.
        newest_step: Later ones are not to be used.
    """

    def __init__(self, root: Path, *, newest_step: int | None = None) -> None:
        self._root = root
        self._newest_step = newest_step

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Take over a directory as the checkpoint after `step`; return its name.

        Of the older ones the newest whole one stays.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        beside = self._root / f".{uuid.uuid4().hex[:8]}.tmp"
        try:
            shutil.move(source, beside)
            manifest = describe(beside, step=step, samples=samples)
            (beside / MANIFEST).write_text(manifest.dump())
            publish_directory(beside, self._root / name_of(step))
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # what a failed try left; it has its name otherwise
        self._newest_step = None if self._newest_step is None else max(step, self._newest_step)
        names = [path.name for path in self._paths()]
        whole = [path.name for path, _ in self._manifests()]
        for name in outlived(names, whole=whole, newest=name_of(step)):
            self._drop(name)
        return name_of(step)

    def load(self) -> LoadedCheckpoint | None:
        """Return the newest usable one whose files are all there and unchanged, or None.

        What is later than what may be used is removed, whole or not: it would be taken for a part of this attempt's
        history.
        """
        self._tidy()
        if self._newest_step is not None:
            for path in self._paths():
                if path.name > name_of(self._newest_step):
                    self._drop(path.name)
        for path, manifest in reversed(list(self._manifests())):
            if matches(path, manifest, read=True):
                return LoadedCheckpoint(path=path, step=manifest.step, samples=manifest.samples)
        return None

    def saved(self) -> list[Saved]:
        """Return those that look whole, oldest first, without reading all of their files."""
        return [
            Saved(name=path.name, step=manifest.step, samples=manifest.samples, n_bytes=manifest.n_bytes)
            for path, manifest in self._manifests()
            if matches(path, manifest, read=False)
        ]

    def remove(self, name: str) -> None:
        """Remove one."""
        shutil.rmtree(self._root / name, ignore_errors=True)

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _drop(self, name: str) -> None:
        """Remove one for a worker. The driver may remove the same one, to keep to a bound of bytes."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / name)

    def _paths(self) -> list[Path]:
        return sorted(self._root.glob("step-*"))

    def _manifests(self) -> Iterator[tuple[Path, Manifest]]:
        for path in self._paths():
            try:
                manifest = parse((path / MANIFEST).read_bytes())
            except OSError:  # it was killed while it was removed
                continue
            if manifest is not None and name_of(manifest.step) == path.name:
                yield path, manifest

    def _tidy(self) -> None:
        """Remove what killed workers left half-made."""
        for path in [*self._root.glob(".*.tmp"), *self._root.parent.glob(".checkpoint-*")]:
            shutil.rmtree(path, ignore_errors=True)
