"""Launch, resume and read sweeps from Python; the command line stands on these.

Everything that can be wrong is found before a worker starts: config, storage, study, pruner, data, slots.
"""

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sweeper.checkpoint import check_url
from sweeper.config import config_from_dict, dump_config, load_config
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, InterruptedSweepError, NothingToDoError, SweeperError
from sweeper.executors.attempt import TrialFunction
from sweeper.executors.base import Executor
from sweeper.executors.interrupt import interrupt_on_signals, signals_end_this_process
from sweeper.extend import plan_extension
from sweeper.files import write_text
from sweeper.loading import loading_meanwhile
from sweeper.orchestrator import Orchestrator
from sweeper.orchestrator.queue import n_undrawn
from sweeper.plan import DataFacts, Plan, plan_sweep
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.disk import DiskNeed, check_disk, disk_need
from sweeper.preflight.environment import capture_environment
from sweeper.preflight.facts import PreflightFacts, run_preflight
from sweeper.progress import EventLog, progress_for
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import EventKind, Listener, TrialRecord, TrialState
from sweeper.storage_url import keep_password
from sweeper.study.bulk import sparing_the_collector
from sweeper.study.changes import check_same
from sweeper.study.control_records import Verb
from sweeper.study.environment import changed_since
from sweeper.study.study import Study
from sweeper.study.view import StudyView
from sweeper.trackers import check_trackers, trackers_for

logger = logging.getLogger(__name__)

ExecutorName = Literal["ray", "in-process"]
ConfigSource = str | Path | Mapping[str, Any] | SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a command line adds to a config: where, and how to run."""

    dir: str | None = None
    storage: str | None = None
    address: str | None = None
    executor: ExecutorName = "ray"


def read_config(source: ConfigSource, overrides: Sequence[str] = ()) -> SweepConfig:
    """Return a checked config from a file, a mapping, or one that is checked already.

    Raises:
        ConfigError: With every problem.
    """
    if isinstance(source, SweepConfig):
        return source
    if isinstance(source, Mapping):
        return config_from_dict(dict(source))
    return load_config(source, overrides)


def launch(
    source: ConfigSource,
    overrides: Sequence[str] = (),
    *,
    options: LaunchOptions | None = None,
    function: TrialFunction | None = None,
    listeners: Sequence[Listener] = (),
) -> StudyView:
    """Run a sweep to its end. A study that exists already with the same config is gone on with.

    Args:
        source: Sweep file, mapping, or config.
        overrides: `key=value`, applied to a sweep file.
        options: Where and how to run.
        function: Python function that is run for every trial instead of what the config names.
        listeners: Told of every event, beside the terminal's own view.

    Raises:
        ConfigError: If it cannot be run; nothing was started.
        StudyMismatchError: If a study of this name exists with another config.
        NothingToDoError: If it is finished.
        InterruptedSweepError: If it was interrupted; the state is saved.
        SweeperError: If the sweep failed.
    """
    options = options or LaunchOptions()
    config = with_options(read_config(source, overrides), options)
    directory = study_directory(config)
    _check_writable(directory)
    check_pruner(config)
    plan_sweep(config)
    existing = Study.find(name=config.study, url=config.storage, directory=directory)
    if existing is not None:
        check_same(existing, config)
        _refuse_finished(existing)
        with _driving(existing):
            existing.update_config(config)
            _go_on(existing, options, function, listeners)
        return _judged(existing)
    found = _preflight(config, function, directory=directory, options=options)
    directory.mkdir(parents=True, exist_ok=True)
    study = Study.create(config, directory=directory)
    with _driving(study):
        _record_environment(study)
        plan = _complete(study, found.facts)
        _drive(study, plan, found.slots, options, function, listeners)
    return _judged(study)


def resume(
    place: str,
    overrides: Sequence[str] = (),
    *,
    continues: Sequence[str] = (),
    options: LaunchOptions | None = None,
    function: TrialFunction | None = None,
    listeners: Sequence[Listener] = (),
) -> StudyView:
    """Go on with a study where it stopped, and extend it where that is asked for. Raises as `launch` does.

    Args:
        place: The study's directory, or its name.
        overrides: `key=value` over its config: more values of a grid, more trials, another pruner.
        continues: Numbers of completed trials to be trained on to the budget of the overrides, or `all`.
        options: Where and how to run.
        function: As in `launch`.
        listeners: As in `launch`.
    """
    options = options or LaunchOptions()
    study = Study.open(place, url=options.storage)
    extension = plan_extension(study, overrides, continues) if overrides or continues else None
    if extension is None or not extension.adds_trials:
        _refuse_finished(study)
    with _driving(study):
        if extension is not None:
            extension.apply(study)
            for note in extension.notes:
                print(f"extended: {note}", file=sys.stderr)
        if options.address is not None:
            study.update_config(with_options(study.config, LaunchOptions(address=options.address)))
        _go_on(study, options, function, listeners)
    return _judged(study)


def load_study(place: str, *, storage: str | None = None) -> StudyView:
    """Read a study: its directory, or its name with a storage URL.

    Raises:
        StudyMismatchError: If there is none.
    """
    return Study.open(place, url=storage).view()


def with_options(config: SweepConfig, options: LaunchOptions) -> SweepConfig:
    """Return the config with the command line's word applied, and without the storage's password.

    The password is kept in memory for as long as this process runs, and written nowhere.
    """
    changes: dict[str, Any] = {"storage": keep_password(options.storage or config.storage)}
    if options.dir is not None:
        changes["dir"] = options.dir
    if options.address is not None:
        changes["resources"] = config.resources.model_copy(update={"address": options.address})
    return config.model_copy(update=changes)


def check_pruner(config: SweepConfig) -> None:
    """Make the config's pruner and forget it.

    Raises:
        ConfigError: If it does not import or does not take its options.
    """
    make_judge(config)


def plan_disk(
    config: SweepConfig, found: PreflightFacts | None, *, directory: Path | None = None
) -> DiskNeed | None:
    """Work out what disk a sweep needs. Without preflight, by the model's directory and the slots that are given."""
    slots = found.slots.slots if found is not None else config.resources.slots or 1
    weights = found.weights if found is not None else None
    return disk_need(config, slots=slots, directory=directory or study_directory(config), weights=weights)


