"""Who ran when: the attempts of all trials on the slots of the sweep. Pure."""

import bisect
import dataclasses
import math
from datetime import datetime
from typing import Any

from sweeper.encoding import SET_ASIDE
from sweeper.records import TrialRecord
from sweeper.reporting.formats import one_line, parse_time
from sweeper.study.view import StudyView

_SLACK_S = 1e-3  # records are rounded to milliseconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotUse:
    """When a slot was busy with one attempt of a trial. Times in seconds since the study's first start."""

    record: TrialRecord
    slot: str
    start_s: float
    end_s: float
    attempt: int = 1
    is_last: bool = True  # of the trial's attempts
    session: int = 0  # which driver's it was, counted from the first that the study has recorded
    error: str | None = None  # why the attempt failed
    is_set_aside: bool = False  # its slot went to another trial

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotGap:
    """When a slot had nothing to do between two attempts, or after its last one while others still ran.

    Time in which no driver ran is none.
    """

    slot: str
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Attempt:
    record: TrialRecord
    number: int
    is_last: bool
    worker: dict[str, Any]
    start: datetime
    end: datetime | None  # None: nobody recorded it
    error: str | None
    is_set_aside: bool


def slot_uses(view: StudyView) -> list[SlotUse]:
    """Return who ran when: on each node, an attempt takes its process's slot, else the first free one.

    An attempt whose end nobody recorded, since it still runs or its driver was killed, goes to the last time
    that the study has recorded before the trial's next attempt and the next driver: that of a start, an end, a
    decision or the driver's newest beat. Its slot is no other attempt's until then.
    """
    attempts = sorted(_attempts(view), key=lambda attempt: attempt.start)
    if not attempts:
        return []
    begin, times = attempts[0].start, _times(view, attempts)
    sessions = [parse_time(str(session["at"])) for session in view.environments if session.get("at")]
    drivers = sorted(at for at in sessions if at is not None)
    lanes: dict[str, list[tuple[Any, float]]] = {}  # by node: the process last seen and when it was free
    uses = []
    for attempt in attempts:
        start = (attempt.start - begin).total_seconds()
        latest = None if attempt.end is not None else _latest_end(attempt, attempts, drivers)
        end = max(start, (_end_of(attempt, latest, times) - begin).total_seconds())
        node = one_line(str(attempt.worker.get("node", "unknown node")))
        pid = attempt.worker.get("pid")
        lane = _free_lane(lanes.setdefault(node, []), pid, start)
        if attempt.end is not None:
            lanes[node][lane] = (pid, end)
        else:
            lanes[node][lane] = (pid, math.inf if latest is None else (latest - begin).total_seconds())
        uses.append(
            SlotUse(
                record=attempt.record, slot=f"{node}, slot {lane + 1}", start_s=start, end_s=end,
                attempt=attempt.number, is_last=attempt.is_last, error=attempt.error,
                is_set_aside=attempt.is_set_aside, session=bisect.bisect_right(drivers, attempt.start),
            )
        )  # fmt: skip
    return uses


def idle_gaps(uses: list[SlotUse]) -> list[SlotGap]:
    """Return when slots had nothing to do: under each driver, from a slot's first attempt to the last one's end."""
    by_session: dict[int, list[SlotUse]] = {}
    for use in uses:
        by_session.setdefault(use.session, []).append(use)
    return [gap for session in sorted(by_session) for gap in _gaps_of(by_session[session])]


def _gaps_of(uses: list[SlotUse]) -> list[SlotGap]:
    """Return the gaps under one driver."""
    whole = max((use.end_s for use in uses), default=0.0)
    free_from: dict[str, float] = {}
    gaps = []
    for use in sorted(uses, key=lambda use: use.start_s):
        until = free_from.get(use.slot)
        if until is not None and use.start_s > until + _SLACK_S:
            gaps.append(SlotGap(slot=use.slot, start_s=until, end_s=use.start_s))
        free_from[use.slot] = max(use.end_s, until or 0.0)
    gaps += [SlotGap(slot=s, start_s=t, end_s=whole) for s, t in free_from.items() if whole > t + _SLACK_S]
    return gaps


def _attempts(view: StudyView) -> list[_Attempt]:
    found = []
    for record in view.records:
        if record.read_off is not None:
            continue  # no slot has trained it
        history = record.history or [
            {"worker": record.worker, "started": record.started, "ended": record.ended}
        ]
        for number, facts in enumerate(history, start=1):
            start = parse_time(facts.get("started"))
            if start is not None:
                found.append(
                    _Attempt(
                        record=record, number=number, is_last=number == len(history),
                        worker=facts.get("worker") or {}, start=start, end=parse_time(facts.get("ended")),
                        error=facts.get("error"), is_set_aside=facts.get("outcome") == SET_ASIDE,
                    )
                )  # fmt: skip
    return found


def _times(view: StudyView, attempts: list[_Attempt]) -> list[datetime]:
    """Return when something was recorded while a driver ran, in order."""
    told = [decision.get("at") for record in view.records for decision in record.decisions]
    told.append(None if view.driver is None else view.driver.last_beat)
    known = [time for attempt in attempts for time in (attempt.start, attempt.end)]
    return sorted(time for time in (*known, *map(parse_time, told)) if time is not None)


def _latest_end(attempt: _Attempt, attempts: list[_Attempt], drivers: list[datetime]) -> datetime | None:
    """Return before when an attempt without a recorded end has ended; None where it may still run."""
    number = attempt.record.number
    after = drivers[bisect.bisect_right(drivers, attempt.start) :][:1]
    if not attempt.is_last:
        after.append(
            min(a.start for a in attempts if a.record.number == number and a.number > attempt.number)
        )
    return min(after, default=None)


def _end_of(attempt: _Attempt, latest: datetime | None, times: list[datetime]) -> datetime:
    if attempt.end is not None:
        return attempt.end
    return times[-1] if latest is None else times[max(0, bisect.bisect_left(times, latest) - 1)]


def _free_lane(lanes: list[tuple[Any, float]], pid: Any, start: float) -> int:
    """Return the lane for a process that starts then, a new one where none is free."""
    free = [lane for lane, (_, until) in enumerate(lanes) if until <= start + _SLACK_S]
    own = [lane for lane in free if lanes[lane][0] == pid]
    if own or free:
        return (own or free)[0]
    lanes.append((pid, start))
    return len(lanes) - 1
