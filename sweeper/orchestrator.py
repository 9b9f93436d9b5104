"""The sweep as four calls: next_trial, on_report, on_end, on_lost.

It owns no truth: what it holds in memory was read from the study or was written there before it was acted on. It
knows no Ray and no torch; an executor carries out what it says.
"""

import collections
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.batch import BatchPlan
from sweeper.checkpoint import Checkpoints, Retention, checkpoints_place, open_checkpoints
from sweeper.context import TrialSpec
from sweeper.errors import SweeperError
from sweeper.plan import Plan, Point, plan_point, trial_spec
from sweeper.pruners.divergence import DivergenceMonitor, DivergenceRules
from sweeper.pruners.judge import Judge, LearningJudge
from sweeper.pruners.signals import windowed_signals
from sweeper.records import (
    GRAD_NORM,
    HOST,
    LOSS,
    Decision,
    Event,
    EventKind,
    FailureCause,
    Listener,
    Outcome,
    OutcomeKind,
    Report,
    RungRecord,
    StepRow,
    TrialRecord,
    TrialState,
)
from sweeper.study.interface import SweepStudy
from sweeper.study.micro_batches import MicroBatchLimits
from sweeper.study.study import utc_now

logger = logging.getLogger(__name__)

_FLUSH_S = 2.0  # how old the curve and the progress of a running trial may be on disk
_DUPLICATE_DRAWS = (
    20  # draws of points already known, one after another, before a sampler counts as exhausted
)


@dataclasses.dataclass(kw_only=True)
class _Running:
    """What is kept of a trial while it runs; all of it can be rebuilt from its curve."""

    point: Point
    rows: list[StepRow]
    monitor: DivergenceMonitor
    metrics: dict[str, float]  # newest value of each
    spec: TrialSpec
    worker: dict[str, Any] | None
    started: str
    flushed_at: float
    earlier_train_s: float
    earlier_evaluation_s: float
    unjudged: list[RungRecord]  # recorded by an earlier driver that died before it had judged there
    train_s: float = 0.0  # this attempt
    evaluation_s: float = 0.0