def study_directory(config: SweepConfig) -> Path:
    return Path(config.dir or Path("studies") / config.study).absolute()


def _preflight(
    config: SweepConfig, function: TrialFunction | None, *, directory: Path, options: LaunchOptions
) -> PreflightFacts:
    _check_workers(config, options)
    check_trackers(config)
    if config.benchmarks is not None and config.benchmarks.when != "asked":
        from sweeper.benchmarks.measure import check_benchmarks

        check_benchmarks(config.benchmarks)
    if config.trial.checkpoint.url is not None:
        check_url(config.trial.checkpoint.url)
    if sys.stderr.isatty():
        # It takes seconds, and longer where a model's files or data come from afar.
        print("Checking what the trials need ...", file=sys.stderr)
    with loading_meanwhile(_needed_later(config, options)):
        found = run_preflight(config, reads_data=function is None)
    check_disk(plan_disk(config, found, directory=directory))
    for warning in found.data.warnings if found.data is not None else ():
        print(f"warning: {warning}", file=sys.stderr)
    return found


def _check_workers(config: SweepConfig, options: LaunchOptions) -> None:
    n_workers = config.resources.n_workers
    if n_workers > 1 and options.executor == "in-process":
        raise ConfigError(
            f"A trial of {n_workers} workers needs processes of their own, which the in-process executor has not. Use "
            "`--executor ray`, or set `resources.gpus_per_trial` and `workers_per_trial` to at most 1."
        )


def _needed_later(config: SweepConfig, options: LaunchOptions) -> list[str]:
    """Return what the driver imports before its first trial. Nothing of it starts or takes anything."""
    executor = ["sweeper.executors.ray_tune"] if options.executor == "ray" else []
    return [*executor, *(["sweeper.pruners.learned"] if config.pruner.directions == "learned" else [])]


def _refuse_finished(study: Study) -> None:
    """Leave a study alone that has nothing left to train.

    Raises:
        NothingToDoError: If so.
    """
    records = study.records()
    is_open = any(not record.state.is_finished for record in records.values())
    if is_open or n_undrawn(study.config, records.values()) or not study.is_complete:
        return
    if any(request.verb in (Verb.ADD, Verb.CLONE) for request in study.control_box.pending()):
        return
    if study.state() == "interrupted":  # its driver was killed after the last trial had ended
        with _driving(study):
            study.reached = "finished"
    raise NothingToDoError(
        f"Study `{study.name}` is finished: nothing is left to train. "
        f"`sweeper report {study.directory}` writes its report; choose another study name to train again."
    )


def _go_on(
    study: Study, options: LaunchOptions, function: TrialFunction | None, listeners: Sequence[Listener]
) -> None:
    found = _preflight(study.config, function, directory=study.directory, options=options)
    for change in _record_environment(study):
        print(f"changed since the last start: {change}", file=sys.stderr)
    plan = _complete(study, study.facts() or found.facts)
    _drive(study, plan, found.slots, options, function, listeners)


def _record_environment(study: Study) -> list[str]:
    """Keep what this driver runs on and with; return what changed since the last one, a sentence each."""
    now, earlier = capture_environment(study.config), study.environments()
    study.record_environment(now)
    return changed_since(earlier[-1] if earlier else None, now)


def _complete(study: Study, facts: DataFacts | None) -> Plan:
    """Give a study what it needs to be driven, as far as it has not got it; return its plan.

    A driver may be killed at any moment of this; the next one does the rest.
    """
    config = study.config
    if facts is not None and study.facts() is None:
        study.set_facts(facts)
    plan = plan_sweep(config, facts=facts)
    place, sweep = study.directory / "study.json", study.directory / "sweep.yaml"
    for path, text in (
        (place, json.dumps({"study": config.study, "storage": config.storage})),
        (sweep, dump_config(config)),
    ):
        if not path.exists():
            write_text(path, text)
    study.add_points(plan.points)
    return plan


