"""How a trial ends: pruned, complete, set aside, tried again, failed."""

import math
from collections.abc import Mapping
from typing import Any

from sweeper.batch import BatchPlan
from sweeper.checkpoint import Retention
from sweeper.encoding import SET_ASIDE
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording
from sweeper.orchestrator.state import Running, SweepState
from sweeper.pruners.signals import windowed_signals
from sweeper.records import (
    GRAD_NORM,
    HOST,
    LOSS,
    Decision,
    EventKind,
    FailureCause,
    Outcome,
    OutcomeKind,
    TrialRecord,
    TrialState,
)
from sweeper.study.micro_batches import MicroBatchLimits


class Ending:
    """Ends trials, and attempts that are followed by another one."""

    def __init__(
        self,
        state: SweepState,
        *,
        recording: Recording,
        queue: TrialQueue,
        retention: Retention,
        micro_batches: MicroBatchLimits,
    ) -> None:
        self._state = state
        self._recording = recording
        self._queue = queue
        self._retention = retention
        self._micro_batches = micro_batches
        self._failed_in_row = 0
        self._unbegun_in_row = 0
        self._has_any_begun = False

    def carry_out_decisions(self) -> None:
        """Stop the trials whose stop was recorded, but not carried out before the driver died."""
        for number in (*self._queue.again, *self._queue.aside):
            record = self._state.records[number]
            if record.decisions and record.decisions[-1]["stop"]:
                (self._queue.aside if record.is_set_aside else self._queue.again).remove(number)
                self._state.checkpoints(number).clear()
                self._finish_pruned(record, str(record.decisions[-1]["reason"]))
                self._state.tell(EventKind.TRIAL_ENDED, f"pruned: {record.reason}", record=record)

    def end(self, running: Running, outcome: Outcome) -> None:
        """End an attempt of which its worker told how it ended."""
        if outcome.kind is OutcomeKind.DONE:
            self._complete(running, outcome)
        elif outcome.kind is OutcomeKind.STOPPED:
            self._keep(running)
        elif outcome.cause is FailureCause.DISK_FULL:
            self._stop_without_room(running, outcome.error or "")
        elif outcome.cause is FailureCause.OUT_OF_MEMORY and self._halve(running, outcome):
            self._queue.again.appendleft(running.spec.number)
        else:
            self._fail(running, outcome.error or "unknown error", outcome.traceback)

    def end_lost(self, running: Running, reason: str) -> None:
        """End an attempt whose process or node died."""
        if self._state.is_draining or running.told_aside:
            self._keep(running)  # it was to end anyway, and goes on from its newest checkpoint
            return
        # Ray ends a worker when the node's memory runs out. (Its words for any other kill name that as a possibility.)
        out_of_memory = "OutOfMemoryError" in reason or "low on memory" in reason
        outcome = Outcome(kind=OutcomeKind.FAILED, error=reason, device=HOST)
        if out_of_memory and self._halve(running, outcome):
            self._queue.again.appendleft(running.spec.number)
        else:
            self._fail(running, reason, None, is_lost=True)

    def end_unstarted(self, running: Running, reason: str, *, slots: int) -> None:
        """End an attempt whose worker did not come to train: that is no failure of the trial.

        The sweep is given up where that happens too often: at once where no worker came to train yet, else where each
        slot had as many tries as it takes to end a sweep by failures.
        """
        failures = self._state.config.failures
        self.end_unbegun(running, f"not begun, is given out again: {reason}")
        if self._state.is_draining:
            return
        self._unbegun_in_row += 1
        tries = failures.max_consecutive * (1 + failures.retries)
        if self._unbegun_in_row >= (tries * slots if self._has_any_begun else max(tries, slots + 1)):
            self._state.failure = (
                f"{self._unbegun_in_row} workers in a row did not come to train, the last one: {reason}. "
                "The study is kept; mend the cause and go on with `sweeper resume`."
            )

    def note_begun(self) -> None:
        """Take note that a worker has come to train a trial."""
        self._unbegun_in_row = 0
        self._has_any_begun = True

    def end_unbegun(self, running: Running, reason: str) -> None:
        """End an attempt that never began; the trial is the next one to be started."""
        record = self._state.records[running.spec.number]
        self._recording.attempt(running, outcome="not begun")
        self._queue.again.appendleft(record.number)
        self._state.tell(EventKind.NOTE, reason, record=record)

    def prune(self, running: Running, decision: Decision) -> None:
        """Record a stop before anyone acts on it: from here on the trial is PRUNED."""
        record = self._state.records[decision.trial]
        self._failed_in_row = 0
        self._recording.decision(decision)
        self._recording.flush(running)
        record.reason = decision.reason
        self._state.commit()
        # Before it is PRUNED: a driver that dies in between finds the decision, and comes by here again.
        self._state.checkpoints(record.number).clear()
        self._retention.forget(record.number)
        self._end(running, TrialState.PRUNED, outcome="pruned")
        self._state.tell(EventKind.DECIDED, f"stopped: {decision.reason}", record=record, decision=decision)
        self._state.tell(EventKind.TRIAL_ENDED, f"pruned: {decision.reason}", record=record)

    def skip(self, decision: Decision) -> None:
        """Stop a trial before its start; it waits no more."""
        record = self._state.records[decision.trial]
        self._state.study.claim(decision.trial)
        self._recording.decision(decision)
        self._finish_pruned(record, decision.reason)
        words = f"not started: {decision.reason}"
        self._state.tell(EventKind.DECIDED, words, record=record, decision=decision)
        words = f"pruned before its start: {decision.reason}"
        self._state.tell(EventKind.TRIAL_ENDED, words, record=record)

    def stop_aside(self, decision: Decision) -> None:
        """Stop a trial that was set aside, or stands between two attempts; it is not gone on with."""
        record = self._state.records[decision.trial]
        self._recording.decision(decision)
        record.is_set_aside = False
        self._finish_pruned(record, decision.reason)
        self._state.commit()
        self._state.checkpoints(record.number).clear()
        self._retention.forget(record.number)
        self._state.tell(EventKind.DECIDED, f"stopped: {decision.reason}", record=record, decision=decision)
        self._state.tell(EventKind.TRIAL_ENDED, f"pruned: {decision.reason}", record=record)

    def _finish_pruned(self, record: TrialRecord, reason: str) -> None:
        record.reason = reason
        self._state.study.finish(record.number, TrialState.PRUNED, reason=reason)
        record.state = TrialState.PRUNED
        self._state.records.note(record.number)

    def _complete(self, running: Running, outcome: Outcome) -> None:
        config = self._state.config
        record = self._state.records[running.spec.number]
        metric = config.metric
        if metric in (LOSS, GRAD_NORM):  # the training signal itself: its last window is the trial's result
            window = config.pruner.window_steps
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
            self.prune(running, decision)
            return
        self._failed_in_row = 0
        record.value = value
        self._recording.flush(running)
        micro_batch_size = outcome.micro_batch_size
        known = {} if micro_batch_size is None else {"micro_batch_size": micro_batch_size}
        self._end(running, TrialState.COMPLETE, outcome="complete", **known)
        self._state.commit()
        self._retention.after_end(record.number, self._state.records)
        self._state.tell(EventKind.TRIAL_ENDED, f"complete: {metric} {value:.4g}", record=record)

    def _keep(self, running: Running) -> None:
        """Keep a trial that was interrupted or set aside as RUNNING, to be taken up again."""
        record = self._state.records[running.spec.number]
        is_aside = bool(record.decisions and record.decisions[-1].get("aside"))
        if not is_aside and not running.told_aside and not self._state.is_draining:
            self._fail(
                running, "the trial ended as if it had been told to stop, but nobody had told it", None
            )
            return
        self._recording.flush(running)
        if not is_aside and not self._state.is_draining:
            # It was judged again before its worker had heard that it is set aside, and goes on.
            self._recording.attempt(running, outcome="interrupted")
            self._queue.again.append(record.number)
            words = (
                f"trial {record.number} ended at {record.samples} samples, to be set aside, and goes on now"
            )
            self._state.tell(EventKind.NOTE, words, record=record)
            return
        self._recording.attempt(running, outcome=SET_ASIDE if is_aside else "interrupted")
        if is_aside:
            record.is_set_aside = True
            self._state.records.note(record.number)
            self._queue.aside.append(record.number)
        words = (
            f"trial {record.number} {'set aside' if is_aside else 'interrupted'} at {record.samples} samples"
        )
        self._state.tell(EventKind.NOTE, words, record=record)

    def _halve(self, running: Running, outcome: Outcome) -> bool:
        """After an attempt that ran out of memory, plan the next one with half the micro-batch. False: impossible."""
        spec, record = running.spec.fitted(outcome.device or HOST), self._state.records[running.spec.number]
        if spec.micro_batch_size is None or spec.gradient_accumulation_steps is None:
            return False
        batch = BatchPlan(
            micro_batch_size=spec.micro_batch_size,
            gradient_accumulation_steps=spec.gradient_accumulation_steps,
            data_parallel_size=spec.data_parallel_size,
        )
        known = outcome.micro_batch_size or running.micro_batch_size
        used = batch.cut(known) if spec.is_auto and known is not None else batch.within(known)
        half = (
            used.cut(used.micro_batch_size // 2)
            if spec.is_auto and used.micro_batch_size > 1
            else used.halved()
        )
        if half is None:
            return False
        self._micro_batches.lower(half, outcome.device)
        self._recording.flush(running)
        failure = {
            "error": outcome.error,
            "traceback": outcome.traceback,
            "outcome": str(FailureCause.OUT_OF_MEMORY),
        }
        record.errors.append({**failure, "attempt": record.attempts})
        self._recording.attempt(
            running, **failure, micro_batch_size=used.micro_batch_size, device=outcome.device
        )
        text = (
            f"Trial {record.number} ran out of memory ({outcome.device}) at micro_batch_size = "
            f"{used.micro_batch_size}. Going on with micro_batch_size = {half.micro_batch_size}, "
            f"gradient_accumulation_steps = {half.gradient_accumulation_steps}; "
            f"effective_batch_size = {half.effective_batch_size} is unchanged."
        )
        self._state.tell(EventKind.TRIAL_RETRIED, text, record=record)
        return True

    def _stop_without_room(self, running: Running, error: str) -> None:
        """Stop the sweep: no trial could go on, and each would only be counted as failed."""
        where = f" on {running.worker['node']}" if running.worker else ""
        self._state.may_save = False
        self._state.failure = (
            f"The disk is full: trial {running.spec.number}{where} could not write ({error}). Everything recorded so "
            "far is kept. Make room and go on with `sweeper resume`."
        )
        self._keep(
            running
        )  # after the failure is known: the sweep ends, and nothing is held against the trial

    def _fail(self, running: Running, error: str, traceback: str | None, *, is_lost: bool = False) -> None:
        failures = self._state.config.failures
        record = self._state.records[running.spec.number]
        self._recording.flush(running)
        failure: dict[str, Any] = {"error": error, "traceback": traceback}
        if is_lost:
            failure |= {"lost": True, "checkpoint": record.checkpoint}
        record.errors.append({**failure, "attempt": record.attempts})
        if sum(_counts(one, record) for one in record.errors) <= failures.retries:
            self._recording.attempt(running, outcome="failed", **failure)
            self._queue.again.append(record.number)
            self._state.tell(EventKind.TRIAL_RETRIED, f"failed, is tried again: {error}", record=record)
            return
        record.reason = error
        self._end(running, TrialState.FAIL, outcome="failed", **failure)
        self._state.commit()
        self._retention.after_end(record.number, self._state.records)
        self._state.tell(EventKind.TRIAL_ENDED, f"failed: {error}", record=record)
        self._failed_in_row += 1
        if self._failed_in_row >= failures.max_consecutive:
            self._state.failure = (
                f"{self._failed_in_row} trials failed one after another, the last with: {error}. "
                "The study is kept; mend the cause and go on with `sweeper resume`."
            )

    def _end(self, running: Running, state: TrialState, **attempt: Any) -> None:
        record = self._state.records[running.spec.number]
        self._recording.attempt(running, **attempt)
        self._state.study.finish(
            record.number, state, value=record.value if state is TrialState.COMPLETE else None,
            metrics=record.metrics if state is TrialState.COMPLETE else None, reason=record.reason,
        )  # fmt: skip
        record.state = state
        self._state.records.note(record.number)


def _counts(failure: Mapping[str, Any], record: TrialRecord) -> bool:
    """Whether a failure counts against a trial's retries.

    Running out of memory does not, nor does a process or node that died before the trial's newest checkpoint was saved:
    a long trial on machines that come and go has many of these.
    """
    if failure.get("outcome") == FailureCause.OUT_OF_MEMORY:
        return False
    return not failure.get("lost") or failure.get("checkpoint") == record.checkpoint
