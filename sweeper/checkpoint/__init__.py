"""Checkpoints of trials: whole or absent, checked by their hashes, on a file system or in an object store."""

from pathlib import Path

from sweeper.checkpoint.directory import DirectoryCheckpoints
from sweeper.checkpoint.inherit import inherit_checkpoint
from sweeper.checkpoint.manifest import MANIFEST, Saved
from sweeper.checkpoint.remote import RemoteCheckpoints, check_url, trials_at
from sweeper.checkpoint.retention import Retention
from sweeper.checkpoint.store import Checkpoints, KeptCheckpoints, UnreachedError

__all__ = [
    "MANIFEST",
    "Checkpoints",
    "DirectoryCheckpoints",
    "KeptCheckpoints",
    "RemoteCheckpoints",
    "Retention",
    "Saved",
    "UnreachedError",
    "check_url",
    "checkpoints_place",
    "inherit_checkpoint",
    "open_checkpoints",
    "trials_at",
]


def checkpoints_place(url: str | None, *, study: str, trial_dir: str, number: int) -> str:
    """Return where a trial's checkpoints lie: under a URL of the config, or in the trial's own directory."""
    if url is None:
        return str(Path(trial_dir) / "checkpoints")
    return f"{url.rstrip('/')}/{study}/trials/{number}/checkpoints"


def open_checkpoints(
    place: str, *, newest_step: int | None = None, trial_dir: Path | None = None, rank: int = 0
) -> Checkpoints:
    """Return the checkpoints at a place, a path or an fsspec URL.

    Args:
        place: As `checkpoints_place` gives it.
        newest_step: Later ones are not to be used: the study has no curve up to them. None: all may be.
        trial_dir: The trial's own directory, where those of a URL are fetched to. None: whoever asks loads none.
        rank: Of the worker that asks.
    """
    if "://" in place:
        return RemoteCheckpoints(place, newest_step=newest_step, trial_dir=trial_dir, rank=rank)
    return DirectoryCheckpoints(Path(place), newest_step=newest_step)
