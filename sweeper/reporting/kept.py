"""What commands found out about a study, kept in its directory for the report: the last replay, the confirmation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.errors import SweeperError
from sweeper.files import write_text
from sweeper.study.recorded_files import is_recorded_file
from sweeper.study.study import Study

REPLAY_FILE = "replay.json"
CONFIRM_FILE = "confirm.json"


def keep_replay(place: str, document: dict[str, Any], *, storage: str | None = None) -> Path | None:
    """Keep what `sweeper replay --json` prints in the study's directory; return where. None: `place` is a file.

    Raises:
        SweeperError: If the directory cannot be written.
    """
    if is_recorded_file(place):
        return None
    path = Study.open(place, url=storage).directory / REPLAY_FILE
    write_text(path, json.dumps(document, indent=2) + "\n")
    return path


def keep_confirmation(directory: Path, document: dict[str, Any]) -> None:
    """Keep what `sweeper confirm --json` prints in the directory of one of the two studies.

    Raises:
        SweeperError: If the directory cannot be written.
    """
    write_text(directory / CONFIRM_FILE, json.dumps(document, indent=2) + "\n")


def kept_replay(directory: Path) -> dict[str, Any] | None:
    """Return the last replay of the study in a directory, or None.

    Raises:
        SweeperError: If the file is damaged.
    """
    return _kept(
        directory / REPLAY_FILE, "replay",
        lambda found: [(one["pruner"], one["cost"], one["hit"], one["regret"]) for one in found["results"]],
    )  # fmt: skip


def kept_confirmation(directory: Path) -> dict[str, Any] | None:
    """Return the last confirmation of the study in a directory, or by it, or None.

    Raises:
        SweeperError: If the file is damaged.
    """
    return _kept(
        directory / CONFIRM_FILE, "confirm",
        lambda found: [
            *(found["study"], found["of"], found["n_seeds"] + 0, *map(str.strip, found["sentences"])),
            *(finalist["trial"] + 0 for finalist in found["finalists"]),
        ],
    )  # fmt: skip


def _kept(path: Path, command: str, look: Callable[[dict[str, Any]], Any]) -> dict[str, Any] | None:
    """Return a document; `look` reads of it what the report will."""
    try:
        document = json.loads(path.read_bytes())
        look(document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweeperError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Remove it, or run `sweeper {command}` again."
        ) from error
    return dict(document)
