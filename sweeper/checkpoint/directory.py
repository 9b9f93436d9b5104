"""A trial's checkpoints on a file system.

trials/N/checkpoints/step-00000128/
    …              whatever the trial saved
    MANIFEST.json  step, samples, and size and SHA-256 of every file; written last, before the rename
"""

import contextlib
import functools
import logging
import shutil
import uuid
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
from sweeper.errors import SweeperError, named_line
from sweeper.files import publish_directory
from sweeper.looking import names_in, patiently

logger = logging.getLogger(__name__)


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

        Of the older ones the newest whole one stays. Those that cannot be removed are named and left to the next call.
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
        try:
            whole = [path.name for path, _ in self._manifests()]
            for name in outlived(self._names(), whole=whole, newest=name_of(step)):
                self._drop(name)
        except (OSError, SweeperError) as error:  # on NFS also where a file of it is still open elsewhere
            logger.warning("Older checkpoints in %s could not be removed: %s", self._root, named_line(error))
        return name_of(step)

    def load(self) -> LoadedCheckpoint | None:
        """Return the newest usable one whose files are all there and unchanged, or None.

        What is later than what may be used is removed, whole or not: it would be taken for a part of this attempt's
        history.

        Raises:
            SweeperError: If none is usable, and one of them perhaps only because it cannot be read.
        """
        self._tidy()
        if self._newest_step is not None:
            for name in self._names():
                if name > name_of(self._newest_step):
                    self._drop(name)
        unread: SweeperError | None = None
        for path, manifest in reversed(self._manifests()):
            try:
                is_whole = patiently(path, functools.partial(matches, path, manifest, read=True))
            except SweeperError as error:  # the one before it may be read all the same
                unread = unread or error
                continue
            if is_whole:
                return LoadedCheckpoint(path=path, step=manifest.step, samples=manifest.samples)
        if unread is not None:
            raise unread
        return None

    def saved(self) -> list[Saved]:
        """Return those that look whole, oldest first, without reading all of their files.

        Raises:
            SweeperError: If they cannot be read.
        """
        return [
            Saved(name=path.name, step=manifest.step, samples=manifest.samples, n_bytes=manifest.n_bytes)
            for path, manifest in self._manifests()
            if patiently(path, functools.partial(matches, path, manifest, read=False))
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

    def _names(self) -> list[str]:
        names = patiently(self._root, lambda: names_in(self._root))
        return [name for name in names if name.startswith("step-")]

    def _manifests(self) -> list[tuple[Path, Manifest]]:
        paths = [self._root / name for name in self._names()]
        found = [(path, patiently(path, functools.partial(_manifest_in, path))) for path in paths]
        return [(path, one) for path, one in found if one is not None and name_of(one.step) == path.name]

    def _tidy(self) -> None:
        """Remove what killed workers left half-made."""
        for path in [*self._root.glob(".*.tmp"), *self._root.parent.glob(".checkpoint-*")]:
            shutil.rmtree(path, ignore_errors=True)


def _manifest_in(path: Path) -> Manifest | None:
    """Return the manifest of a checkpoint; None where it has none: whoever saved or removed it was killed."""
    try:
        with open(path / MANIFEST, "rb") as file:
            return parse(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
