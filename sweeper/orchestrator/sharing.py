"""Trials that are beginnings of longer ones: they wait for those, and are read off them."""

import math

from sweeper.events import EventKind
from sweeper.orchestrator.recording import set_progress
from sweeper.orchestrator.state import Running, SweepState
from sweeper.params import params_key
from sweeper.plan import Point
from sweeper.records import Report, TrialRecord, TrialState
from sweeper.study.clock import utc_now
from sweeper.trial_spec import ShorterTrial


class Sharing:
    """Knows which trials are beginnings of which, by the plan.

    Args:
        state: The sweep.
    """

    def __init__(self, state: SweepState) -> None:
        self._state = state
        # By their params: paths or resources that have changed since give a point another id than its trial has.
        numbers = {params_key(r.params): number for number, r in state.records.items() if r.origin is None}
        self._group_of: dict[int, tuple[int, ...]] = {}  # trials of one training, the longest first
        self._points: dict[int, Point] = {}  # theirs
        for group in state.plan.same_training:
            keys = {params_key(state.points[point_id].params): state.points[point_id] for point_id in group}
            found = {numbers[key]: point for key, point in keys.items() if key in numbers}
            self._points |= found
            self._group_of.update(dict.fromkeys(found, tuple(found)))
        self._n_seen = 0  # how much of the log of changes has been looked at

    def mark_held(self, reported: int | None = None) -> None:
        """Note which trials wait for a longer one to come by: that one waits itself or has not come as far.

        Looks only where something has changed, so that a report costs the same in a study of any size.

        Args:
            reported: The trial that has just come further, which the log of changes does not tell.
        """
        changed = self._state.records.changed
        concerned = {self._group_of.get(number, ()) for number in changed[self._n_seen :]}
        concerned.add(self._group_of.get(reported, ()) if reported is not None else ())
        for group in concerned:
            for number in group:
                record = self._state.records[number]
                is_waiting = record.state is TrialState.WAITING
                is_held = is_waiting and any(self._may_pass(other, number) for other in group)
                if is_held != record.is_held:
                    record.is_held = is_held
                    self._state.records.note(number)
        self._n_seen = len(changed)

    def shorter(self, number: int) -> tuple[ShorterTrial, ...]:
        """Return the waiting trials that this one passes by on its way."""
        return tuple(
            ShorterTrial(samples=self._budget(other), trial_dir=str(self._state.trial_dir(other)))
            for other in reversed(self._group_of.get(number, ()))
            if self._is_shorter(other, number)
        )

    def passed(self, running: Running, report: Report) -> TrialRecord | None:
        """Return the waiting trial that ends where this report does, with everything that it ends with."""
        if not report.rows or self._state.config.metric not in report.metrics:
            return None
        last = report.rows[-1]
        for other in self._group_of.get(running.spec.number, ()):
            record = self._state.records[other]
            if self._is_shorter(other, running.spec.number) and last.samples == record.budget_samples:
                return record
        return None

    def read_off(self, record: TrialRecord, running: Running, report: Report) -> bool:
        """End a waiting trial with what a longer one shows now. False: that is no result."""
        study, source = self._state.study, self._state.records[running.spec.number]
        value = report.metrics[self._state.config.metric]
        if not math.isfinite(value):
            return False
        number = record.number
        study.claim(number)
        record.read_off, record.started = source.number, utc_now()
        record.ended = record.started
        study.record_read_off(number, source.number, at=record.started)
        rows = [row for row in running.rows if row.samples <= report.rows[-1].samples]
        study.curves.write(number, rows)
        set_progress(record, rows)
        study.record_progress(record)
        for planned in self._points[number].rungs:
            rung = source.rungs.get(planned.index)
            if rung is not None and rung.samples <= record.samples:
                record.rungs[planned.index] = rung
                study.record_rung(number, rung)
        record.value, record.metrics = value, dict(report.metrics)
        record.reason = f"read off trial {source.number}, of which it is the beginning"
        study.finish(number, TrialState.COMPLETE, value=value, metrics=record.metrics, reason=record.reason)
        record.state = TrialState.COMPLETE
        self._state.records.note(number)
        words = f"complete: {self._state.config.metric} {value:.4g}, {record.reason}"
        self._state.tell(EventKind.TRIAL_ENDED, words, record=record)
        return True

    def _may_pass(self, longer: int, number: int) -> bool:
        record = self._state.records[longer]
        budget = self._budget(number)
        return self._budget(longer) > budget and not record.state.is_finished and record.samples < budget

    def _is_shorter(self, other: int, number: int) -> bool:
        is_waiting = self._state.records[other].state is TrialState.WAITING
        return is_waiting and self._budget(other) < self._budget(number)

    def _budget(self, number: int) -> int:
        return self._state.records[number].budget_samples or 0
