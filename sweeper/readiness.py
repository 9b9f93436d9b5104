"""What must be so before a sweep starts: where it runs, and what is checked there before a worker does.

Everything that can be wrong is found here: config, storage, pruner, data, model, nodes, disk, slots.
"""

import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from sweeper.checkpoint import check_url
from sweeper.config.models import SweepConfig
from sweeper.driving import ExecutorName, make_executor
from sweeper.errors import ConfigError
from sweeper.executors.base import Executor
from sweeper.executors.interrupt import take_signals_back
from sweeper.files import nearest_existing
from sweeper.preflight.disk import DiskNeed, check_disk, disk_need
from sweeper.preflight.facts import PreflightFacts, checking, count_slots
from sweeper.preflight.launch_nodes import check_nodes
from sweeper.pruners.judge import make_judge
from sweeper.storage_url import absolute_storage, keep_password
from sweeper.study import layout
from sweeper.trackers import check_trackers
from sweeper.training.functions import TrialFunction

LOCAL = "local"  # instead of a cluster's address: none is joined


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a command line adds to a config: where, and how to run."""

    dir: str | None = None
    storage: str | None = None
    address: str | None = None  # of a cluster, or `local`, whatever the config says; None: as it says
    executor: ExecutorName = "ray"

    def __post_init__(self) -> None:
        if self.executor not in get_args(ExecutorName):
            raise ConfigError(
                f"`LaunchOptions.executor` must be `ray` or `in-process`, but got `{self.executor}`. `in-process` runs "
                "the trials in this process, without Ray."
            )


def with_options(config: SweepConfig, options: LaunchOptions) -> SweepConfig:
    """Return the config with the command line's word applied, its paths made absolute, and no password.

    The password is kept in memory for as long as this process runs, and written nowhere.
    """
    changes: dict[str, Any] = {"storage": keep_password(absolute_storage(options.storage or config.storage))}
    if options.dir is not None:
        changes["dir"] = str(study_directory(config.model_copy(update={"dir": options.dir})))
    if options.address is not None:
        changes["resources"] = config.resources.model_copy(update={"address": cluster_of(options.address)})
    return config.model_copy(update=changes)


def cluster_of(address: str | None) -> str | None:
    """Return the cluster that `--address` names; None where it names this machine or is not given."""
    return None if address == LOCAL else address


def study_directory(config: SweepConfig) -> Path:
    """Return where a sweep's study lies: what `dir` says, else a directory of its name."""
    return Path(config.dir or layout.STUDIES / config.study).absolute()


def check_writable(directory: Path) -> None:
    """Refuse a directory that cannot be made or written, without making it.

    Raises:
        ConfigError: If so.
    """
    nearest = nearest_existing(directory)
    if not nearest.is_dir():
        why = f"{nearest} is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        why = f"no permission to write {nearest}"
    else:
        return
    raise ConfigError(
        f"The study's directory {directory} cannot be written: {why}. "
        "Give another one with `dir:` in the sweep file or `--dir`."
    )


def check_pruner(config: SweepConfig) -> None:
    """Make the config's pruner and forget it.

    Raises:
        ConfigError: If it does not import or does not take its options.
    """
    make_judge(config)


def plan_disk(
    config: SweepConfig,
    found: PreflightFacts | None,
    *,
    directory: Path | None = None,
    has_begun: bool = False,
) -> DiskNeed | None:
    """Work out what disk a sweep needs. Without preflight, by the model's directory and the slots that are given.

    Of a study that has begun, trials that are set aside are not counted: how many still can be, only its records say,
    and what those save that are aside now lies there already.
    """
    slots = found.slots.slots if found is not None else config.resources.slots or 1
    weights = found.weights if found is not None else None
    return disk_need(
        config, slots=slots, directory=directory or study_directory(config), weights=weights,
        counts_aside=not has_begun,
    )  # fmt: skip


@contextlib.contextmanager
def ready(
    config: SweepConfig,
    function: TrialFunction | None,
    *,
    directory: Path,
    options: LaunchOptions,
    has_begun: bool = False,
) -> Iterator[tuple[PreflightFacts, Executor]]:
    """Find what can be wrong; yield what was found and the executor, which starts meanwhile and ends with the block.

    Args:
        config: Of the sweep.
        function: Run instead of what the config names.
        directory: Of the study.
        options: Of whoever asked.
        has_begun: Whether a study is gone on with.

    Raises:
        ConfigError: With what is wrong.
    """
    config = _as_it_runs(config, options)
    check_trackers(config)
    if config.trial.checkpoint.url is not None:
        check_url(config.trial.checkpoint.url)
    if sys.stderr.isatty():
        # It takes seconds, and longer where a model's files or data come from afar.
        print("Checking what the trials need ...", file=sys.stderr)
    if config.benchmarks is not None and config.benchmarks.when != "asked":
        # Imported here: most sweeps have no benchmarks.
        from sweeper.benchmarks.measure import check_benchmarks

        check_benchmarks(config.benchmarks)
    room = count_slots(config, function)
    with contextlib.ExitStack() as stack:
        checked = stack.enter_context(checking(config, room, function))
        executor = make_executor(config, room.slots, options.executor, function)  # loads Ray
        stack.enter_context(executor.starting())
        if config.pruner.directions == "learned":
            importlib.import_module("sweeper.pruners.learned")  # takes a second, which the check takes anyway
        found = checked()
        take_signals_back()  # Ray has started meanwhile
        _tell(config, found, function, directory=directory, options=options, has_begun=has_begun)
        yield found, executor


def _tell(
    config: SweepConfig, found: PreflightFacts, function: TrialFunction | None, *, directory: Path,
    options: LaunchOptions, has_begun: bool,
) -> None:  # fmt: skip
    """Check nodes and disk; tell what was found and is no error."""
    warnings = found.warnings
    if found.cluster.nodes and options.executor == "ray":
        warnings += check_nodes(config, found.slots, directory, function)
    check_disk(plan_disk(config, found, directory=directory, has_begun=has_begun))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _as_it_runs(config: SweepConfig, options: LaunchOptions) -> SweepConfig:
    """Return the config as its executor runs it: in this process, nothing that a cluster is asked for counts.

    Raises:
        ConfigError: If a trial needs what the executor has not.
    """
    if options.executor != "in-process":
        return config
    if cluster_of(options.address) is not None:
        raise ConfigError(
            f"`--address {options.address}` joins a cluster, but `--executor in-process` trains in this process. Leave "
            "one of them out."
        )
    n_workers = config.resources.n_workers
    if n_workers > 1:
        raise ConfigError(
            f"A trial of {n_workers} workers needs processes of their own, which the in-process executor has not. Use "
            "`--executor ray`, or set `resources.gpus_per_trial` and `workers_per_trial` to at most 1."
        )
    resources = config.resources.model_copy(update={"address": None, "custom_resources": {}})
    return config.model_copy(update={"resources": resources})