class Orchestrator:
    """Asks the study for points, records what trials report, and judges.

    All calls come from one thread.

    Args:
        study: The study, held by this driver.
        plan: The plan of its config.
        judge: Who judges trials at rungs.
        rules: Which divergence rules are on.
        listeners: Told of every event.
        clock: Seconds, monotonic.
        monitor_of: Makes the monitor of a trial; replay knows what each recorded trial will break.
    """

    def __init__(
        self,
        *,
        study: SweepStudy,
        plan: Plan,
        judge: Judge,
        rules: DivergenceRules,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        monitor_of: Callable[[int], DivergenceMonitor] | None = None,
    ) -> None:
        self._study = study
        self._config = study.config
        self._plan = plan
        self._judge = judge
        self._monitor_of = monitor_of or (lambda number: DivergenceMonitor(rules))
        self._listeners = tuple(listeners)
        self._clock = clock
        self._started_at = clock()
        self._facts = study.facts()
        self.records: dict[int, TrialRecord] = study.records()
        self._points = {point.point_id: point for point in plan.points}
        self._known = {record.point_id: number for number, record in self.records.items() if record.point_id}
        unfinished = [n for n in sorted(self.records) if not self.records[n].state.is_finished]
        # Trials that had begun come first: their slots' work is half done, and their peers wait for them.
        self._again = collections.deque(n for n in unfinished if self.records[n].state is TrialState.RUNNING)
        self._waiting = collections.deque(
            n for n in unfinished if self.records[n].state is TrialState.WAITING
        )
        self._running: dict[int, _Running] = {}
        self._micro_batches = MicroBatchLimits(study)
        policy = self._config.trial.checkpoint
        self._retention = Retention(
            self._checkpoints, keep_best=policy.keep_best,
            max_bytes=None if policy.max_gb is None else int(policy.max_gb * 1e9),
            maximize=self._config.direction == "maximize",
        )  # fmt: skip
        self._failed_in_row = 0
        self._interrupted = False
        self._exhausted = False  # the sampler has no new point left
        self.may_save = (
            True  # whether trials that are told to end may save a checkpoint first: not on a full disk
        )
        self.failure: str | None = None  # why the sweep gives up, once it does
        self._carry_out_decisions()

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def is_interrupted(self) -> bool:
        return self._interrupted

    @property
    def is_draining(self) -> bool:
        """Whether no further trial will be started."""
        return self._interrupted or self.failure is not None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to start now and nothing running that could bring more."""
        return not self._running and (self.is_draining or self.n_left == 0)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_left(self) -> int:
        """Trials that can still be started, as far as is known now."""
        sampler = self._config.sampler
        is_open = sampler.name != "grid" and not self._exhausted
        undrawn = max(0, (sampler.n_trials or 0) - len(self.records)) if is_open else 0
        return len(self._again) + len(self._waiting) + undrawn

    def interrupt(self) -> None:
        """Start nothing more. Running trials are to be stopped by the executor; they stay RUNNING, to be resumed."""
        self._interrupted = True

    def check_held(self) -> None:
        """Refuse to go on once another driver has taken the study over.

        Raises:
            StudyMismatchError: If so.
        """
        self._study.check_held()

    # -- the four calls --------------------------------------------------------------------------------------

    def next_trial(self, worker: dict[str, Any] | None = None) -> TrialSpec | None:
        """Take the next point to train; it is RUNNING in the study when this returns.

        Returns None where nothing is to be started now.
        """
        if self.is_draining:
            return None
        number = self._next_number()
        if number is None:
            return None
        return self._start(number, worker)

    def on_report(self, number: int, report: Report) -> list[Decision]:
        """Record one window and judge. Returns the decisions that stop a trial, of this one or of others."""
        running = self._running.get(number)
        if running is None or self.records[number].state.is_finished:
            return []
        verdict = self._take_in(running, report)
        if verdict is not None:
            return [verdict, *self._judge_again()]
        stops = []
        for rung in self._unjudged_rungs(running):
            stops += self._judge_at(number, rung)
        for rung in self._new_rungs(running):
            self._tell(EventKind.RUNG, f"reached rung {rung.rung}", record=self.records[number], rung=rung)
            stops += self._judge_at(number, rung)
            stops += self._judge_again()
        record = self.records[number]
        if not record.state.is_finished:
            if report.checkpoint is not None:
                self._record_checkpoint(running, report.checkpoint)
            elif self._clock() - running.flushed_at >= _FLUSH_S:
                self._flush(running)
            self._tell(EventKind.REPORTED, record=record)
        return stops

    def on_end(self, number: int, outcome: Outcome) -> list[Decision]:
        """Record how an attempt ended. Returns decisions on other trials that its last rows led to."""
        stops: list[Decision] = []
        if outcome.report is not None:
            stops = [stop for stop in self.on_report(number, outcome.report) if stop.trial != number]
        running = self._running.pop(number, None)
        if running is None:
            return stops
        record = self.records[number]
        if record.state.is_finished:  # stopped by a decision, which recorded everything
            self._checkpoints(number).clear()  # it may have saved one while it was being stopped
            return stops
        if outcome.kind is OutcomeKind.DONE:
            self._complete(running)
        elif outcome.kind is OutcomeKind.STOPPED:
            self._set_aside(running)
        elif outcome.cause is FailureCause.DISK_FULL:
            self._stop_without_room(running, outcome.error or "")
        elif outcome.cause is FailureCause.OUT_OF_MEMORY and self._halve(running, outcome):
            self._again.appendleft(number)
        else:
            self._fail(running, outcome.error or "unknown error", outcome.traceback)
        return [*stops, *self._judge_again()]

    def on_lost(self, number: int, reason: str) -> None:
        """Record that an attempt ended without a word: its process or node died."""
        running = self._running.pop(number, None)
        if running is None or self.records[number].state.is_finished:
            return
        # Ray ends a worker when the node's memory runs out. (Its words for any other kill name that as a possibility.)
        out_of_memory = "OutOfMemoryError" in reason or "low on memory" in reason
        outcome = Outcome(kind=OutcomeKind.FAILED, error=reason, device=HOST)
        if out_of_memory and self._halve(running, outcome):
            self._again.appendleft(number)
        else:
            self._fail(running, reason, None)

    def on_worker(self, number: int, worker: dict[str, Any]) -> None:
        """Record which process took a trial up, and that it starts now: the process may have had to start first."""
        running = self._running.get(number)
        if running is None or running.worker == worker:
            return
        record = self.records[number]
        running.worker = record.worker = worker
        running.started = utc_now()
        if record.attempts == 1:
            record.started = running.started
        self._record_attempt(running)

    def _carry_out_decisions(self) -> None:
        """Stop the trials whose stop was recorded, but not carried out before the driver died."""
        for number in list(self._again):
            record = self.records[number]
            if record.decisions and record.decisions[-1]["stop"]:
                self._again.remove(number)
                record.reason = str(record.decisions[-1]["reason"])
                self._study.finish(number, TrialState.PRUNED, reason=record.reason)
                record.state = TrialState.PRUNED
                self._checkpoints(number).clear()
                self._tell(EventKind.TRIAL_ENDED, f"pruned: {record.reason}", record=record)

    # -- starting --------------------------------------------------------------------------------------------

    def _next_number(self) -> int | None:
        if self._again:
            return self._again.popleft()
        if self._waiting:
            number = self._waiting[0]
            if isinstance(self._judge, LearningJudge):
                number = self._judge.next_of(tuple(self._waiting), self.records)
            self._waiting.remove(number)
            self._study.claim(number)
            return number
        return self._draw() if self.n_left > 0 else None

    def _draw(self) -> int | None:
        """Let the sampler draw until the point is a new one. Repeated points are recorded, not trained."""
        for _ in range(_DUPLICATE_DRAWS):
            number, point = self._study.draw(self._planned)
            known = self._known.get(point.point_id)
            record = TrialRecord(
                number=number, state=TrialState.RUNNING, params=dict(point.params), point_id=point.point_id,
                settings=point.settings, budget_samples=point.budget_samples, total_steps=point.total_steps,
            )  # fmt: skip
            self.records[number] = record
            if known is None:
                self._known[point.point_id] = number
                self._points[point.point_id] = point
                return number
            record.state, record.reason = TrialState.PRUNED, f"the same point as trial {known}: trained once"
            self._study.finish(number, TrialState.PRUNED, reason=record.reason)
            if self.n_left == 0:
                return None
        logger.warning("The sampler drew %d known points in a row; no new one is left.", _DUPLICATE_DRAWS)
        self._exhausted = True
        return None

    def _planned(self, params: dict[str, Any]) -> Point:
        return plan_point(self._config, params, facts=self._facts)

    def _point_of(self, record: TrialRecord) -> Point:
        if record.point_id not in self._points:
            point = self._planned(record.params)
            if not record.point_id:  # entered by other means than this package's
                self._study.set_point(record.number, point)
                record.point_id = point.point_id
                record.budget_samples, record.total_steps = point.budget_samples, point.total_steps
            self._points[point.point_id] = point
        return self._points[record.point_id]

    def _start(self, number: int, worker: dict[str, Any] | None) -> TrialSpec:
        record = self.records[number]
        point = self._point_of(record)
        record.settings = point.settings
        resources = self._config.resources
        rows, step = self._rows_to_go_on_from(number)
        spec = trial_spec(
            self._config, point, number=number, attempt=record.attempts + 1, trial_dir=str(self._trial_dir(number)),
            threads=resources.threads_per_trial or resources.cpus_per_trial,
        )  # fmt: skip
        spec = dataclasses.replace(
            spec, checkpoint_place=self._place(number), checkpoint_step=step,
            micro_batch_limits=self._micro_batches.by_device(),
        )  # fmt: skip
        running = _Running(
            point=point, rows=rows, monitor=self._monitor_of(number), metrics={}, spec=spec, worker=worker,
            started=utc_now(), flushed_at=self._clock(),
            earlier_train_s=record.train_s, earlier_evaluation_s=record.evaluation_s, unjudged=_unjudged(record),
        )  # fmt: skip
        running.monitor.check(rows)
        for rung in record.rungs.values():
            running.metrics.update({k: v for k, v in rung.signals.items() if k not in (LOSS, GRAD_NORM)})
        record.state = TrialState.RUNNING
        record.attempts += 1
        record.started = record.started or running.started
        record.worker = worker
        self._set_progress(record, rows)
        self._running[number] = running
        self._record_attempt(running)
        verb = "started" if record.attempts == 1 else f"attempt {record.attempts} started"
        place = f" from step {rows[-1].step}" if rows else ""
        self._tell(EventKind.TRIAL_STARTED, f"{verb}{place}", record=record)
        return spec

    def _rows_to_go_on_from(self, number: int) -> tuple[list[StepRow], int]:
        """Return the curve up to the checkpoint to go on from, and its step; cut what lies past it on disk.

        A checkpoint that is later than the curve was saved, but never heard of: going on from it would leave a hole.
        """
        try:
            rows = self._study.curves.rows(number)
        except SweeperError as error:
            self._study.curves.set_aside(number)
            self._tell(EventKind.NOTE, f"trial {number} starts anew: {error}", record=self.records[number])
            return [], 0
        if not rows:
            return [], 0
        steps = [saved.step for saved in self._checkpoints(number).saved() if saved.step <= rows[-1].step]
        last = max(steps, default=0)
        kept = [row for row in rows if row.step <= last]
        if len(kept) != len(rows):
            self._study.curves.write(number, kept)
        return kept, last

    def _trial_dir(self, number: int) -> Path:
        return self._study.directory / "trials" / str(number)

    def _place(self, number: int) -> str:
        url = self._config.trial.checkpoint.url
        return checkpoints_place(
            url, study=self._study.name, trial_dir=str(self._trial_dir(number)), number=number
        )

    def _checkpoints(self, number: int) -> Checkpoints:
        return open_checkpoints(self._place(number))

    # -- reporting -------------------------------------------------------------------------------------------

    def _take_in(self, running: _Running, report: Report) -> Decision | None:
        """Append a window to the trial's curve; return the decision that stops it where it diverged."""
        record = self.records[running.spec.number]
        last = running.rows[-1].step if running.rows else 0
        fresh = [row for row in report.rows if row.step > last]
        running.rows.extend(fresh)
        running.metrics.update(report.metrics)
        running.train_s, running.evaluation_s = report.train_s, report.evaluation_s
        self._set_progress(record, running.rows)
        record.train_s = running.earlier_train_s + report.train_s
        record.evaluation_s = running.earlier_evaluation_s + report.evaluation_s
        verdict = running.monitor.check(fresh)
        if verdict is None:
            return None
        decision = Decision(
            trial=record.number, stop=True, rule=verdict.rule, reason=verdict.reason, samples=record.samples
        )
        self._prune(running, decision)
        return decision

    @staticmethod
    def _set_progress(record: TrialRecord, rows: Sequence[StepRow]) -> None:
        if rows:
            last = rows[-1]
            record.step, record.samples, record.tokens = last.step, last.samples, last.tokens
            record.last_loss, record.last_grad_norm = last.loss, last.grad_norm
        else:
            record.step = record.samples = record.tokens = 0
            record.last_loss = record.last_grad_norm = None

    def _unjudged_rungs(self, running: _Running) -> list[RungRecord]:
        """Return the rungs where an earlier driver died between record and judgement; once."""
        found, running.unjudged = running.unjudged, []
        return found

    def _new_rungs(self, running: _Running) -> list[RungRecord]:
        """Record the rungs that the trial has reached and that were not recorded before."""
        record = self.records[running.spec.number]
        found = []
        for planned in running.point.rungs:
            if planned.index in record.rungs or not planned.is_reached(
                step=record.step, samples=record.samples
            ):
                continue
            at = next(
                index
                for index, row in enumerate(running.rows)
                if planned.is_reached(step=row.step, samples=row.samples)
            )
            row = running.rows[at]
            rung = RungRecord(
                rung=planned.index, mark=planned.mark, step=row.step, samples=row.samples,
                signals={
                    **windowed_signals(running.rows[: at + 1], window_steps=self._config.pruner.window_steps),
                    **running.metrics,
                },
            )  # fmt: skip
            record.rungs[planned.index] = rung
            self._study.record_rung(record.number, rung)
            found.append(rung)
        return found

    def _judge_at(self, number: int, rung: RungRecord) -> list[Decision]:
        """Judge the trial that came to a rung, and again all that stand there."""
        if self.records[number].state.is_finished:
            return []
        others = [n for n in self._running if n != number and self._stands_at(n, rung.rung)]
        stops = []
        for decision in self._judge.judge([number, *others], rung.rung, self.records):
            if decision.stop:
                self._prune(self._running[decision.trial], decision)
                stops.append(decision)
            elif decision.trial == number:
                self._record_decision(decision)
        return stops

    def _judge_again(self) -> list[Decision]:
        """Carry out what a judge that learns now thinks of all open trials; return the stops of running ones."""
        if not isinstance(self._judge, LearningJudge) or self.is_draining:
            return []
        stops = []
        for decision in self._judge.judge_again(self.records):
            running = self._running.get(decision.trial)
            if not decision.stop:
                self._record_decision(decision)
            elif running is not None:
                self._prune(running, decision)
                stops.append(decision)
            elif decision.trial in self._waiting:
                self._skip(decision)
        return stops

    def _skip(self, decision: Decision) -> None:
        """Stop a trial before its start."""
        record = self.records[decision.trial]
        self._waiting.remove(decision.trial)
        self._study.claim(decision.trial)
        self._record_decision(decision)
        record.reason = decision.reason
        self._study.finish(record.number, TrialState.PRUNED, reason=record.reason)
        record.state = TrialState.PRUNED
        self._tell(EventKind.DECIDED, f"not started: {decision.reason}", record=record, decision=decision)
        self._tell(EventKind.TRIAL_ENDED, f"pruned before its start: {decision.reason}", record=record)

    def _stands_at(self, number: int, rung: int) -> bool:
        record = self.records[number]
        return not record.state.is_finished and bool(record.rungs) and max(record.rungs) == rung

    def _record_decision(self, decision: Decision) -> None:
        record = self.records[decision.trial]
        self._study.record_decision(decision.trial, len(record.decisions), decision)
        record.decisions.append(
            {"rule": decision.rule, "stop": decision.stop, "reason": decision.reason, "rung": decision.rung,
             "samples": decision.samples, "details": dict(decision.details)}
        )  # fmt: skip
        if not decision.stop:
            self._tell(EventKind.DECIDED, f"goes on: {decision.reason}", record=record, decision=decision)

    # -- ending ----------------------------------------------------------------------------------------------

    def _prune(self, running: _Running, decision: Decision) -> None:
        """Record a stop before anyone acts on it: from here on the trial is PRUNED."""
        record = self.records[decision.trial]
        self._record_decision(decision)
        self._flush(running)
        record.reason = decision.reason
        self._end(running, TrialState.PRUNED, outcome="pruned")
        self._checkpoints(record.number).clear()
        self._retention.forget(record.number)
        self._tell(EventKind.DECIDED, f"stopped: {decision.reason}", record=record, decision=decision)
        self._tell(EventKind.TRIAL_ENDED, f"pruned: {decision.reason}", record=record)

    def _complete(self, running: _Running) -> None:
        record = self.records[running.spec.number]
        metric = self._config.metric
        if metric in (LOSS, GRAD_NORM):  # the training signal itself: its last window is the trial's result
            window = self._config.pruner.window_steps
            running.metrics = {**windowed_signals(running.rows, window_steps=window), **running.metrics}
        value = running.metrics.get(metric)
        record.metrics = dict(running.metrics)
        if value is None:
            reported = ", ".join(f"`{name}`" for name in running.metrics) or "no metric at all"
            self._fail(
                running,
                f"the trial never reported the study's metric `{metric}`; it reported {reported}",
                None,
            )
            return
        if not math.isfinite(value):
            decision = Decision(
                trial=record.number, stop=True, rule="nan", reason=f"diverged: the final `{metric}` is {value}",
                samples=record.samples,
            )  # fmt: skip
            self._prune(running, decision)
            return
        self._failed_in_row = 0
        record.value = value
        self._flush(running)
        self._end(running, TrialState.COMPLETE, outcome="complete")
        self._retention.after_end(record.number, self.records)
        self._tell(EventKind.TRIAL_ENDED, f"complete: {metric} {value:.4g}", record=record)

    def _set_aside(self, running: _Running) -> None:
        """Keep a trial that was interrupted as RUNNING, to be taken up again."""
        self._flush(running)
        self._record_attempt(running, outcome="interrupted")
        record = self.records[running.spec.number]
        self._tell(
            EventKind.NOTE, f"trial {record.number} set aside at {record.samples} samples", record=record
        )

    def _halve(self, running: _Running, outcome: Outcome) -> bool:
        """After an attempt that ran out of memory, plan the next one with half the micro-batch. False: impossible."""
        spec, record = running.spec.fitted(outcome.device or HOST), self.records[running.spec.number]
        if spec.micro_batch_size is None or spec.gradient_accumulation_steps is None:
            return False
        used = BatchPlan(
            micro_batch_size=spec.micro_batch_size,
            gradient_accumulation_steps=spec.gradient_accumulation_steps,
            data_parallel_size=1,
        )
        half = self._micro_batches.halve(used, outcome.device)
        if half is None:
            return False
        self._flush(running)
        failure = {
            "error": outcome.error,
            "traceback": outcome.traceback,
            "outcome": str(FailureCause.OUT_OF_MEMORY),
        }
        record.errors.append({**failure, "attempt": record.attempts})
        self._record_attempt(
            running, **failure, micro_batch_size=used.micro_batch_size, device=outcome.device
        )
        text = (
            f"Trial {record.number} ran out of memory ({outcome.device}) at micro_batch_size = "
            f"{used.micro_batch_size}. Going on with micro_batch_size = {half.micro_batch_size}, "
            f"gradient_accumulation_steps = {half.gradient_accumulation_steps}; "
            f"effective_batch_size = {half.effective_batch_size} is unchanged."
        )
        self._tell(EventKind.TRIAL_RETRIED, text, record=record)
        return True

    def _stop_without_room(self, running: _Running, error: str) -> None:
        """Stop the sweep: no trial could go on, and each would only be counted as failed."""
        self._set_aside(running)
        self.may_save = False
        self.failure = (
            f"The disk is full: trial {running.spec.number} could not write ({error}). Everything recorded so far is "
            "kept. Make room and go on with `sweeper resume`."
        )

    def _fail(self, running: _Running, error: str, traceback: str | None) -> None:
        record = self.records[running.spec.number]
        self._running.pop(record.number, None)
        self._flush(running)
        record.errors.append({"error": error, "traceback": traceback, "attempt": record.attempts})
        own = [failure for failure in record.errors if failure.get("outcome") != FailureCause.OUT_OF_MEMORY]
        if len(own) <= self._config.failures.retries:
            self._record_attempt(running, outcome="failed", error=error, traceback=traceback)
            self._again.append(record.number)
            self._tell(EventKind.TRIAL_RETRIED, f"failed, is tried again: {error}", record=record)
            return
        record.reason = error
        self._end(running, TrialState.FAIL, outcome="failed", error=error, traceback=traceback)
        self._retention.after_end(record.number, self.records)
        self._tell(EventKind.TRIAL_ENDED, f"failed: {error}", record=record)
        self._failed_in_row += 1
        if self._failed_in_row >= self._config.failures.max_consecutive:
            self.failure = (
                f"{self._failed_in_row} trials failed one after another, the last with: {error}. "
                "The study is kept; mend the cause and go on with `sweeper resume`."
            )

    def _end(self, running: _Running, state: TrialState, **attempt: Any) -> None:
        record = self.records[running.spec.number]
        self._record_attempt(running, **attempt)
        self._study.finish(
            record.number, state, value=record.value if state is TrialState.COMPLETE else None,
            metrics=record.metrics if state is TrialState.COMPLETE else None, reason=record.reason,
        )  # fmt: skip
        record.state = state

    # -- writing ---------------------------------------------------------------------------------------------

    def _flush(self, running: _Running) -> None:
        """Write the curve and the progress of a running trial."""
        number = running.spec.number
        self._study.curves.write(number, running.rows)
        self._study.record_progress(self.records[number])
        running.flushed_at = self._clock()

    def _record_checkpoint(self, running: _Running, name: str) -> None:
        # The curve first: a checkpoint whose earlier rows are not on disk would leave a hole after a crash.
        self._flush(running)
        self.records[running.spec.number].checkpoint = name
        self._study.record_checkpoint(running.spec.number, name)
        self._retention.after_save(running.spec.number, self.records)

    def _record_attempt(self, running: _Running, **outcome: Any) -> None:
        record = self.records[running.spec.number]
        facts: dict[str, Any] = {"worker": running.worker, "started": running.started, **outcome}
        if outcome:
            record.ended = utc_now()
            facts.update(ended=record.ended, train_s=running.train_s, evaluation_s=running.evaluation_s)
        self._study.record_attempt(record.number, running.spec.attempt, facts)

    def tell(self, kind: EventKind, message: str) -> None:
        """Tell the listeners something that concerns the whole sweep."""
        self._tell(kind, message)

    def _tell(self, kind: EventKind, message: str = "", **facts: Any) -> None:
        event = Event(kind=kind, at_s=self._clock() - self._started_at, message=message, **facts)
        for listener in self._listeners:
            listener.on_event(event)


def _unjudged(record: TrialRecord) -> list[RungRecord]:
    """Return the rungs past the last judgement, in order."""
    judged = {decision["rung"] for decision in record.decisions}
    return [record.rungs[index] for index in sorted(record.rungs) if index not in judged]
