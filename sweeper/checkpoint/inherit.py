"""A trial begins with the checkpoint of another one."""

import os
import shutil
import uuid
from pathlib import Path

from sweeper.checkpoint.directory import DirectoryCheckpoints
from sweeper.checkpoint.manifest import Saved
from sweeper.checkpoint.remote import RemoteCheckpoints
from sweeper.files import publish_directory, write_error


def inherit_checkpoint(source: str, place: str, *, newest_step: int) -> Saved | None:
    """Let the newest whole checkpoint of one trial be the first one of another.

    Nothing is copied on a file system: the files are linked, since none of them ever changes. An object store
    copies within itself.

    Args:
        source: Where the other trial's checkpoints lie, as `checkpoints_place` gives it.
        place: Where this trial's are to lie.
        newest_step: Later ones are not to be used: the study has no curve up to them.

    Returns:
        It, or None where there is none.

    Raises:
        SweeperError: If they cannot be read, or it cannot be copied.
    """
    if "://" in source:
        remote = RemoteCheckpoints(source)
        saved = _newest(remote.saved(), newest_step)
        if saved is not None:
            remote.copy(saved.name, place)
        return saved
    saved = _newest(DirectoryCheckpoints(Path(source)).saved(), newest_step)
    if saved is not None:
        _link(Path(source) / saved.name, Path(place) / saved.name)
    return saved


def _newest(all_saved: list[Saved], newest_step: int) -> Saved | None:
    return next((saved for saved in reversed(all_saved) if saved.step <= newest_step), None)


def _link(source: Path, target: Path) -> None:
    beside = target.parent / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, beside, copy_function=_link_or_copy)
        publish_directory(beside, target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # what a failed try left; it has its name otherwise


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
