"""What is started next: trials taken up again, waiting ones, and new points of the sampler."""

import collections
import logging
from collections.abc import Sequence
from typing import Any

from sweeper.orchestrator.longest import TrialLengths
from sweeper.orchestrator.sharing import Sharing
from sweeper.orchestrator.state import SweepState
from sweeper.params import params_key
from sweeper.plan import Point, n_undrawn, plan_longer, plan_point
from sweeper.pruners.judge import Judge, LearningJudge
from sweeper.records import EventKind, Origin, TrialRecord, TrialState

logger = logging.getLogger(__name__)

_DUPLICATE_DRAWS = (
    20  # draws of points already known, one after another, before a sampler counts as exhausted
)


class TrialQueue:
    """The trials that are still to be started, in the order in which they will be."""

    def __init__(
        self, state: SweepState, judge: Judge, sharing: Sharing, *, longest_first: bool = False
    ) -> None:
        self._state = state
        self._judge = judge
        self._sharing = sharing
        self._facts = state.study.facts()
        records = state.records
        self._known: dict[str, int] = {}  # trials by point id, and by their params
        for number, record in records.items():
            self._note_known(number, record)
        for number in sorted(records):
            self._end_if_repeated(records[number])
        unfinished = [n for n in sorted(records) if not records[n].state.is_finished]
        begun = [n for n in unfinished if records[n].state is TrialState.RUNNING]
        # Trials that were cut off come first: their slots' work is half done, and their peers wait for them.
        self.again = collections.deque(n for n in begun if not records[n].is_set_aside)
        self.aside = [n for n in begun if records[n].is_set_aside]
        self.waiting = collections.deque(n for n in unfinished if records[n].state is TrialState.WAITING)
        self._has_told = False  # why a slot is free
        self._exhausted = False  # the sampler has no new point left
        self._lengths = TrialLengths() if longest_first else None
        if self._lengths is not None:
            for record in records.values():
                self._note_length(record)
            self._sort()

    @property
    def n_left(self) -> int:
        """Trials that can still be started, as far as is known now."""
        return len(self.again) + len(self.waiting) + len(self.aside) + self._n_undrawn

    @property
    def _n_undrawn(self) -> int:
        return 0 if self._exhausted else n_undrawn(self._state.config, self._state.records.values())

    def note_end(self, record: TrialRecord) -> None:
        """Take note of what a trial took that has ended just now."""
        if self._note_length(record):
            self._sort()

    def _note_length(self, record: TrialRecord) -> bool:
        has_ended = record.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.read_off is None
        return self._lengths is not None and has_ended and self._lengths.learn(record)

    def _sort(self) -> None:
        assert self._lengths is not None
        records = self._state.records
        planned = [number for number in self.waiting if records[number].origin is None]
        added = [number for number in self.waiting if records[number].origin is not None]
        self.waiting = collections.deque([*self._lengths.in_order(planned, records), *added])

    def add(self, point: Point, origin: Origin) -> TrialRecord:
        """Enter one more point, to be trained after those that wait already."""
        number = self._state.study.add_trial(point, origin)
        record = _record_of(point, number, TrialState.WAITING)
        record.origin = origin
        self._state.records[number] = record
        self._note_known(number, record)
        self._state.points[point.point_id] = point
        self.waiting.append(number)
        return record

    def _note_known(self, number: int, record: TrialRecord) -> None:
        """Take note of what a trial trains, under which its point is not trained again."""
        if record.point_id:
            self._known.setdefault(record.point_id, number)
        if record.params and not record.is_continued:
            self._known.setdefault(params_key(record.params), number)

    def _known_as(self, record: TrialRecord) -> int:
        """Return the first trial that trains the same."""
        by_params = None if record.is_continued else self._known.get(params_key(record.params))
        known = self._known.get(record.point_id, by_params)
        return record.number if known is None else known

    def _end_if_repeated(self, record: TrialRecord) -> None:
        """End a repeated draw whose driver died after it was entered. What somebody has asked for is none."""
        if record.state is TrialState.RUNNING and record.attempts == 0 and record.origin is None:
            known = self._known_as(record)
            if known < record.number:
                self._end_repeated(record, known)

    def _end_repeated(self, record: TrialRecord, known: int) -> None:
        record.state, record.reason = TrialState.PRUNED, f"the same point as trial {known}: trained once"
        self._state.records.note(record.number)
        self._state.study.finish(record.number, TrialState.PRUNED, reason=record.reason)

    def next_number(self) -> int | None:
        """Return the trial to start now, RUNNING in the study; None where there is none."""
        if self.again:
            return self.again.popleft()
        self._sharing.mark_held()
        records = self._state.records
        candidates = [*(number for number in self.waiting if not records[number].is_held), *self.aside]
        number = self._chosen(candidates)
        if number is None and self._n_undrawn > 0:
            drawn = self._draw()
            if drawn is not None:
                return drawn
        if number is None and candidates and not self._state.running:
            number = candidates[0]  # nothing could change the judge's mind, such as where a trial is kept
        if number is None:
            if candidates:
                self._tell_held_back(len(candidates))
            return None
        self._has_told = False
        if number in self.waiting:
            self.waiting.remove(number)
            self._state.study.claim(number)
        else:
            self.aside.remove(number)
        return number

    def _chosen(self, candidates: Sequence[int]) -> int | None:
        """Return which trial the judge wants to start; those that it does not compare come after all others."""
        records = self._state.records
        compared = [number for number in candidates if not records[number].is_continued]
        chosen = next(iter(compared), None)
        if compared and isinstance(self._judge, LearningJudge):
            chosen = self._judge.next_of(compared, records)
        if chosen is None:
            chosen = next((number for number in candidates if records[number].is_continued), None)
        return chosen

    def _tell_held_back(self, n: int) -> None:
        """Say, once while it is so, why a slot stays free though points are left."""
        if not self._has_told:
            self._has_told = True
            words = f"a slot stays free: the pruner lets {n} trials wait for what those in training show"
            self._state.tell(EventKind.NOTE, words)

    def point_of(self, record: TrialRecord) -> Point:
        """Return the point of a trial; it is recorded now where the trial was entered without one."""
        points = self._state.points
        if record.point_id not in points:
            point = self._planned(record.params)
            if record.origin is not None and record.origin.continues is not None:
                point = plan_longer(
                    self._state.config, record.params, samples=record.budget_samples or 0, facts=self._facts
                )
            if not record.point_id:  # entered by other means than this package's
                self._state.study.set_point(record.number, point)
                record.point_id = point.point_id
                record.budget_samples, record.total_steps = point.budget_samples, point.total_steps
            # Under its own id: resources that have changed since, or other code, would give it another one.
            points[record.point_id] = point
        return points[record.point_id]

    def _planned(self, params: dict[str, Any]) -> Point:
        return plan_point(self._state.config, params, facts=self._facts)

    def _draw(self) -> int | None:
        """Let the sampler draw until the point is a new one. Repeated points are recorded, not trained."""
        study = self._state.study
        for _ in range(_DUPLICATE_DRAWS):
            number, point = study.draw(self._planned)
            record = _record_of(point, number, TrialState.RUNNING)
            self._state.records[number] = record
            known = self._known_as(record)
            if known == number:
                self._note_known(number, record)
                self._state.points[point.point_id] = point
                return number
            self._end_repeated(record, known)
            if self._n_undrawn == 0:
                return None
        logger.warning("The sampler drew %d known points in a row; no new one is left.", _DUPLICATE_DRAWS)
        self._exhausted = True
        return None


def _record_of(point: Point, number: int, state: TrialState) -> TrialRecord:
    return TrialRecord(
        number=number, state=state, params=dict(point.params), point_id=point.point_id,
        settings=point.settings, budget_samples=point.budget_samples, total_steps=point.total_steps,
    )  # fmt: skip
