"""The durable study: every fact of a sweep is here before anyone acts on it."""

import copy
import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from sweeper import encoding
from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError, SweeperError
from sweeper.plan import DataFacts, Point
from sweeper.records import Decision, RungRecord, TrialRecord, TrialState
from sweeper.storage_url import keep_password
from sweeper.study import space
from sweeper.study.curves import CurveStore
from sweeper.study.drawing import draw_trial
from sweeper.study.holder import Holder
from sweeper.study.lease import Lease, LeaseTimes
from sweeper.study.patient import PatientStorage
from sweeper.study.storage import JOURNAL_NAME, open_storage
from sweeper.study.view import StudyState, StudyView

_CONFIG, _FACTS, _DRIVER, _DIRECTORY = (
    "sweeper:config",
    "sweeper:facts",
    "sweeper:driver",
    "sweeper:directory",
)
_CREATED, _VERSIONS, _N_POINTS = "sweeper:created", "sweeper:versions", "sweeper:n_points"
_MICRO_BATCHES = "sweeper:micro_batches"
_FIRST_ATTRIBUTES = {_DIRECTORY, _CREATED, _VERSIONS}
_EVIDENCE = "sweeper:evidence"
_PACKAGES = ("sweeper", "ray", "optuna", "torch", "transformers", "trl", "peft", "datasets")

# Optuna announces every study and trial on stderr; the sweep has its own words for that.
optuna.logging.set_verbosity(optuna.logging.WARNING)


