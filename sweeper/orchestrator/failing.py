"""What counts as a failure, and what follows: another attempt, half a micro-batch, the end of a trial or a sweep."""

from collections.abc import Mapping
from typing import Any

from sweeper.batch import BatchPlan
from sweeper.checkpoint import Retention
from sweeper.events import EventKind
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording
from sweeper.orchestrator.state import Running, SweepState
from sweeper.records import HOST, FailureCause, Outcome, TrialRecord, TrialState
from sweeper.study.failed import failures_left
from sweeper.study.micro_batches import MicroBatchLimits
from sweeper.trial_spec import TrialSpec


class Failing:
    """Carries out failures, and counts those that follow one another."""

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

    def note_end(self) -> None:
        """Take note that a trial has come to an end of its own: pruned or complete."""
        self._failed_in_row = 0

    def note_begun(self) -> None:
        """Take note that a worker has come to train a trial."""
        self._unbegun_in_row = 0
        self._has_any_begun = True

    def note_unbegun(self, reason: str, *, slots: int) -> None:
        """Take note that a worker did not come to train.

        The sweep is given up where that happens too often: at once where no worker came to train yet, else where each
        slot had as many tries as it takes to end a sweep by failures.
        """
        if self._state.is_draining:
            return
        failures = self._state.config.failures
        self._unbegun_in_row += 1
        tries = failures.max_consecutive * (1 + failures.retries)
        if self._unbegun_in_row >= (tries * slots if self._has_any_begun else max(tries, slots + 1)):
            self._state.failure = (
                f"{self._unbegun_in_row} workers in a row did not come to train, the last one: {reason}. "
                f"{self._how_to_go_on()}"
            )

    def give_up_without_room(self, running: Running, error: str) -> None:
        """Stop the sweep: no trial could go on, and each would only be counted as failed."""
        where = f" on {running.worker['node']}" if running.worker else ""
        self._state.may_save = False
        self._state.failure = (
            f"The disk is full: trial {running.spec.number}{where} could not write ({error}). Everything recorded so "
            "far is kept. Make room and go on with `sweeper resume`."
        )

    def give_up_on_data(self, running: Running, error: str) -> None:
        """Stop the sweep: the next trials would be trained on other rows than the ones before."""
        where = f" on {running.worker['node']}" if running.worker else ""
        self._state.failure = (
            f"The data has changed: trial {running.spec.number}{where} was not trained ({error}). Everything recorded "
            "so far is kept. With the data as it was, go on with `sweeper resume`."
        )

    def out_of_memory(self, running: Running, outcome: Outcome, *, is_lost: bool = False) -> None:
        """End an attempt that ran out of memory: the next one has half the micro-batch, where that is possible."""
        if self._halve(running, outcome):
            self._queue.again.appendleft(running.spec.number)
        else:
            batch = self._batch_of(running, outcome)
            error = outcome.error or "unknown error"
            if batch is not None and self._state.config.trial.function is None:
                error = _needs_less(batch, running.spec, outcome.device or HOST, error)
            self.fail(running, error, outcome.traceback, is_lost=is_lost)

    def fail(self, running: Running, error: str, traceback: str | None, *, is_lost: bool = False) -> None:
        """End an attempt that failed: the trial is tried again, or ends as FAIL; too many of these end the sweep.

        Args:
            running: The trial.
            error: One line.
            traceback: Of the trial's code.
            is_lost: Whether its process or node died, which says little about the trial.
        """
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
        self._recording.end(running, TrialState.FAIL, outcome="failed", **failure)
        self._state.commit()
        self._retention.after_end(record.number, self._state.records)
        self._state.tell(EventKind.TRIAL_ENDED, f"failed: {error}", record=record)
        self._failed_in_row += 1
        if self._failed_in_row >= failures.max_consecutive:
            self._state.failure = (
                f"{self._failed_in_row} trials failed one after another, the last with: {error.rstrip('.')}. "
                f"{self._how_to_go_on()}"
            )

    def _how_to_go_on(self) -> str:
        n_failed = len(failures_left(self._state.records.values()))
        again = f"; `--retry-failed` also trains the {n_failed} that failed once more" if n_failed else ""
        return f"The study is kept; mend the cause and go on with `sweeper resume`{again}."

    @staticmethod
    def _batch_of(running: Running, outcome: Outcome) -> BatchPlan | None:
        """Return how the batch was cut in an attempt; None where the trial's function cuts it."""
        spec = running.spec.fitted(outcome.device or HOST)
        batch = spec.batch
        if batch is None:
            return None
        known = outcome.micro_batch_size or running.micro_batch_size
        return batch.cut(known) if spec.is_auto and known is not None else batch.within(known)

    def _halve(self, running: Running, outcome: Outcome) -> bool:
        """Plan the next attempt with half the micro-batch, if that is possible."""
        record, used = self._state.records[running.spec.number], self._batch_of(running, outcome)
        if used is None:
            return False
        is_cut = running.spec.is_auto and used.micro_batch_size > 1
        half = used.cut(used.micro_batch_size // 2) if is_cut else used.halved()
        if half is None:
            return False
        self._micro_batches.lower(half, outcome.device, running.spec.settings)
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


def _needs_less(batch: BatchPlan, spec: TrialSpec, device: str, error: str) -> str:
    """Return an error of a trial that ran out of memory with as little as it can have, and what would need less."""
    settings = spec.settings
    method, checkpointing = settings["method"], settings["gradient_checkpointing"]
    less = {
        "fewer `resources.slots`": device == HOST,
        "another `micro_batch_size`": batch.micro_batch_size > 1,
        "`method: lora`": method == "full",
        "`method: qlora`": device != HOST and method != "qlora" and spec.sharding is None,
        "`gradient_checkpointing: true`": not checkpointing,
        "`resources.sharding: fsdp2` over several GPUs": (
            device != HOST and spec.sharding is None and method != "qlora"
        ),
    }
    ways = ", ".join(way for way, is_open in less.items() if is_open)
    return (
        f"out of memory ({device}) at micro_batch_size = {batch.micro_batch_size}, which cannot be halved. Less is "
        f"needed with {ways + ' or ' if ways else ''}a `max_length` below {settings['max_length']}. It said: {error}"
    )


def _counts(failure: Mapping[str, Any], record: TrialRecord) -> bool:
    """Whether a failure counts against a trial's retries.

    Running out of memory does not, nor does a process or node that died before the trial's newest checkpoint was saved:
    a long trial on machines that come and go has many of these.
    """
    if failure.get("outcome") == FailureCause.OUT_OF_MEMORY:
        return False
    return not failure.get("lost") or failure.get("checkpoint") == record.checkpoint
