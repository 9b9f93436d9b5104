"""What is started next: trials taken up again, waiting ones, and new points of the sampler."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sweeper.errors import ConfigError
from sweeper.events import EventKind
from sweeper.orchestrator.longest import TrialLengths
from sweeper.orchestrator.sharing import Sharing
from sweeper.orchestrator.state import SweepState
from sweeper.params import params_key
from sweeper.plan import Point, n_undrawn, plan_longer, plan_point
from sweeper.pruners.judge import Judge, LearningJudge
from sweeper.records import Origin, TrialRecord, TrialState
from sweeper.study.failed import warm_start_of
from sweeper.study.interface import Drawn

_REPEATS = 5  # draws in vain, one after another, before a new point is looked for at random


class _Walked(Sequence[int]):
    """Numbers that are looked up only as far as somebody asks."""

    def __init__(self, walk: Callable[[], Iterator[int]]) -> None:
        self._walk = walk

    def __iter__(self) -> Iterator[int]:
        return self._walk()

    def __bool__(self) -> bool:
        return next(self._walk(), None) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self._walk())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            for number in itertools.islice(self._walk(), index, None):
                return number
        return list(self._walk())[index]


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
        self.has_drawn_last = False  # just now, and no new point came: the judge is to be asked again
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
        records = self._state.records
        return 0 if records.all_drawn else n_undrawn(self._state.config, records.values())

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
        keys = [record.point_id] if record.point_id else []
        if record.params and not record.is_continued:
            keys.append(params_key(record.params))
        for key in keys:
            if self._known_by(key) is None:
                self._known[key] = number

    def _known_by(self, key: str) -> int | None:
        """Return the first trial that trains what a key stands for, and that from scratch.

        Only now: that a trial begins with another one's weights is known once these are copied, after it was added.
        """
        records, number = self._state.records, self._known.get(key)
        is_own = number is not None and warm_start_of(records[number], records) is None
        return number if is_own else None

    def _known_as(self, record: TrialRecord) -> int:
        """Return the first trial that trains the same."""
        known = self._known_by(record.point_id)
        if known is None and not record.is_continued:
            known = self._known_by(params_key(record.params))
        return record.number if known is None else known

    def _end_if_repeated(self, record: TrialRecord) -> None:
        """End a repeated draw whose driver died after it was entered. What somebody has asked for is none."""
        if record.state is TrialState.RUNNING and record.attempts == 0 and record.origin is None:
            known = self._known_as(record)
            if known < record.number:
                self._end_repeated(record, known)

    def _end_repeated(self, record: TrialRecord, known: int) -> None:
        record.state, record.reason = TrialState.PRUNED, f"the same point as trial {known}: trained once"
        record.is_repeat = True
        self._state.records.note(record.number)
        self._state.study.finish(record.number, TrialState.PRUNED, reason=record.reason)

    def next_number(self) -> int | None:
        """Return the trial to start now, RUNNING in the study; None where there is none."""
        if self.again:
            return self.again.popleft()
        self._sharing.mark_held()
        number = self._chosen()
        if number is None and self._n_undrawn > 0:
            drawn = self._draw()
            self.has_drawn_last = drawn is None
            return drawn
        if number is None:
            candidates = list(self._candidates())
            if not candidates:
                return None
            if self._state.running:
                self._tell_held_back(len(candidates))
                return None
            number = candidates[0]  # nothing could change the judge's mind, such as where a trial is kept
        self._has_told = False
        if number in self.waiting:
            self.waiting.remove(number)
            self._state.study.claim(number)
        else:
            self.aside.remove(number)
        return number

    def put_back(self, record: TrialRecord) -> None:
        """Take a trial back that could not be started; it is RUNNING in the study, and the next one of its kind."""
        record.state = TrialState.RUNNING
        self._state.records.note(record.number)
        if record.is_set_aside:
            self.aside.insert(0, record.number)
        else:
            self.again.appendleft(record.number)

    def _candidates(self) -> Iterator[int]:
        """Yield the trials that may be started, in order. Thousands may wait, so look no further than needed."""
        records = self._state.records
        return itertools.chain((number for number in self.waiting if not records[number].is_held), self.aside)

    def _chosen(self) -> int | None:
        """Return which trial the judge wants to start; those that it does not compare come after all others."""
        records = self._state.records
        compared = _Walked(lambda: (n for n in self._candidates() if not records[n].is_continued))
        if compared and isinstance(self._judge, LearningJudge):
            chosen = self._judge.next_of(compared, records)
        else:
            chosen = next(iter(compared), None)
        if chosen is None:
            chosen = next((number for number in self._candidates() if records[number].is_continued), None)
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
        """Let the sampler draw until the point is a new one. What is drawn in vain is recorded, not trained.

        A sampler that learns may stick to one point, since a repeat teaches it nothing. So after some draws in vain the
        next point is looked for at random; where that finds no new one, none is left.
        """
        while self._n_undrawn > 0:
            is_searched = self._n_in_vain >= _REPEATS
            drawn = self._state.study.draw(self._planned, is_new=self._is_new if is_searched else None)
            if drawn.point is None:
                self._note_refused(drawn)
                continue
            record = _record_of(drawn.point, drawn.number, TrialState.RUNNING)
            self._state.records[drawn.number] = record
            known = self._known_as(record)
            if known == drawn.number:
                self._note_known(drawn.number, record)
                self._state.points[record.point_id] = drawn.point
                return drawn.number
            self._end_repeated(record, known)
            if is_searched:
                self._end_draws()
        return None

    @property
    def _n_in_vain(self) -> int:
        """Draws in vain since the last new point; from the records, so that a resumed sweep draws the same."""
        drawn = (record for record in reversed(self._state.records.values()) if record.origin is None)
        return sum(1 for _ in itertools.takewhile(lambda record: record.is_in_vain, drawn))

    def _is_new(self, params: dict[str, Any]) -> bool:
        if self._known_by(params_key(params)) is not None:
            return False
        try:
            return self._known_by(self._planned(params).point_id) is None
        except ConfigError:
            return True  # it is entered once, with the reason why it cannot be trained

    def _note_refused(self, drawn: Drawn) -> None:
        """Take note of a point that cannot be trained; the study holds it as FAIL."""
        record = TrialRecord(
            number=drawn.number, state=TrialState.FAIL, params=drawn.params, point_id="", reason=drawn.refused
        )
        self._state.records[drawn.number] = record
        self._note_known(drawn.number, record)
        self._state.tell(EventKind.TRIAL_ENDED, f"failed: {record.reason}", record=record)

    def _end_draws(self) -> None:
        self._state.study.record_exhausted()
        self._state.records.all_drawn = True
        text = "the sampler finds no new point any more: all that it could draw are in the study"
        self._state.tell(EventKind.NOTE, text)


def _record_of(point: Point, number: int, state: TrialState) -> TrialRecord:
    return TrialRecord(
        number=number, state=state, params=dict(point.params), point_id=point.point_id,
        settings=point.settings, budget_samples=point.budget_samples, total_steps=point.total_steps,
    )  # fmt: skip
