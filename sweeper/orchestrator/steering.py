"""Requests from outside: read from the study, checked, acted on, answered."""

from collections.abc import Callable, Sequence

from sweeper.control.check import MAX_CONCURRENT, check_request
from sweeper.errors import StudyMismatchError, SweeperError
from sweeper.events import EventKind
from sweeper.orchestrator.ending import Ending
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.starting import Starting
from sweeper.orchestrator.state import SweepState
from sweeper.plan import Point
from sweeper.records import Decision, Origin
from sweeper.room import trials_in_words
from sweeper.study.clock import utc_now
from sweeper.study.control_records import ControlOutcome, ControlRequest, Verb, limit_of
from sweeper.study.failed import trials_of

USER_RULE = "user"  # of a decision that a person took
_POLL_S = 0.5  # between two looks; a look at a journal takes 0.05 ms on the 2-core machine of November 2026


class Steering:
    """Acts on the requests to a study. What they set lasts: it is read again from their answers.

    Args:
        state: The sweep.
        queue: What is started next.
        ending: Who stops trials.
        starting: Who lets a trial begin with another's checkpoint.
    """

    def __init__(self, state: SweepState, *, queue: TrialQueue, ending: Ending, starting: Starting) -> None:
        self._state = state
        self._queue = queue
        self._ending = ending
        self._starting = starting
        self._looked_at = state.clock()
        self._n_answers = 0
        self._capacity: Callable[[], int] | None = None  # trials that the machines hold; None: no bound
        self._verbs: dict[Verb, Callable[[ControlRequest], tuple[str, list[Decision]]]] = {
            Verb.STOP: self._stop,
            Verb.STOP_ALL: self._stop_all,
            Verb.KEEP: self._keep,
            Verb.PAUSE: self._pause,
            Verb.UNPAUSE: self._unpause,
            Verb.SET: self._set,
        }
        self._restore()

    def poll(self, verbs: Sequence[Verb] = tuple(Verb)) -> list[Decision]:
        """Look whether something was asked for, if the last look is old enough, and act on it.

        Args:
            verbs: What is acted on now.

        Returns:
            The decisions that stop a running trial, for the executor to carry out.
        """
        now = self._state.clock()
        if now - self._looked_at < _POLL_S:
            return []
        self._looked_at = now
        self._end_in_time()
        return self.act(verbs)

    def _end_in_time(self) -> None:
        limit_s = self._state.config.resources.time_budget_s
        if limit_s is None or self._state.is_draining or self._state.elapsed_s < limit_s:
            return
        self._state.is_interrupted = self._state.is_out_of_time = True
        self._state.tell(
            EventKind.NOTE, f"the sweep ends: `resources.time_budget_s` of {limit_s:g} s is over"
        )

    def act(self, verbs: Sequence[Verb] = tuple(Verb)) -> list[Decision]:
        """Act on everything that was asked for and has no answer yet."""
        stops: list[Decision] = []
        for request in self._state.study.control_box.pending():
            if request.verb in verbs:
                stops += self._meet(request)
        return stops

    def set_capacity(self, capacity: Callable[[], int]) -> None:
        """Say how many trials the machines hold; whoever watches is told of a limit that was set before."""
        self._capacity = capacity
        limit = self._state.max_concurrent
        if limit is not None:
            room = capacity()
            fits = "" if limit <= room else f", of which there is room for {room}"
            self._state.tell(
                EventKind.NOTE,
                f"{_at_most(limit)}{fits}, as was set by `{MAX_CONCURRENT}`; "
                f"`sweeper set STUDY {MAX_CONCURRENT}=none` lifts that",
            )

    def _restore(self) -> None:
        """Take up what earlier requests have set, what was asked for while no driver ran, and while this one began."""
        box = self._state.study.control_box
        for event in box.events():
            request, outcome = event.request, event.outcome
            if outcome is not None:
                self._n_answers = max(self._n_answers, outcome.order + 1)
                if outcome.is_done:
                    self._remember(request)
            elif request.verb is Verb.STOP_ALL and box.is_earlier(request):
                self._answer(request, "the sweep had ended before it could be stopped", is_done=False)
        self.act()
        if self._state.is_paused:
            self._state.tell(
                EventKind.NOTE,
                "the sweep is paused: no trial is started until `sweeper pause --off` is given",
            )

    def _remember(self, request: ControlRequest) -> None:
        if request.verb in (Verb.PAUSE, Verb.UNPAUSE):
            self._state.is_paused = request.verb is Verb.PAUSE
        elif request.verb is Verb.SET:
            self._state.max_concurrent = limit_of(request)
        elif request.verb is Verb.KEEP and request.trial is not None:
            self._state.kept[request.trial] = request.by

    def _meet(self, request: ControlRequest) -> list[Decision]:
        if self._was_met(request):
            return []
        state = self._state
        try:
            point = check_request(
                request, config=state.config, facts=state.study.facts(), records=state.records
            )
            if point is not None:
                trial, message = self._add(request, point)
                return self._answer(request, message, trial=trial)
            message, stops = self._verbs[request.verb](request)
        except SweeperError as error:
            return self._answer(request, str(error), is_done=False)
        self._answer(request, message)
        return stops

    def _was_met(self, request: ControlRequest) -> bool:
        """Answer a request that an earlier driver acted on, but died before it had answered."""
        for record in self._state.records.values():
            if record.origin is not None and record.origin.request == request.id:
                self._answer(request, f"trial {record.number} was added", trial=record.number)
                return True
            if record.number == request.trial and request.verb is Verb.STOP and record.state.is_finished:
                last = record.decisions[-1] if record.decisions else {}
                if (last.get("details") or {}).get("request") == request.id:
                    self._answer(request, f"trial {record.number} is PRUNED: {record.reason}")
                    return True
        return False

    def _answer(
        self, request: ControlRequest, message: str, *, is_done: bool = True, trial: int | None = None
    ) -> list[Decision]:
        outcome = ControlOutcome(
            order=self._n_answers, is_done=is_done, message=message, at=utc_now(), trial=trial
        )
        self._n_answers += 1
        self._state.study.check_held()
        self._state.study.control_box.answer(request, outcome)
        if is_done:
            self._remember(request)
        words = f"{request.by} asked for `{request.text}`: {'' if is_done else 'refused, '}{message}"
        self._state.tell(EventKind.NOTE, words)
        return []

    # -- the verbs -------------------------------------------------------------------------------------------

    def _stop(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        record = self._state.records[request.trial or 0]
        decision = Decision(
            trial=record.number, stop=True, rule=USER_RULE, reason=f"stopped by {request.by}",
            samples=record.samples, details={"request": request.id, "pid": request.pid, "at": request.at},
        )  # fmt: skip
        running = self._state.running.get(record.number)
        if running is not None:
            self._ending.prune(running, decision)
        elif record.number in self._queue.waiting:
            self._queue.waiting.remove(record.number)
            self._ending.skip(decision)
        else:  # between two attempts, or set aside
            for waiting in (self._queue.again, self._queue.aside):
                if record.number in waiting:
                    waiting.remove(record.number)
            self._ending.stop_aside(decision)
        stops = [decision] if running is not None else []
        return f"trial {record.number} is PRUNED: {decision.reason}", stops

    def _stop_all(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        self._state.is_interrupted = True
        return "the sweep ends; `sweeper resume` goes on with it", []

    def _keep(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        return f"the pruner stops trial {request.trial} no more", []

    def _pause(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        n_running = len(self._state.running)
        going_on = "1 running one goes" if n_running == 1 else f"{n_running} running ones go"
        return f"no trial is started any more; {going_on} on to the end", []

    def _unpause(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        return "trials are started again", []

    def _set(self, request: ControlRequest) -> tuple[str, list[Decision]]:
        value = limit_of(request)
        if value is None:
            return "as many trials run at a time as there are slots", []
        room = self._capacity() if self._capacity is not None else value
        if value > room:
            raise StudyMismatchError(
                f"`max_concurrent` = {value} does not fit: there is room for {trials_in_words(room)} of this size "
                "at a time. Lower it, or join a larger cluster by `sweeper resume --address`."
            )
        return _at_most(value), []

    def _add(self, request: ControlRequest, point: Point) -> tuple[int, str]:
        is_clone = request.verb is Verb.CLONE
        warm = bool(request.arguments.get("warm_start"))
        same = trials_of(point, self._state.records, warm_from=request.trial if warm else None)
        origin = Origin(
            by=request.by, request=request.id, cloned_from=request.trial if is_clone else None,
            warm_start=warm, retries=max((record.number for record in same), default=None),
        )  # fmt: skip
        if origin.source is not None:
            self._starting.refuse_without_checkpoint(origin.source)
        record = self._queue.add(point, origin)
        message = f"trial {record.number} waits to be trained"
        try:
            self._starting.inherit(record)
        except SweeperError as error:  # by now it is in the study
            message += f"; what it begins with could not be copied, is tried again at its start: {error}"
        return record.number, message


def _at_most(limit: int) -> str:
    return f"at most {trials_in_words(limit)} run{'s' if limit == 1 else ''} at a time"
