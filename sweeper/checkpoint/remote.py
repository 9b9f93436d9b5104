"""A trial's checkpoints in an object store, through fsspec.

An object store has no rename: a checkpoint is there once its manifest is, which is sent last.
"""

import contextlib
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from sweeper.checkpoint.store import UnreachedError
from sweeper.errors import ConfigError, SweeperError, named_line
from sweeper.extras import install_command

logger = logging.getLogger(__name__)

_PACKAGES = {  # of other stores than S3
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}


def _installing(scheme: str) -> str:
    if scheme in ("s3", "s3a"):
        return install_command("s3")
    return f"pip install {_PACKAGES.get(scheme, 'the fsspec package for ' + scheme)}"


def check_url(url: str) -> None:
    """Refuse a place for checkpoints that cannot be used.

    Raises:
        ConfigError: If its kind is unknown, its package is missing, or it cannot be written.
    """
    probe = f"{url.rstrip('/')}/.sweeper-probe"
    try:
        system, path = _open(probe)
        system.pipe_file(path, b"sweeper")
        system.rm_file(path)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"`trial.checkpoint.url` = {url} cannot be written: {named_line(error)}. Check the place and the "
            "credentials."
        ) from error


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Tell the driver what to do where a store does not do what it is asked to; every store has its own errors.

    Raises:
        UnreachedError: If so.
    """
    try:
        yield
    except SweeperError:
        raise
    except Exception as error:
        raise UnreachedError(
            f"The checkpoints at {url} cannot be reached: {named_line(error)}. What was recorded so far is kept. Check "
            "the place and the credentials, and go on with `sweeper resume`."
        ) from error


def _open(url: str) -> tuple[Any, str]:
    import fsspec  # only where a sweep asks for an object store

    scheme = url.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(
            f"`trial.checkpoint.url` = {url} needs a package that is not installed ({error}). Install it with "
            f"`{_installing(scheme)}`."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"`trial.checkpoint.url` = {url}: no file system is known by `{scheme}://`. Use for example s3://."
        ) from error
    return system, path


def trials_at(url: str, *, study: str) -> set[int] | None:
    """Return the trials of a study that have anything under a URL, in one look; None where the store does not say."""
    try:
        system, root = _open(f"{url.rstrip('/')}/{study}/trials")
        listed = system.ls(root, detail=False, refresh=True)
    except FileNotFoundError:
        return set()
    except Exception as error:  # noqa: BLE001 - every store has its own errors
        logger.warning("The trials at %s could not be listed: %s", url, named_line(error))
        return None
    names = (str(path).rstrip("/").rpartition("/")[2] for path in listed)
    return {int(name) for name in names if name.isdecimal()}


class RemoteCheckpoints:
    """Checkpoints of one trial under a URL that every node reaches.

    Args:
        url: The place.
        newest_step: Later ones are not to be used.
        trial_dir: Where they are fetched to, as `.checkpoint-*`; None: among the system's temporary files.
        rank: Of the worker that fetches. Several that train a trial together may share its directory.
    """

    def __init__(
        self, url: str, *, newest_step: int | None = None, trial_dir: Path | None = None, rank: int = 0
    ) -> None:
        self._url = url
        self._newest_step = newest_step
        self._trial_dir = trial_dir
        self._rank = rank
        self._is_tidy = False
        self._opened: tuple[Any, str] | None = None

    def save(self, source: Path, *, step: int, samples: int) -> str:
        """Send a directory as the checkpoint after `step` and remove it here; return its name.

        Of the older ones the newest whole one stays. Those that cannot be removed are named and left to the next call.
        """
        system, root = self._place
        name = name_of(step)
        manifest = describe(source, step=step, samples=samples)
        self._remove(name)
        for file in manifest.files:
            system.put_file(str(source / file), f"{root}/{name}/{file}")
        system.pipe_file(f"{root}/{name}/{MANIFEST}", manifest.dump().encode())
        shutil.rmtree(source)
        self._newest_step = None if self._newest_step is None else max(step, self._newest_step)
        try:
            names = self._names()
            whole = [one for one in names if self._manifest(one) is not None]
            for other in outlived(names, whole=whole, newest=name):
                self._remove(other)
        except Exception as error:  # noqa: BLE001 - every store has its own errors
            logger.warning("Older checkpoints at %s could not be removed: %s", self._url, named_line(error))
        return name

    def load(self) -> LoadedCheckpoint | None:
        """Fetch the newest usable one whose files are all there and unchanged, or return None.

        What is later than what may be used is removed, whole or not: it would be taken for a part of this attempt's
        history.
        """
        self._tidy()
        for name in reversed(self._names()):
            if self._newest_step is not None and name > name_of(self._newest_step):
                self._remove(name)
                continue
            manifest = self._manifest(name)
            if manifest is None:
                continue
            path = self._fetched(name, manifest)
            if path is not None:
                return LoadedCheckpoint(path=path, step=manifest.step, samples=manifest.samples)
        return None

    def saved(self) -> list[Saved]:
        """Return those whose manifest is there, oldest first.

        Raises:
            UnreachedError: If the store cannot be reached.
        """
        with _reaching(self._url):
            found = [(name, self._manifest(name)) for name in self._names()]
        return [
            Saved(name=name, step=manifest.step, samples=manifest.samples, n_bytes=manifest.n_bytes)
            for name, manifest in found
            if manifest is not None
        ]

    def copy(self, name: str, url: str) -> None:
        """Copy one to another place of the same store, the manifest last.

        Raises:
            UnreachedError: If the store cannot be reached.
        """
        with _reaching(self._url):
            system, root = self._place
            manifest = self._manifest(name)
            _, other = _open(url)
            for file in (*(manifest.files if manifest is not None else ()), MANIFEST):
                system.cp_file(f"{root}/{name}/{file}", f"{other}/{name}/{file}")

    def remove(self, name: str) -> None:
        """Remove one.

        Raises:
            UnreachedError: If the store cannot be reached.
        """
        with _reaching(self._url):
            self._remove(name)

    def clear(self) -> None:
        """Remove all. What cannot be removed is named and left: it costs room, not results."""
        try:
            for name in self._names():
                self._remove(name)
        except Exception as error:  # noqa: BLE001 - every store has its own errors
            logger.warning("The checkpoints at %s could not be removed: %s", self._url, error)

    @property
    def _place(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = _open(self._url)
        return self._opened

    def _remove(self, name: str) -> None:
        """Remove one. The manifest goes first, so that what is left is no checkpoint."""
        system, root = self._place
        for path in (f"{root}/{name}/{MANIFEST}", f"{root}/{name}"):
            try:
                system.rm(path, recursive=True)
            except FileNotFoundError:
                continue

    def _names(self) -> list[str]:
        system, root = self._place
        try:
            listed = system.ls(root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in listed)
        return sorted(name for name in names if name.startswith("step-"))

    def _manifest(self, name: str) -> Manifest | None:
        system, root = self._place
        try:
            manifest = parse(system.cat_file(f"{root}/{name}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        return manifest if manifest is not None and name_of(manifest.step) == name else None

    def _fetched(self, name: str, manifest: Manifest) -> Path | None:
        """Return a copy on local disk, which stays as long as this object; None where it is not whole."""
        system, root = self._place
        prefix = "sweeper-checkpoint-" if self._trial_dir is None else f".checkpoint-{self._rank}-"
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=self._trial_dir))
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        try:
            for file in manifest.files:
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                system.get_file(f"{root}/{name}/{file}", str(path / file))
            if matches(path, manifest, read=True):
                return path
        except FileNotFoundError:
            logger.debug("A file of %s in %s is not there", name, self._url)
        shutil.rmtree(path, ignore_errors=True)  # the next older one may need the room
        return None

    def _tidy(self) -> None:
        """Remove what killed workers left half-made or fetched, once: what is fetched from now on is in use.

        Rank 0 loads before the others do, and so can remove theirs too.
        """
        if self._is_tidy or self._trial_dir is None:
            return
        self._is_tidy = True
        whose = "*" if self._rank == 0 else f"{self._rank}-*"
        for path in self._trial_dir.glob(f".checkpoint-{whose}"):
            shutil.rmtree(path, ignore_errors=True)
