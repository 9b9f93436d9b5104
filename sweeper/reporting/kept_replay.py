"""The last replay of a study, kept in its directory for the report."""

import json
from pathlib import Path
from typing import Any

from sweeper.errors import SweeperError
from sweeper.files import write_text
from sweeper.study.recorded_files import is_recorded_file
from sweeper.study.study import Study

REPLAY_FILE = "replay.json"


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


def kept_replay(directory: Path) -> dict[str, Any] | None:
    """Return the last replay of the study in a directory, or None.

    Raises:
        SweeperError: If the file is damaged.
    """
    path = directory / REPLAY_FILE
    try:
        document = json.loads(path.read_bytes())
        [(one["pruner"], one["cost"], one["hit"], one["regret"]) for one in document["results"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweeperError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Remove it, or run `sweeper replay` again."
        ) from error
    return dict(document)
