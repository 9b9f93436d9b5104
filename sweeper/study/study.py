"""The durable study: every fact of a sweep is here before anyone acts on it.

reading.py reads it, held.py holds its lease, writing.py writes it; here it is made and opened.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError, SweeperError
from sweeper.looking import is_there
from sweeper.storage_url import absolute_storage, keep_password, mask_url, sqlite_file
from sweeper.study import keys, layout
from sweeper.study.clock import utc_now
from sweeper.study.curves import CurveStore
from sweeper.study.storage import open_storage
from sweeper.study.versions import versions
from sweeper.study.writing import DrivenStudy

_FIRST_ATTRIBUTES = {keys.DIRECTORY, keys.CREATED, keys.VERSIONS}

logger = logging.getLogger(__name__)

# Optuna announces every study and trial on stderr; the sweep has its own words for that.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study(DrivenStudy):
    """One study in its storage. Writes go through at once; reads see what others wrote.

    Only one driver writes, the one that took the study; anyone may read.
    """

    @classmethod
    def create(cls, config: SweepConfig, *, directory: Path) -> "Study":
        """Make a new, empty study. What a driver left that was killed while it made one is gone on with.

        Raises:
            StudyMismatchError: If one of this name exists.
        """
        config = config.model_copy(update={"storage": keep_password(absolute_storage(config.storage))})
        storage = open_storage(config.storage, directory)
        direction = StudyDirection.MAXIMIZE if config.direction == "maximize" else StudyDirection.MINIMIZE
        try:
            study_id = storage.create_new_study([direction], config.study)
        except DuplicatedStudyError as error:
            study_id = storage.get_study_id_from_name(config.study)
            if not _is_begun(storage, study_id):
                raise StudyMismatchError(f"Study `{config.study}` exists already in this storage.") from error
        for key, value in (
            (keys.DIRECTORY, str(directory)),
            (keys.CREATED, utc_now()),
            (keys.VERSIONS, versions()),
            (keys.CONFIG, json.loads(config.model_dump_json())),
        ):
            storage.set_study_user_attr(study_id, key, value)
        return cls(storage=storage, name=config.study)

    @classmethod
    def find(cls, *, name: str, url: str | None, directory: Path) -> "Study | None":
        """Open a study by name, or return None where the storage has none of this name, or one that is not made yet.

        Raises:
            ConfigError: If the storage cannot be reached.
            StudyMismatchError: If the study of this name was not made by sweeper.
            SweeperError: If its files cannot be read, or are damaged.
        """
        with _reading(directory):
            file = directory / layout.JOURNAL if url is None else sqlite_file(url)
            if file is not None and not is_there(file):  # to open it would make it
                return None
        storage = open_storage(keep_password(url), directory)
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
        if _is_begun(storage, study_id):
            return None
        found = cls(storage=storage, name=name)
        if url is None:
            found._move_to(directory)
        return found

    @classmethod
    def open(cls, place: str, *, url: str | None = None) -> "Study":
        """Open a study by its directory, its name in `studies/`, or with a storage URL its name there.

        Raises:
            StudyMismatchError: If there is none.
            SweeperError: If its files cannot be read.
        """
        with _reading(place):
            return cls._opened(place, url)

    @classmethod
    def _opened(cls, place: str, url: str | None) -> "Study":
        directory = Path(place)
        marker = directory / layout.MARKER
        if url is not None and not is_there(marker):
            found = cls.find(name=place, url=url, directory=directory)
            if found is None:
                raise StudyMismatchError(f"The storage holds no study named `{place}`.")
            return found
        if not is_there(marker) and is_there(layout.STUDIES / place / layout.MARKER):
            directory = layout.STUDIES / place
            marker = directory / layout.MARKER
        if not is_there(marker):
            raise StudyMismatchError(
                f"`{place}` is not a study's directory: it holds no {layout.MARKER}. Give the directory that `sweeper "
                f"launch` printed, the name of a study in {layout.STUDIES}/, or its name with `--storage URL`."
            )
        name, stored_url = _read_marker(marker)
        found = cls.find(name=name, url=url or stored_url, directory=directory)
        if found is None:
            stored = url or stored_url
            where = "" if stored is None else f", {mask_url(stored)},"
            remedy = "" if stored is None else " Where the database has moved, name it with `--storage URL`."
            raise StudyMismatchError(
                f"The storage of {directory}{where} holds no study named `{name}`.{remedy}"
            )
        found._move_to(directory)
        return found

    def move_to(self, directory: Path) -> None:
        """Let a study's directory be the one that is asked for, from now on.

        Where the old one is not to be seen from here and the new one is empty, what the old one holds is missed.

        Raises:
            StudyMismatchError: If its files lie in another directory, and not in this one.
        """
        directory = directory.absolute()
        if directory == self.directory or _are_same(directory, self.directory):
            return
        if self.config.storage is None:
            raise StudyMismatchError(
                f"Study `{self.name}` keeps its records in {self.directory} itself. Move that directory, and name the "
                "new one as the study."
            )
        marker = directory / layout.MARKER
        with _reading(directory):
            name = _read_marker(marker)[0] if is_there(marker) else None
            lies_elsewhere = name is None and _holds_study(self.directory)
        if name is not None and name != self.name:
            raise StudyMismatchError(
                f"{directory} is the directory of study `{name}`, not of `{self.name}`. Give another one with `--dir`."
            )
        if lies_elsewhere:
            raise StudyMismatchError(
                f"Study `{self.name}` lies in {self.directory}, with its curves, checkpoints and report, and "
                f"{directory} has none of them. Move or copy the one to the other, or give `--dir {self.directory}`."
            )
        if name is None:
            logger.warning(
                "%s, where study `%s` lay, is not to be seen here: curves and checkpoints that it holds are missed.",
                self.directory, self.name,
            )  # fmt: skip
        self._move_to(directory)

    def _move_to(self, directory: Path) -> None:
        """Take a study's directory to be where it was found: it may have been moved or copied."""
        self.directory = directory.absolute()
        self.curves = CurveStore(self.directory / layout.CURVES, check=self.check_held)


