"""Launch, resume and read sweeps from Python; the command line stands on these.

Everything that can be wrong is found before a worker starts: config, storage, study, pruner, data, slots.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sweeper.config import config_from_dict, dump_config, load_config
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, InterruptedSweepError, NothingToDoError, SweeperError
from sweeper.executors.attempt import TrialFunction
from sweeper.executors.base import Executor
from sweeper.files import write_text
from sweeper.orchestrator import Orchestrator
from sweeper.plan import DataFacts, Plan, plan_sweep
from sweeper.preflight.cluster import SlotPlan, plan_slots, probe_cluster, probe_machine
from sweeper.progress import EventLog, progress_for
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import EventKind, Listener, TrialState
from sweeper.study.study import Study, check_same
from sweeper.study.view import StudyView

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
    judge_works = make_judge(config)  # a pruner that does not import is a problem of the config
    del judge_works
    plan_sweep(config)
    existing = Study.find(name=config.study, url=config.storage, directory=directory)
    if existing is not None:
        check_same(existing, config)
        existing.update_config(config)
        return _go_on(existing, options, function, listeners)
    slots = plan_slots(config.resources, _probe(config))
    facts = check_data(config, function)
    plan = plan_sweep(config, facts=facts)
    study = _create(config, directory, plan, facts)
    return _drive(study, plan, slots, options, function, listeners)


def resume(
    place: str,
    *,
    options: LaunchOptions | None = None,
    function: TrialFunction | None = None,
    listeners: Sequence[Listener] = (),
) -> StudyView:
    """Go on with a study where it stopped. Raises as `launch` does."""
    options = options or LaunchOptions()
    study = Study.open(place, url=options.storage)
    if options.address is not None:
        study.update_config(with_options(study.config, LaunchOptions(address=options.address)))
    return _go_on(study, options, function, listeners)


def load_study(place: str, *, storage: str | None = None) -> StudyView:
    """Read a study: its directory, or its name with a storage URL.

    Raises:
        StudyMismatchError: If there is none.
    """
    return Study.open(place, url=storage).view()


def with_options(config: SweepConfig, options: LaunchOptions) -> SweepConfig:
    """Return the config with the command line's word applied."""
    changes: dict[str, Any] = {}
    if options.dir is not None:
        changes["dir"] = options.dir
    if options.storage is not None:
        changes["storage"] = options.storage
    if options.address is not None:
        changes["resources"] = config.resources.model_copy(update={"address": options.address})
    return config.model_copy(update=changes) if changes else config


def study_directory(config: SweepConfig) -> Path:
    return Path(config.dir or Path("studies") / config.study).absolute()


def check_data(config: SweepConfig, function: TrialFunction | None = None) -> DataFacts | None:
    """Check model and data, or that the user's function imports, in a child process.

    Raises:
        ConfigError: With every problem that was found.
    """
    if function is not None:
        return None
    from sweeper.preflight.child import run_in_child

    place = config.trial.function_dir
    report = run_in_child(config, directory=Path(place) if place else None)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return None if config.trial.function else DataFacts(rows=report.rows, target_tokens=report.target_tokens)


def _go_on(
    study: Study, options: LaunchOptions, function: TrialFunction | None, listeners: Sequence[Listener]
) -> StudyView:
    left = [record for record in study.records().values() if not record.state.is_finished]
    undrawn = study.config.sampler.name != "grid" and len(study.records()) < (
        study.config.sampler.n_trials or 0
    )
    if not left and not undrawn:
        raise NothingToDoError(
            f"Study `{study.name}` is finished: nothing is left to train. "
            f"`sweeper report {study.directory}` writes its report; choose another study name to train again."
        )
    slots = plan_slots(study.config.resources, _probe(study.config))
    check_data(study.config, function)
    plan = plan_sweep(study.config, facts=study.facts())
    return _drive(study, plan, slots, options, function, listeners)


def _probe(config: SweepConfig) -> Any:
    address = config.resources.address
    return probe_machine() if address is None else probe_cluster(address)


def _create(config: SweepConfig, directory: Path, plan: Plan, facts: DataFacts | None) -> Study:
    directory.mkdir(parents=True, exist_ok=True)
    study = Study.create(config, directory=directory)
    if facts is not None:
        study.set_facts(facts)
    study.add_points(plan.points)
    write_text(directory / "sweep.yaml", dump_config(config))
    write_text(directory / "study.json", json.dumps({"study": config.study, "storage": config.storage}))
    return study


def _drive(
    study: Study,
    plan: Plan,
    slots: SlotPlan,
    options: LaunchOptions,
    function: TrialFunction | None,
    listeners: Sequence[Listener],
) -> StudyView:
    """Run the sweep, whatever was asked for, and leave the study in a state that says how it ended."""
    config = study.config
    study.set_driver("running")
    with contextlib.ExitStack() as stack:
        records = study.records()
        n_ended = sum(record.state.is_finished for record in records.values())
        progress = progress_for(sys.stderr, config, plan.n_trials, n_ended=n_ended)
        stack.enter_context(progress)
        log = stack.enter_context(EventLog(study.directory / "events.log", metric=config.metric))
        orchestrator = Orchestrator(
            study=study, plan=plan, judge=make_judge(config), rules=divergence_rules(config),
            listeners=(progress, log, *listeners),
        )  # fmt: skip
        orchestrator.tell(
            EventKind.SWEEP_STARTED,
            f"study `{study.name}`: {orchestrator.n_left} trials on {slots.slots} slots",
        )
        state: Literal["interrupted", "finished"] = "interrupted"
        try:
            _executor(config, slots, options, function).run(orchestrator)
            if not orchestrator.is_draining and orchestrator.n_left == 0:
                state = "finished"
        finally:
            study.set_driver(state)
            orchestrator.tell(EventKind.SWEEP_ENDED, f"study `{study.name}` is {state}")
    return _outcome(study, orchestrator)


def _executor(
    config: SweepConfig, slots: SlotPlan, options: LaunchOptions, function: TrialFunction | None
) -> Executor:
    if options.executor == "in-process":
        from sweeper.executors.in_process import InProcessExecutor

        return InProcessExecutor(slots=slots.slots, function=function)
    from sweeper.executors.ray_tune import RayTuneExecutor

    return RayTuneExecutor(
        slots=slots.slots, cpus_per_trial=slots.cpus_per_trial, gpus_per_trial=slots.gpus_per_trial,
        address=config.resources.address, function=function,
        preload=function is None and config.trial.function is None,
    )  # fmt: skip


def _outcome(study: Study, orchestrator: Orchestrator) -> StudyView:
    view = study.view()
    ended = sum(record.state.is_finished for record in view.records)
    if orchestrator.failure is not None:
        raise SweeperError(orchestrator.failure)
    if orchestrator.is_interrupted:
        raise InterruptedSweepError(
            f"Interrupted: {ended} of {len(view.records)} trials have ended, everything is saved. "
            f"Go on with: sweeper resume {study.directory}"
        )
    if view.records and view.count(TrialState.FAIL) == len(view.records):
        raise SweeperError(
            f"Every trial of study `{study.name}` failed; the last with: {view.records[-1].reason}. "
            f"`sweeper status {study.directory}` lists the reasons."
        )
    return view


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
