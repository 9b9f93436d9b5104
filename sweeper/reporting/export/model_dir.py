"""A trial's trained model as a directory that can be used or published: weights, tokenizer, model card."""

import shlex
import shutil
import uuid
from pathlib import Path

from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.files import publish_directory
from sweeper.looking import is_directory, is_there
from sweeper.records import TrialRecord
from sweeper.reporting.export.model_card import model_card
from sweeper.reporting.origins import warm_text
from sweeper.reporting.report_files import BEST
from sweeper.study import layout
from sweeper.study.view import StudyView


def write_model(view: StudyView, record: TrialRecord, target: Path) -> None:
    """Copy the model that a trial kept, with a README.md. The directory is whole or absent.

    Raises:
        StudyMismatchError: If the trial kept no model.
        ConfigError: If the directory is in use.
    """
    source = kept_model(view, record)
    if is_there(target) and (not is_directory(target) or any(target.iterdir())):
        raise ConfigError(f"`--model`: {target} exists and is not empty. Choose another directory.")
    beside = target.absolute().with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        shutil.copytree(source, beside)
        (beside / "README.md").write_text(model_card(view, record, beside), encoding="utf-8")
        publish_directory(beside, target.absolute())
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # gone already, unless something failed


def kept_model(view: StudyView, record: TrialRecord) -> Path:
    """Return the directory of the model that a trial kept.

    Raises:
        StudyMismatchError: If it kept none, with what keeps it.
    """
    source = layout.trial_dir(view.directory, record.number) / "model"
    if not is_directory(source):
        raise StudyMismatchError(_kept_none(view, record, source))
    return source


def push_command(view: StudyView, record: TrialRecord, target: Path) -> str:
    """Return the hub's own command that publishes the directory."""
    return f"hf upload YOUR_NAME/{view.name}-trial-{record.number} {shlex.quote(str(target))}"


def _kept_none(view: StudyView, record: TrialRecord, source: Path) -> str:
    said = f"Trial {record.number} of study `{view.name}` kept no model: there is no {source}. "
    if view.config.trial.function is not None:
        return said + "A trial function keeps one by writing it there."
    is_best = view.best is not None and view.best.number == record.number
    sweep = BEST if is_best else layout.SWEEP
    place = view.directory / (f"{layout.REPORT}/{BEST}" if is_best else layout.SWEEP)
    fixed = (
        "" if is_best else " with another study name and the trial's params as the only values of its grid"
    )
    report = f"sweeper report {shlex.quote(str(view.directory))}"
    made = f"`{report}` writes {sweep}; train it" if is_best else "Train the point"
    keeping = "" if is_best else " trial.checkpoint.save_model=true"
    warm = f" It {warm_text(record)}, and a launch trains from scratch." if record.is_warm_started else ""
    return f"{said}{made} again{fixed}: `sweeper launch {shlex.quote(str(place))}{keeping}`.{warm}"
