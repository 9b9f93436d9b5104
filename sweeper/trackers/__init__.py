"""Experiment trackers that a sweep reports to beside its study: TensorBoard, MLflow, Weights & Biases.

Each trial is a run, all runs of a study are one group. A tracker only watches: the study stays the truth, and a
tracker that fails is said so once and left alone.
"""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.extras import install_command
from sweeper.records import StepRow, TrialRecord
from sweeper.trackers.base import Run, Tracker
from sweeper.trackers.listener import TrackerListener

# What is imported; the extra has the tracker's name.
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(config: SweepConfig) -> None:
    """Find out before anything starts whether each tracker's client is installed.

    Raises:
        ConfigError: If one is not, with the extra that brings it.
    """
    missing = [name for name in config.trackers if importlib.util.find_spec(_PACKAGES[name]) is None]
    if missing:
        named = ", ".join(f"`{name}`" for name in missing)
        raise ConfigError(
            f"`trackers` names {named}, whose client is not installed. "
            f"Install it with `{install_command(*missing)}`, or leave it out."
        )


def trackers_for(
    config: SweepConfig,
    directory: Path,
    rows: Callable[[int, int], Sequence[StepRow]],
    *,
    created: str | None,
    records: Iterable[TrialRecord] = (),
) -> list[TrackerListener]:
    """Return a listener for each tracker of the config, to be entered as a context.

    Args:
        config: Names them.
        directory: Of the study; local runs are kept below it.
        rows: The recorded steps of a trial past one of them.
        created: When the study was made; a server may still hold the runs of an earlier one of its name.
        records: Of the study's trials: of those that have ended each tracker gets what it has not got yet.
    """
    ended = [Run.of(record) for record in records if record.state.is_finished and not record.is_repeat]
    makers: Mapping[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _tensorboard(directory),
        "mlflow": lambda: _mlflow(config, directory, created or ""),
        "wandb": lambda: _wandb(config, directory, created or ""),
    }
    return [
        TrackerListener(
            name, makers[name], rows=rows, logged=directory / "trackers" / f"{name}.steps", ended=ended
        )
        for name in config.trackers
    ]


def _tensorboard(directory: Path) -> Tracker:
    from sweeper.trackers.tensorboard import TensorBoardTracker

    return TensorBoardTracker(directory / "tensorboard")


def _mlflow(config: SweepConfig, directory: Path, created: str) -> Tracker:
    from sweeper.trackers.mlflow import MlflowTracker

    return MlflowTracker(config.study, directory, created)


def _wandb(config: SweepConfig, directory: Path, created: str) -> Tracker:
    from sweeper.trackers.wandb import WandbTracker

    return WandbTracker(config.study, directory, created)


__all__ = ["TrackerListener", "check_trackers", "trackers_for"]
