"""Which studies there are: in a directory, or in a storage."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sweeper.errors import ConfigError, StudyMismatchError, SweeperError
from sweeper.looking import is_directory, is_file, is_there, names_in
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.driver import driver_json, silence
from sweeper.reporting.formats import one_line, short
from sweeper.reporting.status import origin_json
from sweeper.reporting.summary import TO_GO_ON, is_to_go_on
from sweeper.storage_url import sqlite_file
from sweeper.study import layout
from sweeper.study.clock import wall_clock
from sweeper.study.storage import open_storage
from sweeper.study.study import Study
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundStudy:
    """One study, or the place of one that cannot be read."""

    name: str
    directory: Path
    view: StudyView | None
    error: str | None = None  # why it cannot be read


def find_studies(directory: Path | None, url: str | None) -> list[FoundStudy]:
    """Return the studies of a storage, or else of a directory.

    Raises:
        ConfigError: If both are given, or the place cannot be read.
        StudyMismatchError: If the directory does not exist.
    """
    if url is None:
        return studies_in_directory(directory)
    if directory is not None:
        raise ConfigError("Give a directory or `--storage URL`, not both.")
    return studies_in_storage(url)


def studies_in_directory(directory: Path | None) -> list[FoundStudy]:
    """Return the studies whose directories lie in one, by name; of None, in `studies/`.

    Raises:
        ConfigError: If it cannot be read.
        StudyMismatchError: If a given directory does not exist.
    """
    place = directory or layout.STUDIES
    try:
        if not is_directory(place):
            if directory is None:
                return []
            raise StudyMismatchError(
                f"The directory `{directory}` does not exist. Give the one that holds the studies."
            )
        directories = [place, *(place / name for name in names_in(place))]
        found = [directory for directory in directories if _may_be_study(directory)]
    except OSError as error:
        raise ConfigError(
            f"The directory `{place}` cannot be read: {error.strerror or error}. Give one that you may read."
        ) from error
    return [_read(directory) for directory in sorted(found, key=lambda one: one / layout.MARKER)]


def _may_be_study(directory: Path) -> bool:
    """Whether a directory is a study's as far as this user may see, or cannot be looked at, which reading it tells."""
    try:
        return is_file(directory / layout.MARKER)
    except PermissionError:
        return False
    except OSError:
        return True


def studies_in_storage(url: str) -> list[FoundStudy]:
    """Return the studies of a storage that sweeper made, by name.

    Raises:
        ConfigError: If it cannot be opened.
        StudyMismatchError: If it is a file that does not exist.
    """
    file = sqlite_file(url)
    try:
        is_missing = file is not None and not is_there(file)  # to open it would make it
    except OSError as error:
        raise ConfigError(
            f"The database `{file}` cannot be looked at: {error.strerror or error}. Give one that you may read."
        ) from error
    if is_missing:
        raise StudyMismatchError(f"There is no database `{file}`. Give the URL of one that holds studies.")
    storage = open_storage(url, Path.cwd())
    found = []
    for stored in sorted(storage.get_all_studies(), key=lambda study: study.study_name):
        try:
            view = Study(storage=storage, name=stored.study_name).view()
        except SweeperError as error:  # one that cannot be read hides no other
            found.append(FoundStudy(name=stored.study_name, directory=Path(), view=None, error=str(error)))
        else:
            found.append(FoundStudy(name=view.name, directory=view.directory, view=view))
    return found


def studies_json(studies: list[FoundStudy]) -> list[dict[str, Any]]:
    """Return studies as plain data."""
    return [_as_json(found) for found in studies]


def studies_table(studies: list[FoundStudy]) -> Table:
    """Return studies for a terminal."""
    table = Table(box=None, pad_edge=False)
    for name in ("study", "state", "trials", "best"):
        table.add_column(name, overflow="fold")
    for found in studies:
        if found.view is None:
            table.add_row(*_cells(found.name, "unreadable", "", found.error or ""))
            continue
        view = found.view
        counts = ", ".join(
            f"{view.count(state)} {_word(state, view)}" for state in TrialState if view.count(state)
        )
        best = view.best
        shown = f"{view.config.metric} = {short(best.value)} ({_number(best)})" if best else ""
        table.add_row(*_cells(view.name, _state(view), counts or "none", shown))
    return table


def _number(best: TrialRecord) -> str:
    return f"trial {best.number}{', warm start' if best.is_warm_started else ''}"


def _word(state: TrialState, view: StudyView) -> str:
    return TO_GO_ON if is_to_go_on(view, state) else state.value


def _state(view: StudyView) -> str:
    silent = silence(view, wall_clock())
    return view.state if silent is None else f"{view.state}, silent for {silent}"


def _cells(*texts: str) -> list[Text]:
    """Return texts as a table shows them: a plain string would be read as markup."""
    return [Text(one_line(text)) for text in texts]


def _read(directory: Path) -> FoundStudy:
    try:
        view = Study.open(str(directory)).view()
    except SweeperError as error:
        # One damaged study must not hide the others.
        return FoundStudy(name=directory.name, directory=directory, view=None, error=str(error))
    return FoundStudy(name=view.name, directory=directory, view=view)


def _as_json(found: FoundStudy) -> dict[str, Any]:
    row: dict[str, Any] = {"study": found.name, "directory": str(found.directory)}
    if found.view is None:
        return row | {"state": None, "error": found.error}
    view = found.view
    best = view.best
    return row | {
        "state": view.state,
        "driver": driver_json(view),
        "metric": view.config.metric,
        "direction": view.config.direction,
        "trials": {state.value: view.count(state) for state in TrialState},
        "best": _best_json(best),
        "created": view.created,
    }


def _best_json(best: TrialRecord | None) -> dict[str, Any] | None:
    """Return the best trial; `number` is what `status --json` calls it, `trial` the older name of the same."""
    if best is None:
        return None
    origin = {} if best.origin is None else {"origin": origin_json(best.origin)}
    return {"trial": best.number, "number": best.number, "value": best.value, **origin}
