"""A study as anyone may read it from its storage."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweeper import encoding
from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError, SweeperError, first_line
from sweeper.plan import DataFacts
from sweeper.records import TrialRecord
from sweeper.study import keys, layout, space
from sweeper.study.benchmark_box import BenchmarkBox
from sweeper.study.bulk import without_collecting_garbage
from sweeper.study.control_box import ControlBox
from sweeper.study.curves import CurveStore
from sweeper.study.holder import Holder
from sweeper.study.numbered import numbered
from sweeper.study.view import DriverFacts, StudyState, StudyView

if TYPE_CHECKING:
    import pandas as pd


class StoredStudy:
    """One study in its storage, read. Every read sees what others wrote."""

    def __init__(self, *, storage: BaseStorage, name: str) -> None:
        self._storage = storage
        self._id = storage.get_study_id_from_name(name)
        attributes = storage.get_study_user_attrs(self._id)
        if keys.CONFIG not in attributes:
            raise StudyMismatchError(
                f"Study `{name}` is in this storage, but was not made by sweeper. Choose another study name."
            )
        self.name = name
        self._stored_config = attributes[keys.CONFIG]
        self.config, self.recorded_directory = _config_and_directory(name, attributes)
        self.directory = self.recorded_directory  # where it is found may be elsewhere
        self.curves = CurveStore(self.directory / layout.CURVES, check=self.check_held)
        self.control_box = ControlBox(storage, self._id)
        self.benchmark_box = BenchmarkBox(storage, self._id)
        self._trial_ids: dict[int, int] = {}
        self._finished: dict[
            int, TrialRecord
        ] = {}  # reading 10,000 trials takes 0.6 s, and a resume reads 4 times

    def check_held(self) -> None:
        """Refuse to write where this process may not; whoever only reads never asks."""

    @property
    def is_complete(self) -> bool:
        """Whether all points were entered; not so where the driver was killed while it did."""
        return self._storage.get_study_user_attrs(self._id).get(keys.N_POINTS) is not None

    @property
    def exhausted_at(self) -> int | None:
        """The `sampler.n_trials` at which the sampler knew no new point any more; None where it still may."""
        stored = self._storage.get_study_user_attrs(self._id).get(keys.EXHAUSTED)
        return None if stored is None else int(stored)

    @property
    def created(self) -> str | None:
        """When the study was made: ISO 8601, UTC. It tells it from an earlier one of its name."""
        stored = self._storage.get_study_user_attrs(self._id).get(keys.CREATED)
        return None if stored is None else str(stored)

    def facts(self) -> DataFacts | None:
        stored = self._storage.get_study_user_attrs(self._id).get(keys.FACTS)
        return DataFacts(**stored) if stored else None

    def read_config_again(self) -> list[str]:
        """Take over the config as the storage has it now; return which of its keys have changed since it was read."""
        attributes = self._storage.get_study_user_attrs(self._id)
        was, now = self._stored_config, attributes[keys.CONFIG]
        if now == was:
            return []
        self._stored_config = now
        self.config, _ = _config_and_directory(self.name, attributes)
        return [
            name for name in {**was, **now} if (name in was, was.get(name)) != (name in now, now.get(name))
        ]

    def rungs_of(self) -> SweepConfig | None:
        """Return the config that an extended study's rungs are of; None where no extension would have moved them."""
        stored = self._storage.get_study_user_attrs(self._id).get(keys.RUNGS_OF)
        return None if stored is None else SweepConfig.model_validate_json(json.dumps(stored))

    def environments(self) -> tuple[Mapping[str, Any], ...]:
        """Return what each driver ran on and with, in order."""
        return tuple(json.loads(self._storage.get_study_user_attrs(self._id).get(keys.ENVIRONMENTS, "[]")))

    def micro_batches(self) -> dict[str, dict[str, int]]:
        """Return the largest micro-batch that fits, by kind of trial and device, as running out of memory told."""
        stored = self._storage.get_study_user_attrs(self._id).get(keys.MICRO_BATCHES, {})
        return {kind: dict(limits) for kind, limits in stored.items()}

    def prior(self) -> dict[int, TrialRecord]:
        """Return the finished trials of an earlier study that pruning learns from too; their numbers are negative."""
        stored = json.loads(self._storage.get_study_user_attrs(self._id).get(keys.PRIOR, "{}"))
        if stored.get("place") != self.config.pruner.prior:
            return {}
        return {trial["number"]: encoding.decode_prior(trial) for trial in stored.get("trials", ())}

    def frozen_trials(self) -> list[FrozenTrial]:
        """Return Optuna's view of all trials. Do not change them."""
        with without_collecting_garbage():
            return self._storage.get_all_trials(self._id, deepcopy=False)

    def records(self) -> dict[int, TrialRecord]:
        """Read all trials from the storage, by number."""
        with without_collecting_garbage():
            return self._read_records()

    def record(self, number: int) -> TrialRecord | None:
        """Read one trial from the storage, and no other; None where it has none of this number."""
        if not 0 <= number < 2**31:  # what a database's column cannot hold, it refuses in words of its own
            return None
        try:
            trial = self._storage.get_trial(self._trial_id(number))
        except KeyError:
            return None
        return self._read_record(trial)

    def _read_records(self) -> dict[int, TrialRecord]:
        found = {}
        for trial in self.frozen_trials():
            self._trial_ids[trial.number] = trial._trial_id
            if trial.number in self._finished:  # it can change no more
                found[trial.number] = copy.copy(self._finished[trial.number])
                continue
            found[trial.number] = self._read_record(trial)
            if trial.state.is_finished():
                self._finished[trial.number] = copy.copy(found[trial.number])
        return found

    def _read_record(self, trial: FrozenTrial) -> TrialRecord:
        try:
            params = space.from_choices(trial.params)
            return encoding.record_of(trial, settings=self.config.trial.settings, params=params)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SweeperError(
                f"What the storage holds of trial {trial.number} of study `{self.name}` is damaged "
                f"({type(error).__name__}: {error}). Restore it from a copy, or start anew under another name."
            ) from error

    def lease(self) -> dict[str, Any]:
        """Return what the lease says of the driver; empty where there never was one."""
        return dict(self._storage.get_study_user_attrs(self._id).get(keys.DRIVER, {}))

    def state(self) -> StudyState:
        """Return `running` while a driver holds it, `finished` once nothing was left to train, else `interrupted`.

        A driver of this host whose process is gone counts as interrupted, whatever it said last. Of one on another
        machine nobody can tell by a single look: see `study.lease.Pulse`.
        """
        driver = self.lease()
        holder = Holder.read(driver)
        if driver.get("state") == "running":
            return "interrupted" if holder is not None and holder.is_dead else "running"
        return "finished" if driver.get("state") == "finished" else "interrupted"

    def view(self) -> StudyView:
        """Return a snapshot for reports. A study that was extended since is shown with its new config."""
        self.read_config_again()
        attributes = self._storage.get_study_user_attrs(self._id)
        records, state = self.records(), self.state()

        def curve(number: int) -> "pd.DataFrame":
            numbered(records, number, study=self.name)  # raises where there is none
            return self.curves.frame(number)

        return StudyView(
            name=self.name,
            config=self.config,
            state=state,
            driver=DriverFacts.read(self.lease()) if state == "running" else None,
            records=tuple(records[number] for number in sorted(records)),
            directory=self.directory,
            curve=curve,
            versions=attributes.get(keys.VERSIONS, {}),
            created=attributes.get(keys.CREATED),
            exhausted_at=attributes.get(keys.EXHAUSTED),
            evidence=tuple(json.loads(attributes.get(keys.EVIDENCE, "[]"))),
            controls=tuple(self.control_box.events()),
            environments=self.environments(),
            benchmarks=self.benchmark_box.read(),
        )

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._trial_ids[number] = found
        return self._trial_ids[number]


def _config_and_directory(name: str, attributes: dict[str, Any]) -> tuple[SweepConfig, Path]:
    """Read what a study's attributes hold of them.

    Raises:
        SweeperError: If they are damaged.
    """
    try:
        config = SweepConfig.model_validate_json(json.dumps(attributes[keys.CONFIG]))
        return config, Path(attributes[keys.DIRECTORY])
    except (ValueError, KeyError, TypeError) as error:
        raise SweeperError(
            f"What the storage holds of study `{name}` is damaged, or was written by another version of sweeper: "
            f"{first_line(error)}. Restore it from a copy, or start anew under another name."
        ) from error
