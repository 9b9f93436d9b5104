"""Driving a study: be its driver, bring it up to date, run its trials, leave it in a state that says how it ended."""

import contextlib
import json
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from sweeper.config import dump_config
from sweeper.config.benchmark_models import DEFAULT_TOP
from sweeper.config.models import SweepConfig
from sweeper.errors import InterruptedSweepError, StudyMismatchError, SweeperError
from sweeper.events import EventKind, Listener
from sweeper.executors.base import Executor
from sweeper.executors.interrupt import interrupt_on_signals, signals_end_this_process
from sweeper.executors.user_code import code_of
from sweeper.files import write_text
from sweeper.orchestrator import Orchestrator
from sweeper.plan import DataFacts, Plan, n_undrawn, plan_sweep
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.environment import capture_environment
from sweeper.progress import EventLog, progress_for
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import plural
from sweeper.study import layout
from sweeper.study.bulk import sparing_the_collector
from sweeper.study.control_records import ADDING
from sweeper.study.environment import changed_since
from sweeper.study.study import Study
from sweeper.study.view import StudyView
from sweeper.trackers import TrackerListener, trackers_for
from sweeper.training.functions import TrialFunction

logger = logging.getLogger(__name__)

ExecutorName = Literal["ray", "in-process"]


def is_anything_left(study: Study) -> bool:
    """Whether a study has trials to train, or somebody has asked for more."""
    records = study.records()
    is_open = any(not record.state.is_finished for record in records.values())
    if (
        is_open
        or n_undrawn(study.config, records.values(), exhausted_at=study.exhausted_at)
        or not study.is_complete
    ):
        return True
    return any(request.verb in ADDING for request in study.control_box.pending())


def record_environment(study: Study, executor: ExecutorName) -> list[str]:
    """Keep what this driver runs on and with; return what changed since the last one, a sentence each."""
    now = capture_environment(study.config) | {"executor": executor}
    earlier = study.environments()
    study.record_environment(now)
    return changed_since(earlier[-1] if earlier else None, now)


def complete(study: Study, facts: DataFacts | None) -> Plan:
    """Give a study what it needs to be driven, as far as it has not got it; return its plan.

    A driver may be killed at any moment of this; the next one does the rest.
    """
    config = study.config
    if facts is not None and study.facts() is None:
        study.set_facts(facts)
    plan = plan_sweep(config, facts=facts, began_as=config if study.records() else None)
    _settle(study)
    study.add_points(plan.entered_points)
    if config.pruner.prior is not None and not study.prior():
        from sweeper.prior import prior_of

        study.record_prior(
            list(prior_of(plan).values())
        )  # the earlier study may be gone when this one is resumed
    return plan


def _settle(study: Study) -> None:
    """Keep where the study lies, and in its directory what it is and how it is configured, as that is now."""
    config = study.config
    study.record_directory()
    for name, text in (
        (layout.MARKER, json.dumps({"study": config.study, "storage": config.storage})),
        (layout.SWEEP, dump_config(config)),
    ):
        path = study.directory / name
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)


@contextlib.contextmanager
def driving(study: Study) -> Iterator[None]:
    """Be the study's driver while the block runs.

    Raises:
        StudyMismatchError: If another process is, or was since the study was opened and has changed its config.
    """
    study.control_box.note_earlier()
    study.take()
    try:
        with signals_end_this_process():
            _check_config(study)
            yield
    except BaseException:
        try:
            study.hand_back(study.reached)
        except SweeperError as error:
            # What went wrong first is told; the lease of a dead process is taken over anyway.
            logger.warning("The study could not be handed back: %s", error)
        raise
    study.hand_back(study.reached)


def _check_config(study: Study) -> None:
    """Refuse to drive a study whose config is not the one any more that everything was checked with."""
    changed = study.read_config_again()
    if changed:
        study.reached = "interrupted" if is_anything_left(study) else "finished"
        names = ", ".join(f"`{name}`" for name in changed)
        raise StudyMismatchError(
            f"The config of study `{study.name}` was changed in its storage ({names}) since this command has read it, "
            "by one that has ended meanwhile. Nothing was written. Run this command again, which goes by what the "
            "study says now; `sweeper status` shows how it stands."
        )


def drive(
    study: Study,
    plan: Plan,
    slots: SlotPlan,
    executor: Executor,
    listeners: Sequence[Listener],
    *,
    executor_name: ExecutorName,  # for the words that say how to go on
) -> None:
    """Run the sweep, whatever was asked for, and leave the study in a state that says how it ended."""
    config = study.config
    with contextlib.ExitStack() as stack:
        records = study.records().values()
        progress = progress_for(sys.stderr, config, records)
        stack.enter_context(progress)
        events = EventLog(
            study.directory / layout.EVENTS, metric=config.metric, is_lost=lambda: study.is_lost
        )
        log = stack.enter_context(events)
        trackers = trackers_of(study, records)
        watching = (progress, log, *map(stack.enter_context, trackers), *listeners)
        orchestrator = _orchestrator(study, plan, watching)
        orchestrator.tell(
            EventKind.SWEEP_STARTED,
            f"study `{study.name}`: {plural(orchestrator.n_left, 'trial')} on {plural(slots.slots, 'slot')}, each with "
            f"{slots.of_each}",
        )
        study.give_up_when(lambda: orchestrator.is_interrupted)
        stack.enter_context(sparing_the_collector())
        try:
            with interrupt_on_signals(orchestrator, grace_s=config.failures.grace_s):
                _run_to_its_end(study, orchestrator, executor)
        except KeyboardInterrupt:
            # A second Ctrl-C, or the end of the grace time.
            orchestrator.interrupt()
        finally:
            if orchestrator.is_interrupted:
                for tracker in trackers:
                    tracker.hurry()
            orchestrator.tell(EventKind.SWEEP_ENDED, f"study `{study.name}` is {study.reached}")
    _check_outcome(study, orchestrator, executor_name)


