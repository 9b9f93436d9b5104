"""Extending a study when it is resumed: more points, another pruner, trials trained on or once more."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

from sweeper.checkpoint import checkpoints_place, open_checkpoints
from sweeper.config import override_recorded
from sweeper.config.models import SweepConfig
from sweeper.config.pruner_models import RungSection
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.moved import as_recorded
from sweeper.optimizer import STEADY_SCHEDULES
from sweeper.params import params_key
from sweeper.phases import PHASED
from sweeper.plan import Point, n_undrawn, plan_longer, plan_point, plan_sweep
from sweeper.plan.budget import common_budget
from sweeper.plan.marks import rung_marks
from sweeper.records import Origin, TrialRecord, TrialState
from sweeper.study import layout
from sweeper.study.changes import check_extension
from sweeper.study.control_records import whoami
from sweeper.study.failed import failures_left, from_scratch, warm_start_of
from sweeper.study.numbered import numbered
from sweeper.study.study import Study

ALL = "all"  # every completed trial is trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extension:
    """What a resume adds to a study. Checked; nothing is written yet."""

    config: SweepConfig  # the study's from now on
    longer: tuple[tuple[int, Point], ...]  # finished trials with the point that trains them on
    again: tuple[tuple[int, Point], ...]  # failed trials with the point that trains theirs once more
    n_points: int  # that are new
    notes: tuple[str, ...]

    @property
    def adds_trials(self) -> bool:
        return self.n_points > 0 or bool(self.longer or self.again)

    def apply(self, study: Study) -> None:
        """Write it to the study. A driver that is killed meanwhile loses nothing: the same words do the rest."""
        if self.config != study.config:
            if self.config.rungs != study.config.rungs:
                study.record_rungs_of(study.config)
            study.expect_points()
            study.update_config(self.config)
        records = study.records()
        known = {(one.point_id, _warm_number(one, records)) for one in records.values()}
        left = {record.number for record in failures_left(records.values())}
        added = [
            (point, Origin(by=whoami(), continues=number))
            for number, point in self.longer
            if (point.point_id, _warm_number(records[number], records)) not in known
        ]
        added += [(point, _origin_again(records[number])) for number, point in self.again if number in left]
        study.add_trials(added)


def _warm_number(record: TrialRecord, records: Mapping[int, TrialRecord]) -> int | None:
    """Return what tells two trainings of one point apart: the warm-started trial that one of them began as."""
    warm = warm_start_of(record, records)
    return None if warm is None else warm.number


def _origin_again(failed: TrialRecord) -> Origin:
    """Return the origin of the trial that trains a failed one's point once more: it begins where that one did."""
    origin = failed.origin or Origin(by="")
    return dataclasses.replace(
        origin, by=whoami(), request="", retries=failed.number, from_step=0, from_samples=0
    )


def plan_extension(
    study: Study, overrides: Sequence[str], continues: Sequence[str], *, retry_failed: bool = False
) -> Extension:
    """Work out what a resume would add.

    Args:
        study: As it stands.
        overrides: `key=value` over its config. A budget is that of the trials to be continued, and of no other.
        continues: Numbers of completed trials, or `all`.
        retry_failed: Whether every point whose trial failed is to be trained once more, under a new number.

    Raises:
        ConfigError: If an override or a number is wrong.
        StudyMismatchError: If it changes what may not change, or a trial cannot be trained on.
    """
    recorded = _with_absolute_dir(study)
    changed = override_recorded(recorded, overrides)
    budget = changed.trial.budget
    if continues:
        trial = changed.trial.model_copy(update={"budget": study.config.trial.budget})
        changed = changed.model_copy(update={"trial": trial})
    if (changed.dir, changed.storage) != (recorded.dir, recorded.storage):
        raise ConfigError(
            "`dir` and `storage` say where a study lies, which a resume does not change. Move the directory, or name "
            "the storage with `--storage`."
        )
    check_extension(study, as_recorded(study, changed))
    records = study.records()
    changed = _with_old_rungs(study, records, changed)
    longer, notes = _longer(study, records, continues, budget) if continues else ((), [])
    again = _again(study, changed, records) if retry_failed else ()
    plan = plan_sweep(changed, facts=study.facts(), began_as=study.config)
    points = _new_points(records, plan.points)
    if changed.rungs != study.config.rungs:
        marks = ", ".join(f"{mark:,}" for mark in plan.rung_marks)
        notes.append(f"the rungs stay where they were, at {marks or 'none'} {plan.rung_unit}")
    if changed.pruner != study.config.pruner:
        was, now = (json.dumps(config.pruner.name) for config in (study.config, changed))
        notes.append(f"the pruner was {was} and is now {now}; decisions that were taken stay")
    n_points = len(points) + n_undrawn(changed, records.values(), exhausted_at=study.exhausted_at)
    if points:
        notes.append(f"{len(points)} more points wait to be trained")
    if retry_failed:
        numbers = ", ".join(str(number) for number, _ in again)
        notes.append(f"the points of failed trials are trained again: {numbers or 'there is none'}")
    return Extension(config=changed, longer=longer, again=again, n_points=n_points, notes=tuple(notes))


def _with_absolute_dir(study: Study) -> SweepConfig:
    """Return a study's config; its `dir` may be relative, as `--dir` was typed under an earlier version."""
    if study.config.dir is None:
        return study.config
    return study.config.model_copy(update={"dir": os.path.abspath(study.recorded_directory)})


def _again(
    study: Study, config: SweepConfig, records: Mapping[int, TrialRecord]
) -> tuple[tuple[int, Point], ...]:
    """Return the failed trials that no other one retries, each with the point that trains its own once more."""
    facts, found = study.facts(), []
    for record in failures_left(records.values()):
        if record.is_continued:
            point = plan_longer(config, record.params, samples=record.budget_samples or 0, facts=facts)
        else:
            point = plan_point(config, record.params, facts=facts)
        found.append((record.number, point))
    return tuple(found)


