"""What of a running trial is written to the study, and when."""

from collections.abc import Sequence
from typing import Any

from sweeper.events import EventKind
from sweeper.orchestrator.state import Running, SweepState
from sweeper.records import Decision, StepRow, TrialRecord, TrialState
from sweeper.study.clock import utc_now

_FLUSH_S = 2.0  # how old the curve of a running trial may be on disk
# Trials that are written in that time. Of more, each is written less often: a curve of 20,000 steps takes 4 ms and two
# syncs of the disk; at 10 ms each those of 64 trials took a third of the driver's time (2 cores, November 2026).
_FLUSHED_AT_A_TIME = 16
# Steps that are written in that time. A curve is written whole, so a longer one is written less often: with 200,000
# steps it takes 32 ms and 3.7 MB, which for 16 trials every 2 s were a quarter of the driver's time and 29 MB/s.
_FLUSHED_STEPS = 20_000
# Of all trials together, one's progress in this time. The journal keeps every one of them for good, and who opens the
# study reads them all, at 7 us each: 8 a second were 700,000 and 160 MB a day (2 cores, November 2026).
_PROGRESS_S = 1.0


class Recording:
    """Writes curves, progress, attempts and decisions; the record in memory follows what was written."""

    def __init__(self, state: SweepState) -> None:
        self._state = state

    def flush(self, running: Running) -> None:
        """Write the curve and the progress of a running trial."""
        self.curve(running)
        self.progress(running)

    def flush_when_due(self, running: Running) -> None:
        n_running, now = len(self._state.running), self._state.clock()
        rest_s = _FLUSH_S * max(1.0, n_running / _FLUSHED_AT_A_TIME)
        if now - running.flushed_at < rest_s * max(1.0, len(running.rows) / _FLUSHED_STEPS):
            return
        self.curve(running)
        if now - running.progress_at >= _PROGRESS_S * n_running:
            self.progress(running)

    def curve(self, running: Running) -> None:
        """Write the curve of a running trial, unless it lies on disk already."""
        # Most that end have just saved: at an interrupt of 500 trials each write counts, and a curve is half of one's.
        if len(running.rows) != running.n_written:
            self._state.study.curves.write(running.spec.number, running.rows)
            running.n_written = len(running.rows)
        running.flushed_at = self._state.clock()

    def progress(self, running: Running) -> None:
        """Write how far a running trial has come, and in what time."""
        self._state.study.record_progress(self._state.records[running.spec.number])
        running.progress_at = self._state.clock()

    def checkpoint(self, running: Running, name: str) -> None:
        # The curve first: a checkpoint whose earlier rows are not on disk would leave a hole after a crash.
        self.flush(running)
        self._state.records[running.spec.number].checkpoint = name
        self._state.study.record_checkpoint(running.spec.number, name)

    def taken_up(self, running: Running, worker: dict[str, Any]) -> None:
        """Write which process took a trial up, and that it starts now."""
        record = self._state.records[running.spec.number]
        running.worker = record.worker = worker
        running.started = utc_now()
        if record.attempts == 1:
            record.started = running.started
        self.attempt(running)

    def attempt(self, running: Running, **outcome: Any) -> None:
        """Write what is known of the attempt; with an outcome, it has ended now."""
        record = self._state.records[running.spec.number]
        facts: dict[str, Any] = {"worker": running.worker, "started": running.started, **outcome}
        if outcome:
            record.ended = utc_now()
            facts.update(ended=record.ended, train_s=running.train_s, evaluation_s=running.evaluation_s)
        self._state.study.record_attempt(record.number, running.spec.attempt, facts)

    def end(self, running: Running, state: TrialState, **attempt: Any) -> None:
        """Write that a trial has ended, and how its last attempt did."""
        record = self._state.records[running.spec.number]
        self.attempt(running, **attempt)
        self._state.study.finish(
            record.number, state, value=record.value if state is TrialState.COMPLETE else None,
            metrics=record.metrics if state is TrialState.COMPLETE else None, reason=record.reason,
        )  # fmt: skip
        record.state = state
        self._state.records.note(record.number)

    def decision(self, decision: Decision) -> None:
        record = self._state.records[decision.trial]
        entry = decision.entry() | _cost_of(record, decision)
        self._state.study.record_decision(decision.trial, len(record.decisions), entry)
        record.decisions.append(entry)
        self._state.records.note(record.number)
        if not decision.stop:
            words = f"{'set aside' if decision.aside else 'goes on'}: {decision.reason}"
            self._state.tell(EventKind.DECIDED, words, record=record, decision=decision)


def _cost_of(record: TrialRecord, decision: Decision) -> dict[str, Any]:
    """Return how long the trial has trained, in s, and how many samples it is spared where it is stopped."""
    spent: dict[str, Any] = {"train_s": round(record.train_s, 3)}
    if decision.stop and record.budget_samples is not None:
        spent["saved_samples"] = max(0, record.budget_samples - record.samples)
    return spent


def set_progress(record: TrialRecord, rows: Sequence[StepRow]) -> None:
    """Let a record stand where its curve ends."""
    if rows:
        last = rows[-1]
        record.step, record.samples, record.tokens = last.step, last.samples, last.tokens
        record.last_loss, record.last_grad_norm = last.loss, last.grad_norm
    else:
        record.step = record.samples = record.tokens = 0
        record.last_loss = record.last_grad_norm = None
