"""One attempt of a trial: its spec, and the curve that it goes on from."""

import dataclasses
from collections.abc import Callable
from typing import Any

from sweeper.checkpoint import UnreachedError, inherit_checkpoint
from sweeper.errors import StudyMismatchError, named_line
from sweeper.events import EventKind
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording, set_progress
from sweeper.orchestrator.sharing import Sharing
from sweeper.orchestrator.state import Running, SweepState
from sweeper.plan import Point, trial_spec
from sweeper.pruners.divergence import DivergenceMonitor
from sweeper.records import GRAD_NORM, LOSS, RungRecord, StepRow, TrialRecord, TrialState
from sweeper.step_rows import StepRows
from sweeper.study.clock import utc_now
from sweeper.study.curves import DamagedCurveError
from sweeper.study.micro_batches import MicroBatchLimits
from sweeper.trial_spec import TrialSpec

_PATIENCE_S = 120.0  # as for a shared file system
_AGAIN_S = 5.0
# Between two tries, after which what could not be reached then is held against it no more: nothing was to be started
# meanwhile, for example since the sweep was paused.
_FORGOTTEN_S = 60.0


class Starting:
    """Starts attempts.

    Args:
        state: The sweep.
        recording: Who writes.
        queue: What is started next.
        micro_batches: What fits where, as far as is known.
        sharing: Which trials are beginnings of others.
        monitor_of: Makes the divergence monitor of a trial.
    """

    def __init__(
        self,
        state: SweepState,
        recording: Recording,
        queue: TrialQueue,
        micro_batches: MicroBatchLimits,
        sharing: Sharing,
        monitor_of: Callable[[int, Point], DivergenceMonitor],
    ) -> None:
        self._state = state
        self._recording = recording
        self._queue = queue
        self._micro_batches = micro_batches
        self._sharing = sharing
        self._monitor_of = monitor_of
        self._away_since: float | None = None  # since when what a trial goes on from cannot be reached
        self._tried_at = 0.0
        facts = state.study.facts()
        self._data_identities = {} if facts is None else dict(facts.sources)

    @property
    def may_start(self) -> bool:
        """Whether a trial may be started now, if there is one."""
        state, limit = self._state, self._state.max_concurrent
        if state.is_draining or state.is_paused or (limit is not None and len(state.running) >= limit):
            return False
        return self._away_since is None or state.clock() - self._tried_at >= _AGAIN_S

    def start(self, number: int, point: Point, worker: dict[str, Any] | None) -> TrialSpec | None:
        """Begin the next attempt of a trial that is RUNNING in the study.

        Returns None where it has to wait for what it goes on from; it is put back.

        Raises:
            UnreachedError: If that cannot be reached for long.
        """
        record = self._state.records[number]
        record.settings = point.settings
        if self._state.clock() - self._tried_at > _FORGOTTEN_S:
            self._away_since = None
        try:
            if record.attempts == 0:
                self.inherit(record)  # the driver that was to do so may have been killed
            rows, step = self._rows_to_go_on_from(number)
        except UnreachedError as error:
            self._bear(error, record)
            return None
        self._away_since = None
        now = self._state.clock()
        running = Running(
            point=point, rows=StepRows(rows), monitor=self._monitor_of(number, point), metrics={},
            spec=self._spec(record, point, checkpoint_step=step), worker=worker,
            started=utc_now(), n_written=len(rows), flushed_at=now, progress_at=now,
            earlier_train_s=record.train_s, earlier_evaluation_s=record.evaluation_s, unjudged=_unjudged(record),
        )  # fmt: skip
        running.monitor.go_on_from(rows)
        for rung in record.rungs.values():
            running.metrics.update({k: v for k, v in rung.signals.items() if k not in (LOSS, GRAD_NORM)})
        record.state = TrialState.RUNNING
        record.attempts += 1
        record.started = record.started or running.started
        record.worker = worker
        set_progress(record, rows)
        self._state.running[number] = running
        self._recording.attempt(running)
        verb = "started" if record.attempts == 1 else f"attempt {record.attempts} started"
        if record.is_set_aside:
            verb, record.is_set_aside = "goes on", False
        self._state.records.note(number)
        place = f" from step {rows[-1].step}" if rows else ""
        self._state.tell(EventKind.TRIAL_STARTED, f"{verb}{place}", record=record)
        return running.spec

    def _bear(self, error: UnreachedError, record: TrialRecord) -> None:
        """Let a trial wait for its checkpoints, while the others train on."""
        now = self._state.clock()
        if self._away_since is None:
            self._away_since = now
            words = f"trial {record.number} waits for its checkpoints: {named_line(error.__cause__ or error)}"
            self._state.tell(EventKind.NOTE, words, record=record)
        elif now - self._away_since > _PATIENCE_S:
            raise error
        self._tried_at = now
        self._queue.put_back(record)

    def refuse_without_checkpoint(self, number: int) -> None:
        """Refuse to let another trial begin where this one has nothing to begin with.

        Raises:
            StudyMismatchError: If so.
        """
        curve = self._state.study.curves.rows(number)
        last = curve[-1].step if curve else 0
        if not any(saved.step <= last for saved in self._state.checkpoints(number).saved()):
            raise StudyMismatchError(
                f"Trial {number} has no checkpoint to go on from. `trial.checkpoint.every_samples` and `at` say when "
                "checkpoints are saved, `keep_best` and `max_gb` whose are kept."
            )

    def inherit(self, record: TrialRecord) -> None:
        """Let a trial begin with the checkpoint and the curve of the one that it comes from."""
        state, origin = self._state, record.origin
        if origin is None or origin.source is None or origin.from_step:
            return
        rows = state.study.curves.rows(origin.source)
        place, newest = state.place(record.number), rows[-1].step if rows else 0
        saved = inherit_checkpoint(state.place(origin.source), place, newest_step=newest)
        if saved is None:
            words = f"trial {origin.source} has no checkpoint any more: trial {record.number} starts anew"
            state.tell(EventKind.NOTE, words, record=record)
            return
        kept = [row for row in rows if row.step <= saved.step]
        state.study.curves.write(record.number, kept)
        record.origin = dataclasses.replace(origin, from_step=saved.step, from_samples=saved.samples)
        state.study.record_origin(record.number, record.origin)

    def _spec(self, record: TrialRecord, point: Point, *, checkpoint_step: int) -> TrialSpec:
        config, number = self._state.config, record.number
        spec = trial_spec(
            config, point, number=number, attempt=record.attempts + 1,
            trial_dir=str(self._state.trial_dir(number)),
            threads=config.resources.threads_per_worker,
        )  # fmt: skip
        shorter = self._sharing.shorter(number)
        ends = {one.samples for one in shorter}
        return dataclasses.replace(
            spec, checkpoint_place=self._state.place(number), checkpoint_step=checkpoint_step,
            micro_batch_limits=self._micro_batches.by_device(point.settings),
            shorter=shorter, data_identities=self._data_identities,
            marks=tuple(sorted(ends.union(spec.marks))),
            evaluation_marks=tuple(sorted(ends.union(spec.evaluation_marks))),
            inherited_step=0 if record.origin is None else record.origin.from_step,
        )  # fmt: skip

    def _rows_to_go_on_from(self, number: int) -> tuple[list[StepRow], int]:
        """Return the curve up to the checkpoint to go on from, and its step; cut what lies past it on disk.

        A checkpoint that is later than the curve was saved, but never heard of: going on from it would leave a hole.
        """
        curves = self._state.study.curves
        try:
            rows = curves.rows(number)
        except DamagedCurveError as error:
            curves.set_aside(number)
            words = f"trial {number} starts anew: {error}"
            self._state.tell(EventKind.NOTE, words, record=self._state.records[number])
            return [], 0
        if not rows:
            return [], 0
        saved = self._state.checkpoints(number).saved()
        last = max((one.step for one in saved if one.step <= rows[-1].step), default=0)
        kept = [row for row in rows if row.step <= last]
        if len(kept) != len(rows):
            curves.write(number, kept)
        return kept, last


def _unjudged(record: TrialRecord) -> list[RungRecord]:
    """Return the rungs past the last judgement, in order."""
    judged = {decision["rung"] for decision in record.decisions}
    return [record.rungs[index] for index in sorted(record.rungs) if index not in judged]