def _with_old_rungs(study: Study, records: Mapping[int, TrialRecord], changed: SweepConfig) -> SweepConfig:
    """Return the new config with the rungs where they were, once a trial has begun.

    Where the default rungs lie follows from the pruner and the number of points, and fractions from the smallest
    budget; but trials are compared rung by rung, so each must lie at one mark in all of them.
    """
    facts = study.facts()
    old, new = (rung_marks(config, common_budget(config, facts), facts) for config in (study.config, changed))
    if old == new or all(record.state is TrialState.WAITING for record in records.values()):
        return changed
    form = "samples" if old.unit == "samples" else "steps"
    return changed.model_copy(update={"rungs": RungSection.model_validate({form: list(old.marks)})})


def with_kept_rungs(study: Study, config: SweepConfig) -> SweepConfig:
    """Return a sweep file's config with the rungs that an extension has kept, if its own lay there when trials began.

    The file says them as it did then, mostly not at all, and with its new points they would lie elsewhere.
    """
    kept, began = study.config.rungs, study.rungs_of()
    if began is None or config.rungs == kept:
        return config
    facts = study.facts()
    held = config.model_copy(update={"rungs": kept})
    then = began.model_copy(update={"rungs": config.rungs})
    was, now = (rung_marks(one, common_budget(one, facts), facts) for one in (then, held))
    return held if was == now else config


def _new_points(records: Mapping[int, TrialRecord], planned: Sequence[Point]) -> list[Point]:
    """Return the planned points that the study has not got.

    Raises:
        StudyMismatchError: If the others would train another number of samples now.
    """
    known = from_scratch(records)
    ids = {record.point_id for record in known}
    own = {params_key(record.params): record for record in known if not record.is_continued}
    new = [point for point in planned if point.point_id not in ids and params_key(point.params) not in own]
    if not new:
        return []
    for point in planned:
        record = own.get(params_key(point.params))
        was, now = (None if record is None else record.budget_samples), point.budget_samples
        if record is not None and was is not None and now is not None and was != now:
            raise StudyMismatchError(
                f"With the new points every trial would train {now} samples, whole steps of every batch size, but "
                f"trial {record.number} has {was}: they would not compare. Choose batch sizes that divide {was}, or a "
                "new study name."
            )
    return new


def _longer(
    study: Study, records: dict[int, TrialRecord], continues: Sequence[str], budget: object
) -> tuple[tuple[tuple[int, Point], ...], list[str]]:
    """Return the completed trials that are asked for, each with the point that trains it on."""
    chosen = _chosen(study, records, continues)
    trial = study.config.trial.model_copy(update={"budget": budget})
    wanted = study.config.model_copy(update={"trial": trial})
    found, notes, bare = [], [], []
    for record in chosen:
        if record.settings.get("data_strategy") == PHASED and study.config.trial.phases is not None:
            raise StudyMismatchError(
                f"Trial {record.number} was trained in phases, which are parts of its budget: with a larger one they "
                "would lie elsewhere, so it cannot be trained on. Leave it out of `--continue`, or train its point "
                "anew in a study with the larger budget."
            )
        samples = plan_point(wanted, record.params, facts=study.facts()).budget_samples or 0
        if samples <= (record.budget_samples or 0):
            raise ConfigError(
                f"Trial {record.number} was trained for {record.budget_samples} samples, so a budget of {samples} "
                "trains it no further. Give a larger one, such as "
                f"`trial.budget.samples={2 * (record.budget_samples or 1)}`."
            )
        point = plan_longer(study.config, record.params, samples=samples, facts=study.facts())
        found.append((record.number, point))
        if not _has_checkpoint(study, record.number):
            bare.append(record.number)
        schedule = record.settings.get("lr_scheduler_type")
        if schedule is not None and schedule not in STEADY_SCHEDULES:
            notes.append(
                f"trial {record.number} goes on with a `{schedule}` schedule that is laid out for {samples} samples; "
                f"until now it followed one for {record.budget_samples}"
            )
    if bare:
        names = ", ".join(map(str, bare))
        raise StudyMismatchError(
            f"These trials have no checkpoint to go on from: {names}. Leave them out of `--continue`, or train their "
            "points anew in a study with the larger budget. `trial.checkpoint.every_samples` and `at` say when "
            "checkpoints are saved, `keep_best` and `max_gb` whose are kept."
        )
    return tuple(found), notes


def _chosen(study: Study, records: dict[int, TrialRecord], continues: Sequence[str]) -> list[TrialRecord]:
    if ALL in continues:
        return [
            record
            for record in records.values()
            if record.state is TrialState.COMPLETE and not record.is_continued
        ]
    found = []
    for word in dict.fromkeys(continues):
        if not word.isdigit():
            raise ConfigError(f"`--continue` takes a trial's number or `{ALL}`, but got `{word}`.")
        record = numbered(records, int(word), study=study.name)
        if record.state is not TrialState.COMPLETE:
            raise StudyMismatchError(
                f"Trial {word} of study `{study.name}` is {record.state}, and only COMPLETE ones can be trained on."
            )
        found.append(record)
    return found


def _has_checkpoint(study: Study, number: int) -> bool:
    url, trial_dir = study.config.trial.checkpoint.url, str(layout.trial_dir(study.directory, number))
    place = checkpoints_place(url, study=study.name, trial_dir=trial_dir, number=number)
    rows = study.curves.rows(number)
    last = rows[-1].step if rows else 0
    return any(saved.step <= last for saved in open_checkpoints(place).saved())
