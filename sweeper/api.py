"""Launch, resume and read sweeps from Python; the command line stands on these."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.config import config_from_dict, config_to_dict, load_config
from sweeper.config.models import SweepConfig
from sweeper.driving import complete, drive, driving, is_anything_left, judged, record_environment
from sweeper.ended import hand_on_the_rest, has_ended, nothing_to_do
from sweeper.errors import ConfigError
from sweeper.events import Listener
from sweeper.executors.attempt import TrialFunction
from sweeper.extend import Extension, plan_extension, with_kept_rungs
from sweeper.moved import as_recorded, follow, with_kept_prior
from sweeper.noted_data import check_data_of, check_noted_data_of, with_noted_data
from sweeper.option_checks import check_listeners
from sweeper.plan import Plan, plan_sweep
from sweeper.preflight.facts import PreflightFacts
from sweeper.readiness import LaunchOptions as LaunchOptions  # for whoever calls `launch`
from sweeper.readiness import check_pruner, check_writable, ready, study_directory, with_options
from sweeper.study.bulk import sparing_the_collector
from sweeper.study.changes import check_same, check_same_data
from sweeper.study.study import Study
from sweeper.study.view import StudyView

ConfigSource = str | Path | Mapping[str, Any] | SweepConfig


def read_config(source: ConfigSource, overrides: Sequence[str] = ()) -> SweepConfig:
    """Return a checked config from a file, a mapping, or one that is checked already.

    Raises:
        ConfigError: With every problem.
    """
    if isinstance(source, SweepConfig):
        if not overrides:
            return source
        return config_from_dict(config_to_dict(source), overrides=overrides, check_files=False)
    if isinstance(source, Mapping):
        return config_from_dict(dict(source), overrides=overrides)
    return load_config(source, overrides)


def launch(
    source: ConfigSource,
    overrides: Sequence[str] = (),
    *,
    options: LaunchOptions | None = None,
    function: TrialFunction | None = None,
    listeners: Sequence[Listener] = (),
    data_of: Study | None = None,
) -> StudyView:
    """Run a sweep to its end. A study that exists already with the same config is gone on with.

    Args:
        source: Sweep file, mapping, or config.
        overrides: `key=value`, laid over it; a list, or one alone.
        options: Where and how to run.
        function: Python function that is run for every trial instead of what the config names.
        listeners: Told of every event, beside the terminal's own view.
        data_of: A study whose points are trained again, on the data that it began with and no other.

    Raises:
        ConfigError: If it cannot be run; nothing was started.
        StudyMismatchError: If a study of this name exists with another config, or the data is not that of `data_of`.
        NothingToDoError: If it is finished.
        InterruptedSweepError: If it was interrupted; the state is saved.
        SweeperError: If the sweep failed.
    """
    check_listeners(listeners)
    options = options or LaunchOptions()
    config = with_options(read_config(source, overrides), options)
    directory = study_directory(config)
    check_writable(directory)
    check_pruner(config)
    existing = Study.find(name=config.study, url=config.storage, directory=directory)
    plan = plan_sweep(config, began_as=None if existing is None else existing.config)
    if existing is not None:
        if config.dir is not None:
            existing.move_to(directory)
        config = _as_it_began(config, existing)
        check_same(existing, as_recorded(existing, config))
        if has_ended(existing):
            raise nothing_to_do(existing, hand_on_the_rest(existing))
        if data_of is not None:
            check_noted_data_of(data_of, existing)
        _tell_of_cluster(existing.config, config)
        with driving(existing):
            existing.update_config(config)
            _go_on(existing, options, function, listeners, data_of)
        return judged(existing)
    _check_prior(plan)
    return judged(_launch_new(config, options, function, listeners, data_of))


def resume(
    place: str,
    overrides: Sequence[str] = (),
    *,
    continues: Sequence[str] = (),
    retry_failed: bool = False,
    options: LaunchOptions | None = None,
    function: TrialFunction | None = None,
    listeners: Sequence[Listener] = (),
) -> StudyView:
    """Go on with a study where it stopped, and extend it where that is asked for. Raises as `launch` does.

    Args:
        place: The study's directory, or its name.
        overrides: `key=value` over its config: more values of a grid, more trials, another pruner.
        continues: Numbers of completed trials to be trained on to the budget of the overrides, or `all`.
        retry_failed: Whether the points of failed trials are trained once more, each under a new number.
        options: Where and how to run.
        function: As in `launch`.
        listeners: As in `launch`.
    """
    check_listeners(listeners)
    options = options or LaunchOptions()
    study = Study.open(place, url=options.storage)
    if options.dir is not None:
        study.move_to(Path(options.dir))
    recorded = study.config
    follow(study)
    extension = None
    if overrides or continues or retry_failed:
        extension = _checked_extension(study, overrides, continues, retry_failed=retry_failed)
    config = with_options(study.config if extension is None else extension.config, options)
    _check_judge(study, config)
    adds_trials = extension is not None and extension.adds_trials
    is_over = not adds_trials and has_ended(study)
    if is_over and config == recorded:
        raise nothing_to_do(study, hand_on_the_rest(study))
    if config.dir is not None and study.directory != study.recorded_directory:
        config = config.model_copy(update={"dir": str(study.directory)})
    with driving(study):
        if extension is not None:
            extension.apply(study)
            for note in extension.notes:
                print(f"extended: {note}", file=sys.stderr)
        study.update_config(config)
        if is_over:
            complete(study, study.facts())
            study.reached = "finished"
            raise nothing_to_do(study, "The changed settings are kept. ")
        _go_on(study, options, function, listeners)
    return judged(study)


def _check_judge(study: Study, config: SweepConfig) -> None:
    """Refuse a pruner, or a study to learn from, that a study cannot go on with."""
    check_pruner(config)
    if config.pruner.prior != study.config.pruner.prior:
        _check_prior(plan_sweep(config, facts=study.facts(), began_as=study.config))


def _checked_extension(
    study: Study, overrides: Sequence[str], continues: Sequence[str], *, retry_failed: bool
) -> Extension:
    extension = plan_extension(study, overrides, continues, retry_failed=retry_failed)
    if extension.config.pruner.max_gpu_hours != study.config.pruner.max_gpu_hours:
        raise ConfigError(
            "`pruner.max_gpu_hours` is worked out when a study begins. Set `pruner.keep_frac` instead, or launch a new "
            "study."
        )
    return extension


def load_study(place: str, *, storage: str | None = None) -> StudyView:
    """Read a study: its directory, or its name with a storage URL.

    Raises:
        StudyMismatchError: If there is none.
    """
    return Study.open(place, url=storage).view()


def _afforded(config: SweepConfig, found: PreflightFacts) -> SweepConfig:
    """Return the config with what its `pruner.max_gpu_hours` allow worked out."""
    if config.pruner.max_gpu_hours is None:
        return config
    from sweeper.preflight.afford import afford
    from sweeper.preflight.measure import measure_cost

    plan = plan_sweep(config, facts=found.facts)
    cost = measure_cost(plan, found.slots, facts=found.facts, asked_by="pruner.max_gpu_hours")
    config, told = afford(plan, cost)
    print(told, file=sys.stderr)
    return config


def _check_prior(plan: Plan) -> None:
    """Read what `pruner.prior` names and forget it: what is wrong with it is told before anything starts.

    Raises:
        ConfigError: If so.
    """
    if plan.config.pruner.prior is not None:
        from sweeper.prior import prior_of

        prior_of(plan)


def _tell_of_cluster(was: SweepConfig, now: SweepConfig) -> None:
    """Say where trials run from now on, where that changes by a sweep file that names no cluster."""
    address = was.resources.address
    if address is not None and now.resources.address is None:
        print(
            f"The study ran on the cluster at {address}; trials run on this machine now. `--address {address}` joins "
            "it again.",
            file=sys.stderr,
        )


def _as_it_began(config: SweepConfig, study: Study) -> SweepConfig:
    """Return a sweep file's config with what its study has worked out and kept, which the file does not say."""
    kept = with_kept_prior(study, _as_afforded(config, study.config))
    if kept.pruner.prior != config.pruner.prior:
        print(
            f"`pruner.prior` stays {kept.pruner.prior}, which is gone: what was read there as the study began counts, "
            f"and {config.pruner.prior} is not read. `sweeper resume` takes another `pruner.prior`.",
            file=sys.stderr,
        )
    return with_kept_rungs(study, kept)