def utc_now() -> str:
    """Return the wall clock's time for people to read; nothing is computed from it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Study:
    """One study in its storage. Writes go through at once; reads see what others wrote.

    Only one driver writes, the one that took the study; anyone may read.
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
        try:
            self.config = SweepConfig.model_validate_json(json.dumps(attributes[_CONFIG]))
            self.directory = Path(attributes[_DIRECTORY])
        except (ValueError, KeyError, TypeError) as error:
            raise SweeperError(
                f"What the storage holds of study `{name}` is damaged, or was written by another version of sweeper: "
                f"{str(error).splitlines()[0]}. Restore it from a copy, or start anew under another name."
            ) from error
        self.curves = CurveStore(self.directory / "curves", check=self.check_held)
        self._trial_ids: dict[int, int] = {}
        self._finished: dict[
            int, TrialRecord
        ] = {}  # reading 10,000 trials takes 0.6 s, and a resume reads 4 times
        self._lease: Lease | None = None
        self.reached: StudyState = "interrupted"  # what a driver that ends now leaves behind

    # -- opening ---------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: SweepConfig, *, directory: Path) -> "Study":
        """Make a new, empty study. What a driver left that was killed while it made one is gone on with.

        Raises:
            StudyMismatchError: If one of this name exists.
        """
        config = config.model_copy(update={"storage": keep_password(config.storage)})
        storage = open_storage(config.storage, directory)
        direction = StudyDirection.MAXIMIZE if config.direction == "maximize" else StudyDirection.MINIMIZE
        try:
            study_id = storage.create_new_study([direction], config.study)
        except DuplicatedStudyError as error:
            study_id = storage.get_study_id_from_name(config.study)
            if not _is_begun(storage, study_id):
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
        storage = open_storage(keep_password(url), directory)
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
        return None if _is_begun(storage, study_id) else cls(storage=storage, name=name)

    @classmethod
    def open(cls, place: str, *, url: str | None = None) -> "Study":
        """Open a study by its directory, or by its name with a storage URL.

        Raises:
            StudyMismatchError: If there is none.
        """
        directory = Path(place)
        marker = directory / "study.json"
        if url is not None and not marker.exists():
            found = cls.find(name=place, url=url, directory=directory)
            if found is None:
                raise StudyMismatchError(f"The storage holds no study named `{place}`.")
            return found
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
            name, stored_url = str(facts["study"]), facts["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise StudyMismatchError(
                f"{marker} cannot be read ({error}). Restore it, or give the study's name with `--storage URL`."
            ) from error
        found = cls.find(name=name, url=url or stored_url, directory=directory)
        if found is None:
            raise StudyMismatchError(f"The storage of {directory} holds no study named `{name}`.")
        found.directory = directory.absolute()  # the directory may have been moved
        found.curves = CurveStore(found.directory / "curves", check=found.check_held)
        return found

    # -- who drives it ---------------------------------------------------------------------------------------

    def take(self, *, times: LeaseTimes | None = None) -> None:
        """Become the driver of this study.

        Raises:
            StudyMismatchError: If another one is, with who it is.
        """
        lease = Lease(_StoredLease(self._storage, self._id), study=self.name, times=times, now=utc_now)
        lease.acquire()
        self._lease = lease

    def hand_back(self, state: StudyState) -> None:
        """Be its driver no more, and say how the sweep stands."""
        if self._lease is not None:
            self._lease.release(state)
            self._lease = None

    def check_held(self) -> None:
        """Refuse to write once another driver has taken the study over. Cheap.

        Raises:
            StudyMismatchError: If so.
        """
        if self._lease is not None:
            self._lease.check()

    def give_up_when(self, is_unwanted: Callable[[], bool]) -> None:
        """Wait for a storage that does not answer only as long as somebody wants the sweep to go on."""
        if isinstance(self._storage, PatientStorage):
            self._storage.is_unwanted = is_unwanted

    @property
    def _writable(self) -> BaseStorage:
        self.check_held()
        return self._storage

    # -- points ----------------------------------------------------------------------------------------------

    def add_points(self, points: Sequence[Point]) -> None:
        """Enter points as WAITING trials, each with its id; those that are there already are left alone.

        Once all were entered, a later version of the code that would hash them differently enters none again.
        """
        if self.is_complete:
            return
        known = {trial.user_attrs.get(encoding.POINT, {}).get("point_id") for trial in self.frozen_trials()}
        dimensions = space.distributions(self.config)
        for point in points:
            if point.point_id in known:
                continue
            template = create_trial(
                state=OptunaState.WAITING,
                params={name: space.encode_choice(value) for name, value in point.params.items()},
                distributions=dimensions,
                user_attrs={encoding.POINT: _point_attributes(point)},
            )
            self._writable.create_new_trial(self._id, template)
        self._writable.set_study_user_attr(self._id, _N_POINTS, len(points))

    @property
    def is_complete(self) -> bool:
        """Whether all points were entered; not so where the driver was killed while it did."""
        return self._storage.get_study_user_attrs(self._id).get(_N_POINTS) is not None

    def draw(self, point_of: Callable[[dict[str, Any]], Point]) -> tuple[int, Point]:
        """Let the sampler draw one more point; it is RUNNING at once, whole. Returns its number and what it is.

        Args:
            point_of: Resolves params to a point.
        """
        points: list[Point] = []

        def attributes_of(params: dict[str, Any]) -> dict[str, Any]:
            points.append(point_of(space.from_choices(params)))
            return {encoding.POINT: _point_attributes(points[0])}

        with space.quiet_samplers():
            sampler = space.make_sampler(self.config, n_drawn=self._storage.get_n_trials(self._id))
        trial = draw_trial(
            self._writable, self.name, sampler, space.distributions(self.config), attributes_of
        )
        self._trial_ids[trial.number] = trial._trial_id
        return trial.number, points[0]

    def set_point(self, number: int, point: Point) -> None:
        """Record the point of a trial that was entered by other means than this package's."""
        self._set(number, encoding.POINT, _point_attributes(point))

    def claim(self, number: int) -> None:
        """Turn a WAITING trial to RUNNING.

        Raises:
            StudyMismatchError: If somebody else did.
        """
        if not self._writable.set_trial_state_values(self._trial_id(number), OptunaState.RUNNING):
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
            self._writable.set_trial_intermediate_value(self._trial_id(number), rung.mark, value)

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
        self._writable.set_trial_state_values(self._trial_id(number), OptunaState[state.name], values)

    # -- the study as a whole --------------------------------------------------------------------------------

    def set_facts(self, facts: DataFacts) -> None:
        """Record what preflight counted in the training data; budgets in epochs or tokens stand on it."""
        stored = {"rows": facts.rows, "target_tokens": facts.target_tokens}
        self._writable.set_study_user_attr(self._id, _FACTS, stored)

    def record_evidence(self, evidence: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the early signals were worth, as measured when the sweep ended."""
        text = json.dumps(
            encoding.encode(list(evidence))
        )  # one text: some storages are slow with deep values
        self._writable.set_study_user_attr(self._id, _EVIDENCE, text)

    def facts(self) -> DataFacts | None:
        stored = self._storage.get_study_user_attrs(self._id).get(_FACTS)
        return DataFacts(**stored) if stored else None

    def micro_batches(self) -> dict[str, dict[str, int]]:
        """Return the largest micro-batch that fits, by model and device, as far as running out of memory told."""
        stored = self._storage.get_study_user_attrs(self._id).get(_MICRO_BATCHES, {})
        return {model: dict(limits) for model, limits in stored.items()}

    def record_micro_batches(self, limits: Mapping[str, Mapping[str, int]]) -> None:
        """Replace what `micro_batches` returns."""
        stored = {model: dict(by_device) for model, by_device in limits.items()}
        self._writable.set_study_user_attr(self._id, _MICRO_BATCHES, stored)

    def update_config(self, config: SweepConfig) -> None:
        """Replace the recorded config, where only what may change has changed."""
        self.config = config.model_copy(update={"storage": keep_password(config.storage)})
        self._writable.set_study_user_attr(self._id, _CONFIG, json.loads(self.config.model_dump_json()))

    def frozen_trials(self) -> list[FrozenTrial]:
        """Return Optuna's view of all trials. Do not change them."""
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def records(self) -> dict[int, TrialRecord]:
        """Read all trials from the storage, by number."""
        settings = self.config.trial.settings
        found = {}
        for trial in self.frozen_trials():
            self._trial_ids[trial.number] = trial._trial_id
            if trial.number in self._finished:  # it can change no more
                found[trial.number] = copy.copy(self._finished[trial.number])
                continue
            try:
                params = space.from_choices(trial.params)
                found[trial.number] = encoding.record_of(trial, settings=settings, params=params)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SweeperError(
                    f"What the storage holds of trial {trial.number} of study `{self.name}` is damaged "
                    f"({type(error).__name__}: {error}). Restore it from a copy, or start anew under another name."
                ) from error
            if trial.state.is_finished():
                self._finished[trial.number] = copy.copy(found[trial.number])
        return found

    def state(self) -> StudyState:
        """Whether a driver runs, the study is finished, or was interrupted.

        A driver of this host whose process is gone counts as interrupted, whatever it said last.
        """
        driver = self._storage.get_study_user_attrs(self._id).get(_DRIVER, {})
        holder = Holder.read(driver)
        if driver.get("state") == "running":
            return "interrupted" if holder is not None and holder.is_dead else "running"
        return "finished" if driver.get("state") == "finished" else "interrupted"

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
            evidence=tuple(json.loads(attributes.get(_EVIDENCE, "[]"))),
        )

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._trial_ids[number] = found
        return self._trial_ids[number]

    def _set(self, number: int, key: str, value: Any) -> None:
        self._writable.set_trial_user_attr(self._trial_id(number), key, value)


class _StoredLease:
    """The lease as an attribute of the study."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def read(self) -> dict[str, Any]:
        facts = self._storage.get_study_user_attrs(self._study_id).get(_DRIVER)
        return facts if isinstance(facts, dict) else {}

    def write(self, facts: dict[str, Any]) -> None:
        self._storage.set_study_user_attr(self._study_id, _DRIVER, facts)


def _is_begun(storage: BaseStorage, study_id: int) -> bool:
    """Whether a study was entered, but its driver died before it was one: it has no config and no trial."""
    attributes = storage.get_study_user_attrs(study_id)
    return (
        _CONFIG not in attributes
        and set(attributes) <= _FIRST_ATTRIBUTES
        and not storage.get_n_trials(study_id)
    )


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
    free: dict[str, bool | dict[str, bool]] = {
        "resources": True, "failures": True, "storage": True, "dir": True,
        "trial": {"function_dir": True, "checkpoint": True},
    }  # fmt: skip
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
