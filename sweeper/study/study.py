"""The durable study: every fact of a sweep is here before anyone acts on it."""

import json
import logging
import os
import platform
import socket
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from sweeper import encoding
from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError
from sweeper.plan import DataFacts, Point
from sweeper.records import Decision, RungRecord, TrialRecord, TrialState
from sweeper.study import space
from sweeper.study.curves import CurveStore
from sweeper.study.storage import JOURNAL_NAME, open_storage
from sweeper.study.view import StudyState, StudyView

_CONFIG, _FACTS, _DRIVER, _DIRECTORY = (
    "sweeper:config",
    "sweeper:facts",
    "sweeper:driver",
    "sweeper:directory",
)
_CREATED, _VERSIONS = "sweeper:created", "sweeper:versions"
_PACKAGES = ("sweeper", "ray", "optuna", "torch", "transformers", "trl", "peft", "datasets")

# Optuna announces every study and trial on stderr; the sweep has its own words for that.
optuna.logging.set_verbosity(optuna.logging.WARNING)


def utc_now() -> str:
    """Return the wall clock's time for people to read; nothing is computed from it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Study:
    """One study in its storage. Writes go through at once; reads see what others wrote.

    Only one driver writes; anyone may read.
    """

    def __init__(self, *, storage: BaseStorage, name: str) -> None:
        self._storage = storage
        self._id = storage.get_study_id_from_name(name)
        attributes = storage.get_study_user_attrs(self._id)
        if _CONFIG not in attributes:
            raise StudyMismatchError(
                f"Study `{name}` is in this storage, but was not made by sweeper. Choose another study name."
            )
        self.name = name
        self.config = SweepConfig.model_validate_json(json.dumps(attributes[_CONFIG]))
        self.directory = Path(attributes[_DIRECTORY])
        self.curves = CurveStore(self.directory / "curves")
        self._trial_ids: dict[int, int] = {}

    # -- opening ---------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: SweepConfig, *, directory: Path) -> "Study":
        """Make a new, empty study.

        Raises:
            StudyMismatchError: If one of this name exists.
        """
        storage = open_storage(config.storage, directory)
        direction = StudyDirection.MAXIMIZE if config.direction == "maximize" else StudyDirection.MINIMIZE
        try:
            study_id = storage.create_new_study([direction], config.study)
        except DuplicatedStudyError as error:
            raise StudyMismatchError(f"Study `{config.study}` exists already in this storage.") from error
        for key, value in (
            (_DIRECTORY, str(directory)),
            (_CREATED, utc_now()),
            (_VERSIONS, versions()),
            (_CONFIG, json.loads(config.model_dump_json())),
        ):
            storage.set_study_user_attr(study_id, key, value)
        return cls(storage=storage, name=config.study)

    @classmethod
    def find(cls, *, name: str, url: str | None, directory: Path) -> "Study | None":
        """Open a study by name, or return None where the storage has none of this name."""
        if url is None and not (directory / JOURNAL_NAME).exists():
            return None
        storage = open_storage(url, directory)
        if name not in {study.study_name for study in storage.get_all_studies()}:
            return None
        return cls(storage=storage, name=name)

    @classmethod
    def open(cls, place: str, *, url: str | None = None) -> "Study":
        """Open a study by its directory, or by its name with a storage URL.

        Raises:
            StudyMismatchError: If there is none.
        """
        if url is not None:
            found = cls.find(name=place, url=url, directory=Path(place))
            if found is None:
                raise StudyMismatchError(f"The storage holds no study named `{place}`.")
            return found
        directory = Path(place)
        marker = directory / "study.json"
        if not marker.exists() and (Path("studies") / place / "study.json").exists():
            directory = Path("studies") / place
            marker = directory / "study.json"
        if not marker.exists():
            raise StudyMismatchError(
                f"`{place}` is not a study's directory: it holds no study.json. "
                "Give the directory that `sweeper launch` printed, or the study's name with `--storage URL`."
            )
        try:
            facts = json.loads(marker.read_text())
            name, stored_url = facts["study"], facts["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise StudyMismatchError(
                f"{marker} cannot be read ({error}). Restore it, or give the study's name with `--storage URL`."
            ) from error
        found = cls.find(name=name, url=stored_url, directory=directory)
        if found is None:
            raise StudyMismatchError(f"The storage of {directory} holds no study named `{name}`.")
        found.directory = directory.absolute()  # the directory may have been moved
        found.curves = CurveStore(found.directory / "curves")
        return found

    # -- points ----------------------------------------------------------------------------------------------

    def add_points(self, points: Sequence[Point]) -> None:
        """Enter points as WAITING trials, each with its id."""
        dimensions = space.distributions(self.config)
        for point in points:
            template = create_trial(
                state=OptunaState.WAITING,
                params={name: space.encode_choice(value) for name, value in point.params.items()},
                distributions=dimensions,
                user_attrs={encoding.POINT: _point_attributes(point)},
            )
            self._storage.create_new_trial(self._id, template)

    def draw(self) -> tuple[int, dict[str, Any]]:
        """Let the sampler draw one more point; it is RUNNING at once. Returns its number and params."""
        n_drawn = self._storage.get_n_trials(self._id)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ExperimentalWarning
            )  # QMC and GP are, in Optuna's words, experimental
            sampler = space.make_sampler(self.config, n_drawn=n_drawn)
            study = optuna.load_study(study_name=self.name, storage=self._storage, sampler=sampler)
            trial = study.ask(space.distributions(self.config))
        return trial.number, space.from_choices(trial.params)

    def set_point(self, number: int, point: Point) -> None:
        """Record the point of a drawn trial."""
        self._set(number, encoding.POINT, _point_attributes(point))

    def claim(self, number: int) -> None:
        """Turn a WAITING trial to RUNNING.

        Raises:
            StudyMismatchError: If somebody else did.
        """
        if not self._storage.set_trial_state_values(self._trial_id(number), OptunaState.RUNNING):
            raise StudyMismatchError(
                f"Trial {number} of study `{self.name}` was taken by another driver. Only one driver may run a study."
            )

    # -- what happens to a trial -----------------------------------------------------------------------------

    def record_attempt(self, number: int, attempt: int, facts: Mapping[str, Any]) -> None:
        """Keep what is known of one attempt (from 1): worker, started, ended, outcome, error, seconds."""
        self._set(number, f"{encoding.ATTEMPT_PREFIX}{attempt}", encoding.encode(facts))

    def record_progress(self, record: TrialRecord) -> None:
        progress = {
            "step": record.step,
            "samples": record.samples,
            "tokens": record.tokens,
            "loss": record.last_loss,
            "grad_norm": record.last_grad_norm,
        }
        self._set(record.number, encoding.PROGRESS, encoding.encode(progress))

    def record_rung(self, number: int, rung: RungRecord) -> None:
        """Keep a rung's signals, and the study's metric there as Optuna's intermediate value.

        The intermediate value's step is the mark, the same for every batch size, so that Optuna's plots and
        pruners compare like with like.
        """
        self._set(number, f"{encoding.RUNG_PREFIX}{rung.rung}", encoding.encode_rung(rung))
        value = rung.signals.get(self.config.metric)
        if value is not None:
            self._storage.set_trial_intermediate_value(self._trial_id(number), rung.mark, value)

    def record_decision(self, number: int, index: int, decision: Decision) -> None:
        facts = {
            "rule": decision.rule,
            "stop": decision.stop,
            "reason": decision.reason,
            "rung": decision.rung,
            "samples": decision.samples,
            "at": utc_now(),
            "details": decision.details,
        }
        self._set(number, f"{encoding.DECISION_PREFIX}{index}", encoding.encode(facts))

    def record_checkpoint(self, number: int, name: str) -> None:
        self._set(number, encoding.CHECKPOINT, name)

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: str | None = None,
    ) -> None:
        """End a trial for good. Everything else about it must be recorded before; nothing can be after."""
        if metrics:
            self._set(number, encoding.METRICS, encoding.encode(metrics))
        if reason:
            self._set(number, encoding.REASON, reason)
        values = [value] if value is not None else None
        self._storage.set_trial_state_values(self._trial_id(number), OptunaState[state.name], values)

    # -- the study as a whole --------------------------------------------------------------------------------

    def set_facts(self, facts: DataFacts) -> None:
        """Record what preflight counted in the training data; budgets in epochs or tokens stand on it."""
        stored = {"rows": facts.rows, "target_tokens": facts.target_tokens}
        self._storage.set_study_user_attr(self._id, _FACTS, stored)

    def facts(self) -> DataFacts | None:
        stored = self._storage.get_study_user_attrs(self._id).get(_FACTS)
        return DataFacts(**stored) if stored else None

    def set_driver(self, state: StudyState) -> None:
        """Say what the driver of this study does now, and who it is."""
        facts = {"state": state, "host": socket.gethostname(), "pid": os.getpid(), "since": utc_now()}
        self._storage.set_study_user_attr(self._id, _DRIVER, facts)

    def update_config(self, config: SweepConfig) -> None:
        """Replace the recorded config, where only what may change has changed."""
        self.config = config
        self._storage.set_study_user_attr(self._id, _CONFIG, json.loads(config.model_dump_json()))

    def frozen_trials(self) -> list[FrozenTrial]:
        """Return Optuna's view of all trials. Do not change them."""
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def records(self) -> dict[int, TrialRecord]:
        """Read all trials from the storage, by number."""
        settings = self.config.trial.settings
        found = {}
        for trial in self.frozen_trials():
            self._trial_ids[trial.number] = trial._trial_id
            params = space.from_choices(trial.params)
            found[trial.number] = encoding.record_of(trial, settings=settings, params=params)
        return found

    def state(self) -> StudyState:
        """Whether a driver runs, the study is finished, or was interrupted.

        A driver of this host whose process is gone counts as interrupted, whatever it said last.
        """
        driver = self._storage.get_study_user_attrs(self._id).get(_DRIVER, {"state": "interrupted"})
        state: StudyState = driver["state"]
        gone = driver.get("host") == socket.gethostname() and not _is_alive(driver.get("pid", 0))
        return "interrupted" if state == "running" and gone else state

    def view(self) -> StudyView:
        """Return a snapshot for reports."""
        attributes = self._storage.get_study_user_attrs(self._id)
        records = self.records()
        return StudyView(
            name=self.name,
            config=self.config,
            state=self.state(),
            records=tuple(records[number] for number in sorted(records)),
            directory=self.directory,
            curve=self.curves.frame,
            versions=attributes.get(_VERSIONS, {}),
            created=attributes.get(_CREATED),
        )

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._trial_ids[number] = found
        return self._trial_ids[number]

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)


def versions() -> dict[str, str]:
    """Return the versions that a study's results stand on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            logging.getLogger(__name__).debug("%s is not installed", package)
    return found


def check_same(study: Study, config: SweepConfig) -> None:
    """Refuse a config that would make the study's trials incomparable, with every difference shown.

    Raises:
        StudyMismatchError: If anything but resources, failures and the storage's place differs.
    """
    free = {"resources", "failures", "storage", "dir"}
    old = json.loads(study.config.model_dump_json(exclude=free))
    new = json.loads(config.model_dump_json(exclude=free))
    differences = [f"`{key}` was {was} and is now {now}" for key, was, now in _differences(old, new)]
    if differences:
        raise StudyMismatchError(
            f"Cannot go on with study `{study.name}`: {'; '.join(differences)}. "
            "Restore the old values or choose a new study name."
        )


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{prefix}.{key}" if prefix else key
            found += _differences(old.get(key), new.get(key), path)
        return found
    return [] if old == new else [(prefix, json.dumps(old), json.dumps(new))]


def _point_attributes(point: Point) -> dict[str, Any]:
    return {
        "point_id": point.point_id,
        "budget_samples": point.budget_samples,
        "total_steps": point.total_steps,
    }


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