@contextlib.contextmanager
def _driving(study: Study) -> Iterator[None]:
    """Be the study's driver while the block runs.

    Raises:
        StudyMismatchError: If another process is.
    """
    study.take()
    try:
        with signals_end_this_process():
            yield
    except BaseException:
        try:
            study.hand_back(study.reached)
        except SweeperError as error:
            # What went wrong first is told; the lease of a dead process is taken over anyway.
            logger.warning("The study could not be handed back: %s", error)
        raise
    study.hand_back(study.reached)


def _drive(
    study: Study,
    plan: Plan,
    slots: SlotPlan,
    options: LaunchOptions,
    function: TrialFunction | None,
    listeners: Sequence[Listener],
) -> None:
    """Run the sweep, whatever was asked for, and leave the study in a state that says how it ended."""
    config = study.config
    with contextlib.ExitStack() as stack:
        records = study.records()
        n_ended = sum(record.state.is_finished for record in records.values())
        progress = progress_for(sys.stderr, config, plan.n_trials, n_ended=n_ended)
        stack.enter_context(progress)
        log = stack.enter_context(EventLog(study.directory / "events.log", metric=config.metric))
        trackers = trackers_for(config, study.directory, study.curves.frame)
        orchestrator = Orchestrator(
            study=study, plan=plan, judge=make_judge(config), rules=divergence_rules(config),
            listeners=(progress, log, *map(stack.enter_context, trackers), *listeners),
        )  # fmt: skip
        orchestrator.tell(
            EventKind.SWEEP_STARTED,
            f"study `{study.name}`: {orchestrator.n_left} trials on {slots.slots} slots",
        )
        study.give_up_when(lambda: orchestrator.is_interrupted)
        stack.enter_context(sparing_the_collector())
        try:
            with interrupt_on_signals(orchestrator, grace_s=config.failures.grace_s):
                _executor(config, slots, options, function).run(orchestrator)
                is_open = any(not record.state.is_finished for record in orchestrator.records.values())
                if orchestrator.failure is None and orchestrator.n_left == 0 and not is_open:
                    study.reached = "finished"
                    _record_evidence(study, orchestrator.records)
        except KeyboardInterrupt:
            # A second Ctrl-C, or the end of the grace time.
            orchestrator.interrupt()
        finally:
            orchestrator.tell(EventKind.SWEEP_ENDED, f"study `{study.name}` is {study.reached}")
    _check_outcome(study, orchestrator)


def _record_evidence(study: Study, records: Mapping[int, TrialRecord]) -> None:
    """Keep in the study what its early signals were worth."""
    from sweeper.pruners.evidence import evidence_of

    config = study.config
    found = evidence_of(records.values(), direction=config.direction, seed=config.seed)
    study.record_evidence([evidence.as_dict() for evidence in found])


def _executor(
    config: SweepConfig, slots: SlotPlan, options: LaunchOptions, function: TrialFunction | None
) -> Executor:
    if options.executor == "in-process":
        from sweeper.executors.in_process import InProcessExecutor

        return InProcessExecutor(slots=slots.slots, function=function)
    from sweeper.executors.ray_tune import RayTuneExecutor

    return RayTuneExecutor(
        slots=slots.slots, cpus_per_trial=slots.cpus_per_trial, gpus_per_trial=slots.gpus_per_trial,
        workers_per_trial=slots.workers_per_trial, placement=config.resources.placement or "pack",
        custom_resources=config.resources.custom_resources, grows=slots.grows,
        address=config.resources.address, function=function,
        preload=function is None and config.trial.function is None,
    )  # fmt: skip


def _check_outcome(study: Study, orchestrator: Orchestrator) -> None:
    """Raise where the sweep was interrupted or failed."""
    view = study.view()
    ended = sum(record.state.is_finished for record in view.records)
    if orchestrator.failure is not None:
        raise SweeperError(orchestrator.failure)
    if orchestrator.is_interrupted and study.reached != "finished":
        raise InterruptedSweepError(
            f"Interrupted: {ended} of {len(view.records)} trials have ended, everything is saved. "
            f"Go on with: sweeper resume {study.directory}"
        )
    if view.records and view.count(TrialState.FAIL) == len(view.records):
        raise SweeperError(
            f"Every trial of study `{study.name}` failed; the last with: {view.records[-1].reason}. "
            f"`sweeper status {study.directory}` lists the reasons."
        )


def _judged(study: Study) -> StudyView:
    """Measure the finalists where the config says so; return the study, after it was handed back."""
    section = study.config.benchmarks
    if section is not None and section.when == "finalists":
        from sweeper.benchmarks.run import benchmark_finalists

        benchmark_finalists(study)
    return study.view()


def _check_writable(directory: Path) -> None:
    """Refuse a directory that cannot be made or written, without making it."""
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        why = f"{nearest} is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        why = f"no permission to write {nearest}"
    else:
        return
    raise ConfigError(
        f"The study's directory {directory} cannot be written: {why}. "
        "Give another one with `dir:` in the sweep file or `--dir`."
    )
