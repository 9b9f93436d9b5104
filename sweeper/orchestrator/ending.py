"""How a trial ends, and an attempt that is followed by another one: pruned, complete, interrupted, set aside."""

import dataclasses
import math
from collections.abc import Sequence

from sweeper.checkpoint import Retention
from sweeper.encoding import SET_ASIDE
from sweeper.events import EventKind
from sweeper.orchestrator.failing import Failing
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording
from sweeper.orchestrator.state import Running, SweepState
from sweeper.pruners.signals import windowed_signals
from sweeper.records import (
    GRAD_NORM,
    HOST,
    LOSS,
    Decision,
    FailureCause,
    Outcome,
    OutcomeKind,
    TrialRecord,
    TrialState,
)


class Ending:
    """Ends trials, and attempts that are followed by another one."""

    def __init__(
        self,
        state: SweepState,
        *,
        recording: Recording,
        queue: TrialQueue,
        retention: Retention,
        failing: Failing,
    ) -> None:
        self._state = state
        self._recording = recording
        self._queue = queue
        self._retention = retention
        self._failing = failing

    def carry_out_decisions(self) -> None:
        """Stop the trials whose stop was recorded, but not carried out before the driver died."""
        for number in (*self._queue.again, *self._queue.aside):
            record = self._state.records[number]
            if record.decisions and record.decisions[-1]["stop"]:
                (self._queue.aside if record.is_set_aside else self._queue.again).remove(number)
                self._state.checkpoints(number).clear()
                self._finish_pruned(record, str(record.decisions[-1]["reason"]))
                self._state.tell(EventKind.TRIAL_ENDED, f"pruned: {record.reason}", record=record)

    def clear_stopped(self) -> None:
        """Remove what is left of stopped trials: the driver died before a worker that it had stopped was gone."""
        stopped = [
            record.number
            for record in self._state.records.values()
            if record.state is TrialState.PRUNED and (record.attempts or _is_inherited(record))
        ]
        for number in self._state.with_checkpoints(stopped) if stopped else ():
            self._state.checkpoints(number).clear()

    def end(self, running: Running, outcome: Outcome) -> None:
        """End an attempt of which its worker told how it ended."""
        if outcome.kind is OutcomeKind.DONE:
            self._complete(running, outcome)
        elif outcome.kind is OutcomeKind.STOPPED:
            self._keep(running)
        elif outcome.cause is FailureCause.DISK_FULL:
            self._failing.give_up_without_room(running, outcome.error or "")
            self._keep(running)  # the sweep ends now: nothing is held against the trial
        elif outcome.cause is FailureCause.DATA_CHANGED:
            self._failing.give_up_on_data(running, outcome.error or "")
            self._keep(running)
        elif outcome.cause is FailureCause.OUT_OF_MEMORY:
            self._failing.out_of_memory(running, outcome)
        else:
            self._failing.fail(running, outcome.error or "unknown error", outcome.traceback)

    def end_lost(self, running: Running, reason: str) -> None:
        """End an attempt whose process or node died."""
        if self._state.is_draining or running.told_aside:
            self._keep(running)  # it was to end anyway, and goes on from its newest checkpoint
            return
        # Ray ends a worker when the node's memory runs out. (Its words for any other kill name that as a possibility.)
        out_of_memory = "OutOfMemoryError" in reason or "low on memory" in reason
        if out_of_memory:
            outcome = Outcome(kind=OutcomeKind.FAILED, error=reason, device=HOST)
            self._failing.out_of_memory(running, outcome, is_lost=True)
        else:
            self._failing.fail(running, reason, None, is_lost=True)

    def end_unstarted(self, running: Running, reason: str, *, slots: int) -> None:
        """End an attempt whose worker did not come to train: that is no failure of the trial."""
        self.end_unbegun(running, f"not begun, is given out again: {reason}")
        self._failing.note_unbegun(reason, slots=slots)

    def end_unbegun(self, running: Running, reason: str) -> None:
        """End an attempt that never began; the trial is the next one to be started."""
        record = self._state.records[running.spec.number]
        self._recording.attempt(running, outcome="not begun")
        self._queue.again.appendleft(record.number)
        self._state.tell(EventKind.NOTE, reason, record=record)

    def prune(self, running: Running, decision: Decision) -> None:
        """Record a stop before anyone acts on it: from here on the trial is PRUNED."""
        self._decide(running, decision)
        self._recording.curve(running)
        self._state.commit()
        self._end_pruned(running)

    def prune_all(self, stops: Sequence[tuple[Running, Decision]]) -> None:
        """Record stops of running trials; all of these are told before the first of them is ended.

        That takes tens of milliseconds each, for the curve and the checkpoints, while the others would train on.
        """
        for running, decision in stops:
            self._decide(running, decision)
        self._state.commit()
        for running, _ in stops:
            self._recording.curve(running)
            self._end_pruned(running)

    def _decide(self, running: Running, decision: Decision) -> None:
        """Record a stop, and how far the trial came: if the driver dies now, this is what the next one knows of it.

        Executors hear of it with the next commit.
        """
        record = self._state.records[decision.trial]
        self._failing.note_end()
        self._recording.decision(decision)
        self._recording.progress(running)
        record.reason = decision.reason
        self._state.tell(EventKind.DECIDED, f"stopped: {decision.reason}", record=record, decision=decision)

    def _end_pruned(self, running: Running) -> None:
        record = self._state.records[running.spec.number]
        # Before it is PRUNED: a driver that dies in between finds the decision, and comes by here again.
        self._state.checkpoints(record.number).clear()
        self._retention.forget(record.number)
        self._recording.end(running, TrialState.PRUNED, outcome="pruned")
        self._state.tell(EventKind.TRIAL_ENDED, f"pruned: {record.reason}", record=record)

    def if_room(self, decision: Decision) -> Decision:
        """Return a decision that sets a trial aside, or one that lets it go on where its checkpoint has no room.

        In `mode: probe` all wait, whatever that takes.
        """
        others = (running for n, running in self._state.running.items() if n != decision.trial)
        n_told = sum(running.told_aside for running in others)
        is_probe = self._state.config.pruner.mode == "probe"
        if is_probe or self._retention.may_wait(decision.trial, self._state.records, n_told=n_told):
            return decision
        why = "not set aside, since `trial.checkpoint.max_gb` leaves no room for what one more would keep"
        return dataclasses.replace(decision, aside=False, reason=f"{why}; {decision.reason}")

    def skip(self, decision: Decision) -> None:
        """Stop a trial before its start; it waits no more."""
        record = self._state.records[decision.trial]
        self._state.study.skip(decision.trial)
        self._recording.decision(decision)
        if _is_inherited(record):
            self._state.commit()
            self._state.checkpoints(record.number).clear()  # what it was to begin with
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
        self._state.commit()
        # Before it is PRUNED, as in `prune`.
        self._state.checkpoints(record.number).clear()
        self._retention.forget(record.number)
        self._finish_pruned(record, decision.reason)
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
            how = "" if config.trial.function is None else "; pass it to `context.report`, or return it"
            reported = ", ".join(f"`{name}`" for name in running.metrics) or f"no metric at all{how}"
            self._failing.fail(
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
        self._failing.note_end()
        record.value = value
        self._recording.flush(running)
        micro_batch_size = outcome.micro_batch_size
        known = {} if micro_batch_size is None else {"micro_batch_size": micro_batch_size}
        self._recording.end(running, TrialState.COMPLETE, outcome="complete", **known)
        self._state.commit()
        self._retention.after_end(record.number, self._state.records)
        self._state.tell(EventKind.TRIAL_ENDED, f"complete: {metric} {value:.4g}", record=record)
        if config.trusts_function_with_budget and record.is_off_budget:
            words = (
                f"trial {record.number} reported {record.samples:,} samples, but its budget is "
                f"{record.budget_samples:,}: results at unequal data do not compare. Let the function keep to "
                "`context.budget_samples`, or write `compare: unequal` in `trial`."
            )
            self._state.tell(EventKind.NOTE, words, record=record)

    def _keep(self, running: Running) -> None:
        """Keep a trial that was interrupted or set aside as RUNNING, to be taken up again."""
        record = self._state.records[running.spec.number]
        # Told in this attempt: the decision that an earlier one was set aside by stays the newest for long.
        is_aside = running.told_aside and bool(record.decisions[-1].get("aside"))
        if not running.told_aside and not self._state.is_draining:
            self._failing.fail(
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


def _is_inherited(record: TrialRecord) -> bool:
    """Whether a trial begins with another one's checkpoint."""
    return record.origin is not None and record.origin.source is not None