def trackers_of(study: Study, records: Iterable[TrialRecord]) -> list[TrackerListener]:
    """Return a listener for each tracker of a study, to be entered as a context."""
    return trackers_for(
        study.config, study.directory, study.curves.rows_after, created=study.created, records=records
    )


def _orchestrator(study: Study, plan: Plan, listeners: Sequence[Listener]) -> Orchestrator:
    """Return the orchestrator of a study, which judges as its config says."""
    config = study.config
    return Orchestrator(
        study=study, plan=plan, judge=make_judge(config, study.prior()), rules=divergence_rules(config),
        listeners=listeners, longest_first=config.sampler.name == "grid",
    )  # fmt: skip


def _run_to_its_end(study: Study, orchestrator: Orchestrator, executor: Executor) -> None:
    """Train for as long as there is something to train; note where the whole sweep has ended, and what that taught."""
    executor.run(orchestrator)
    while orchestrator.look_once_more():  # its last look may be seconds ago
        executor.run(orchestrator)
    is_open = any(not record.state.is_finished for record in orchestrator.records.values())
    if orchestrator.failure is None and orchestrator.n_left == 0 and not is_open:
        study.reached = "finished"
        _record_evidence(study, orchestrator.records)


def _record_evidence(study: Study, records: Mapping[int, TrialRecord]) -> None:
    """Keep in the study what its early signals were worth."""
    from sweeper.pruners.evidence import evidence_of

    config = study.config
    found = evidence_of(records.values(), direction=config.direction, seed=config.seed)
    study.record_evidence([evidence.as_dict() for evidence in found])


def make_executor(
    config: SweepConfig, slots: SlotPlan, name: ExecutorName, function: TrialFunction | None
) -> Executor:
    """Return the executor of a name, with as many slots and resources as were planned; Ray is not started yet."""
    if name == "in-process":
        from sweeper.executors.in_process import InProcessExecutor

        return InProcessExecutor(slots=slots.slots, function=function)
    from sweeper.executors.ray_tune import RayTuneExecutor

    return RayTuneExecutor(
        slots=slots.slots, share=config.resources.share(slots.gpus_per_trial),
        workers_per_trial=slots.workers_per_trial, placement=config.resources.placement or "pack", grows=slots.grows,
        address=config.resources.address, code=code_of(config, function),
        worker_growth_gb=config.resources.worker_growth_gb, grace_s=config.failures.grace_s, function=function,
        preload=function is None and config.trial.function is None,
    )  # fmt: skip


def _check_outcome(study: Study, orchestrator: Orchestrator, executor_name: ExecutorName) -> None:
    """Raise where the sweep was interrupted or failed."""
    view, place = study.view(), shlex.quote(str(study.directory))
    ended = sum(record.state.is_finished for record in view.records)
    if orchestrator.failure is not None:
        raise SweeperError(orchestrator.failure)
    if orchestrator.is_interrupted and study.reached != "finished":
        where = "" if executor_name == "ray" else f" --executor {executor_name}"
        how = "Out of time (`resources.time_budget_s`)" if orchestrator.is_out_of_time else "Interrupted"
        raise InterruptedSweepError(
            f"{how}: {ended} of {view.n_trials} trials have ended, everything is saved. "
            f"`sweeper report {place}` shows what was found so far. Go on with: sweeper resume {place}{where}"
        )
    if view.records and view.count(TrialState.FAIL) == len(view.records):
        why = str(view.records[-1].reason).rstrip(".")
        raise SweeperError(
            f"Every trial of study `{study.name}` failed; the last with: {why}. "
            f"`sweeper status {place}` lists the reasons, `sweeper report {place}` draws what there is of curves; once "
            "the reasons are mended, "
            f"`sweeper resume {place} --retry-failed` trains them again."
        )


def judged(study: Study) -> StudyView:
    """Measure the finalists where the config says so; return the study, after it was handed back."""
    section = study.config.benchmarks
    if section is not None and section.when == "finalists":
        from sweeper.benchmarks.run import benchmark_finalists

        benchmark_finalists(study)
    return study.view()


def unmeasured(study: Study) -> list[int]:
    """Return the finalists that the config asks to measure and that were not: whoever was to was killed, or failed."""
    view, section = study.view(), study.config.benchmarks
    if section is None or section.when != "finalists":
        return []
    found = {(run.trial, run.benchmark) for run in view.benchmarks if run.step is None}
    finalists = [record.number for record in view.ranked[: section.top or DEFAULT_TOP]]
    return [number for number in finalists if not found.issuperset((number, name) for name in section.names)]
