"""The durable study: every fact of a sweep is here before anyone acts on it.

reading.py reads it, held.py holds its lease, writing.py writes it; here it is made and opened.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError, SweeperError
from sweeper.storage_url import absolute_storage, keep_password
from sweeper.study import keys, layout
from sweeper.study.clock import utc_now
from sweeper.study.curves import CurveStore
from sweeper.study.storage import open_storage
from sweeper.study.versions import versions
from sweeper.study.writing import DrivenStudy

_FIRST_ATTRIBUTES = {keys.DIRECTORY, keys.CREATED, keys.VERSIONS}

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
            if url is None and not (directory / layout.JOURNAL).exists():
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
        if url is not None and not marker.exists():
            found = cls.find(name=place, url=url, directory=directory)
            if found is None:
                raise StudyMismatchError(f"The storage holds no study named `{place}`.")
            return found
        if not marker.exists() and (layout.STUDIES / place / layout.MARKER).exists():
            directory = layout.STUDIES / place
            marker = directory / layout.MARKER
        if not marker.exists():
            raise StudyMismatchError(
                f"`{place}` is not a study's directory: it holds no {layout.MARKER}. "
                "Give the directory that `sweeper launch` printed, or the study's name with `--storage URL`."
            )
        try:
            facts = json.loads(marker.read_text())
            name, stored_url = str(facts["study"]), facts["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise StudyMismatchError(
                f"{marker} cannot be read ({error}). Restore it, or give the study's name with `--storage URL`."
            ) from error
        found = cls.find(name=name, url=url or stored_url, directory=directory)
        if found is None:
            raise StudyMismatchError(f"The storage of {directory} holds no study named `{name}`.")
        found._move_to(directory)
        return found

    def _move_to(self, directory: Path) -> None:
        """Take a study's directory to be where it was found: it may have been moved or copied."""
        self.directory = directory.absolute()
        self.curves = CurveStore(self.directory / layout.CURVES, check=self.check_held)


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