def _as_afforded(config: SweepConfig, recorded: SweepConfig) -> SweepConfig:
    """Return the config with what was worked out when its study began: hours of the same number are not asked again."""
    hours, keep_frac = recorded.pruner.max_gpu_hours, recorded.pruner.keep_frac
    if hours is None or config.pruner.max_gpu_hours != hours or keep_frac > config.pruner.keep_frac:
        return config
    return config.model_copy(update={"pruner": config.pruner.model_copy(update={"keep_frac": keep_frac})})


def _launch_new(
    config: SweepConfig, options: LaunchOptions, function: TrialFunction | None, listeners: Sequence[Listener],
    data_of: Study | None,
) -> Study:  # fmt: skip
    directory = study_directory(config)
    noted = with_noted_data(config, data_of)
    with ready(noted, function, directory=directory, options=options) as (found, executor):
        if data_of is not None:
            check_data_of(data_of, config, found.facts)
        config = _afforded(config, found)
        directory.mkdir(parents=True, exist_ok=True)
        study = Study.create(config, directory=directory)
        with driving(study):
            record_environment(study, options.executor)
            plan = complete(study, found.facts)
            drive(study, plan, found.slots, executor, listeners, executor_name=options.executor)
    return study


def _go_on(
    study: Study, options: LaunchOptions, function: TrialFunction | None, listeners: Sequence[Listener],
    data_of: Study | None = None,
) -> None:  # fmt: skip
    config = with_noted_data(study.config, data_of, study)
    checked = ready(config, function, directory=study.directory, options=options, has_begun=True)
    with sparing_the_collector(), checked as (found, executor):
        check_same_data(study, found.facts)
        if data_of is not None:
            check_data_of(data_of, config, found.facts)
        for change in record_environment(study, options.executor):
            print(f"changed since the last start: {change}", file=sys.stderr)
        plan = complete(study, study.facts() or found.facts)
        if plan.untrainable is not None:
            print(f"warning: {plan.untrainable}", file=sys.stderr)
        if not is_anything_left(study):  # its driver was killed after the last trial had ended
            study.reached = "finished"
            raise nothing_to_do(study)
        drive(study, plan, found.slots, executor, listeners, executor_name=options.executor)
