"""What is started next: trials taken up again, waiting ones, and new points of the sampler."""

import collections
import logging
from typing import Any

from sweeper.orchestrator.state import SweepState
from sweeper.plan import Point, plan_point
from sweeper.pruners.judge import Judge, LearningJudge
from sweeper.records import TrialRecord, TrialState

logger = logging.getLogger(__name__)

_DUPLICATE_DRAWS = (
    20  # draws of points already known, one after another, before a sampler counts as exhausted
)


class TrialQueue:
    """The trials that are still to be started, in the order in which they will be."""

    def __init__(self, state: SweepState, judge: Judge) -> None:
        self._state = state
        self._judge = judge
        self._facts = state.study.facts()
        records = state.records
        self._known = {record.point_id: number for number, record in records.items() if record.point_id}
        unfinished = [n for n in sorted(records) if not records[n].state.is_finished]
        begun = [n for n in unfinished if records[n].state is TrialState.RUNNING]
        # Trials that were cut off come first: their slots' work is half done, and their peers wait for them.
        self.again = collections.deque(n for n in begun if not records[n].is_set_aside)
        self.aside = [n for n in begun if records[n].is_set_aside]
        self.waiting = collections.deque(n for n in unfinished if records[n].state is TrialState.WAITING)
        self._exhausted = False  # the sampler has no new point left

    @property
    def n_left(self) -> int:
        """Trials that can still be started, as far as is known now."""
        sampler = self._state.config.sampler
        is_open = sampler.name != "grid" and not self._exhausted
        undrawn = max(0, (sampler.n_trials or 0) - len(self._state.records)) if is_open else 0
        return len(self.again) + len(self.waiting) + len(self.aside) + undrawn

    def next_number(self) -> int | None:
        """Return the trial to start now, RUNNING in the study; None where there is none."""
        if self.again:
            return self.again.popleft()
        candidates = (*self.waiting, *self.aside)
        if candidates:
            number: int | None = candidates[0]
            if isinstance(self._judge, LearningJudge):
                number = self._judge.next_of(candidates, self._state.records)
            if number is None:
                return None
            if number in self.waiting:
                self.waiting.remove(number)
                self._state.study.claim(number)
            else:
                self.aside.remove(number)
            return number
        return self._draw() if self.n_left > 0 else None

    def point_of(self, record: TrialRecord) -> Point:
        """Return the point of a trial; it is recorded now where the trial was entered without one."""
        points = self._state.points
        if record.point_id not in points:
            point = self._planned(record.params)
            if not record.point_id:  # entered by other means than this package's
                self._state.study.set_point(record.number, point)
                record.point_id = point.point_id
                record.budget_samples, record.total_steps = point.budget_samples, point.total_steps
            points[point.point_id] = point
        return points[record.point_id]

    def _planned(self, params: dict[str, Any]) -> Point:
        return plan_point(self._state.config, params, facts=self._facts)

    def _draw(self) -> int | None:
        """Let the sampler draw until the point is a new one. Repeated points are recorded, not trained."""
        study = self._state.study
        for _ in range(_DUPLICATE_DRAWS):
            number, point = study.draw(self._planned)
            known = self._known.get(point.point_id)
            record = TrialRecord(
                number=number, state=TrialState.RUNNING, params=dict(point.params), point_id=point.point_id,
                settings=point.settings, budget_samples=point.budget_samples, total_steps=point.total_steps,
            )  # fmt: skip
            self._state.records[number] = record
            if known is None:
                self._known[point.point_id] = number
                self._state.points[point.point_id] = point
                return number
            record.state, record.reason = TrialState.PRUNED, f"the same point as trial {known}: trained once"
            study.finish(number, TrialState.PRUNED, reason=record.reason)
            if self.n_left == 0:
                return None
        logger.warning("The sampler drew %d known points in a row; no new one is left.", _DUPLICATE_DRAWS)
        self._exhausted = True
        return None
