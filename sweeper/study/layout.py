"""Where things lie in a study's directory: names and places. Pure."""

from pathlib import Path

STUDIES = Path("studies")  # where studies lie unless another place is named, each in a directory of its name

MARKER = "study.json"  # name and storage; a directory that holds one is a study's
SWEEP = "sweep.yaml"  # the resolved config
JOURNAL = "study.journal"  # the Optuna storage, where no URL names another one
EVENTS = "events.log"  # one line per decision
CURVES = "curves"  # one table per trial
REPORT = "report"
_TRIALS = "trials"


def trials_dir(directory: Path) -> Path:
    """Return what holds the directories of a study's trials."""
    return directory / _TRIALS


def trial_dir(directory: Path, number: int) -> Path:
    """Return the directory of a trial: its checkpoints, the model that it kept, scores by item, its environment."""
    return trials_dir(directory) / str(number)