def _read_marker(marker: Path) -> tuple[str, str | None]:
    """Return the name and the storage of the study whose directory holds the marker.

    Raises:
        StudyMismatchError: If it cannot be read.
    """
    try:
        facts = json.loads(marker.read_text())
        return str(facts["study"]), facts["storage"]
    except (ValueError, KeyError, TypeError) as error:
        raise StudyMismatchError(
            f"{marker} cannot be read ({error}). Restore it, or give the study's name with `--storage URL`."
        ) from error


def _holds_study(directory: Path) -> bool:
    """Whether a directory is to be seen from here as a study's; one that may not be entered is not."""
    try:
        return is_there(directory / layout.MARKER)
    except PermissionError:
        return False


def _are_same(one: Path, other: Path) -> bool:
    """Whether two paths are one directory, for example by a link."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


@contextlib.contextmanager
def _reading(place: str | Path) -> Iterator[None]:
    """Tell what to do where a study's files are not to be read.

    Raises:
        SweeperError: If they are not.
    """
    try:
        yield
    except OSError as error:
        raise SweeperError(
            f"The study `{place}` cannot be read: {error}. Whoever reads a study needs leave to read its directory and "
            "what lies in it: ask its owner, or copy it."
        ) from error


def _is_begun(storage: BaseStorage, study_id: int) -> bool:
    """Whether a study was entered, but its driver died before it was one: it has no config and no trial."""
    attributes = storage.get_study_user_attrs(study_id)
    return (
        keys.CONFIG not in attributes
        and set(attributes) <= _FIRST_ATTRIBUTES
        and not storage.get_n_trials(study_id)
    )
