"""Feeds a tracker from the sweep's events, on a thread of its own: the driver never waits for it."""

import collections
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sweeper.events import Event, EventKind
from sweeper.records import Decision, StepRow, TrialState
from sweeper.reporting.formats import one_line, verb
from sweeper.storage_url import hide
from sweeper.trackers.base import Point, Run, Tracker
from sweeper.trackers.logged import LoggedSteps

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ADDRESSES = ("MLFLOW_TRACKING_URI", "WANDB_BASE_URL")  # variables of the clients' own
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")
CLOSING_S = 60.0  # how long the end of a sweep waits for a tracker that is behind and comes no further
_HURRIED_S = 5.0  # how long in all where the sweep was interrupted: what stopped it may end the process soon
_AT_A_TIME = 1000  # steps
_SIGNALS = ("loss", "grad_norm", "learning_rate")


class TrackerListener:
    """A listener that notes events and hands them to the tracker's thread. It never raises.

    Of a trial's reports only the newest waits for a tracker that is behind: the steps themselves are read from the
    curve, up to where it stands by then.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        *,
        rows: Callable[[int, int], Sequence[StepRow]],
        logged: Path,
        ended: Sequence[Run] = (),
    ) -> None:
        """Make a listener.

        Args:
            name: Of the tracker.
            make: Opens it; called on the tracker's thread.
            rows: The recorded steps of a trial past one of them.
            logged: The file that keeps what the tracker has; see `LoggedSteps`.
            ended: Trials that have ended already. What the tracker has not got of them it is handed whenever it is not
                behind, and at the end, unless that is hurried.
        """
        self._name = name
        self._make = make
        self._rows = rows
        self._logged = logged
        self._ended = ended
        self._todo: queue.SimpleQueue[tuple[Event, Run] | None] = queue.SimpleQueue()
        self._reported: dict[int, Run] = {}  # whose report is in the queue, as they stood last
        self._reporting = threading.Lock()  # for as long as a dict takes; never while the tracker works
        self._is_broken = threading.Event()
        self._is_hurried = False
        self._n_taken = 0  # what the tracker took so far: events and parts of curves
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def on_event(self, event: Event) -> None:
        """Note what happened to a trial. Quick, from any thread."""
        if event.record is None or self._is_broken.is_set():
            return
        run = Run.of(event.record)
        if event.kind is EventKind.REPORTED:
            with self._reporting:
                is_waiting = run.number in self._reported
                self._reported[run.number] = run
            if is_waiting:
                return
        self._todo.put((event, run))

    @property
    def is_behind(self) -> bool:
        """Whether the tracker has not got all of the trials that had ended before this."""
        return bool(self._missed(LoggedSteps(self._logged)))

    def _missed(self, logged: LoggedSteps) -> list[Run]:
        return [run for run in self._ended if logged.lacks(run.number, run.step)]

    def hurry(self) -> None:
        """Wait no longer than seconds for the tracker at the end."""
        self._is_hurried = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the tracker finish what was noted, as long as it comes further. Ctrl-C leaves it behind."""
        self._todo.put(None)
        try:
            if self._is_hurried:
                self._thread.join(_HURRIED_S)
            else:
                self._wait()
        except KeyboardInterrupt:
            logger.info("Tracker `%s` is waited for no longer.", self._name)
        if self._thread.is_alive():
            logger.warning(
                "Tracker `%s` is behind and left so. The study has everything, and `sweeper resume` hands on the rest.",
                self._name,
            )

    def _wait(self) -> None:
        n_taken = -1
        while self._thread.is_alive() and self._n_taken != n_taken:
            if n_taken >= 0:
                logger.warning("Waiting for tracker `%s`, which is behind. Ctrl-C leaves it.", self._name)
            n_taken = self._n_taken
            self._thread.join(CLOSING_S)

    def _work(self) -> None:
        tracker = self._tried(self._make)
        if tracker is not None:
            self._tried(lambda: self._feed(tracker))
            self._tried(tracker.close)

    def _feed(self, tracker: Tracker) -> None:
        logged = LoggedSteps(self._logged)
        logged.keep_ends((run.number, run.step) for run in self._ended)
        missed = collections.deque(self._missed(logged))
        while True:
            try:
                noted = self._todo.get(block=not missed)
            except queue.Empty:
                self._catch_up(tracker, logged, missed.popleft())
                continue
            if noted is None:
                break
            event, run = noted
            if event.kind is EventKind.REPORTED:
                with self._reporting:
                    run = self._reported.pop(run.number)
            self._hand_on(tracker, logged, event, run)
            self._n_taken += 1
        while missed and not self._is_hurried:
            self._catch_up(tracker, logged, missed.popleft())

    def _catch_up(self, tracker: Tracker, logged: LoggedSteps, run: Run) -> None:
        """Hand on what the tracker has not got of a trial that ended under an earlier driver."""
        if not tracker.start(run):
            logged.forget(run.number)
        self._end(tracker, logged, run)
        self._n_taken += 1

    def _tried(self, call: Callable[[], T]) -> T | None:
        """Return what a call returns, or None where it raised, which is told once."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - a client may raise anything, and must not end the sweep
            told = f"{type(error).__name__}: {one_line(_without_secrets(str(error)))}"
            if self._is_broken.is_set():
                logger.debug("Tracker `%s` failed again: %s", self._name, told)
                return None
            self._is_broken.set()
            logger.warning(
                "Tracker `%s` failed and is told nothing more: %s. The sweep goes on, and the study has everything: "
                "`sweeper resume` hands on what is missing.",
                self._name,
                told,
            )
            return None

    def _hand_on(self, tracker: Tracker, logged: LoggedSteps, event: Event, run: Run) -> None:
        match event.kind:
            case EventKind.TRIAL_STARTED:
                if not tracker.start(run):
                    logged.forget(run.number)
            case EventKind.REPORTED | EventKind.RUNG | EventKind.NOTE:  # a note: interrupted, set aside
                self._log_steps(tracker, logged, run)
                if event.rung is not None:
                    metrics = {k: v for k, v in event.rung.signals.items() if k not in _SIGNALS}
                    at = Point(step=event.rung.step, samples=event.rung.samples, values=metrics)
                    tracker.log(run, [at] if metrics else [])
            case EventKind.DECIDED if event.decision is not None:
                tracker.tag(run, _decision_tags(event.decision))
            case EventKind.TRIAL_ENDED:
                self._end(tracker, logged, run)
            case _:
                return

    def _end(self, tracker: Tracker, logged: LoggedSteps, run: Run) -> None:
        if run.step:
            self._log_steps(tracker, logged, run)
        if run.metrics:
            tracker.log(run, [Point(step=run.step, samples=run.samples, values=run.metrics)])
        tracker.tag(run, _end_tags(run))
        tracker.end(run)
        logged.note_end(run.number)

    def _log_steps(self, tracker: Tracker, logged: LoggedSteps, run: Run) -> None:
        """Hand on the steps that are recorded and were not handed on yet, by this driver or one before.

        A trial that goes on from a checkpoint has fewer steps than were handed on; those it repeats are equal.
        """
        if run.step <= logged.last(run.number):
            return
        rows = self._rows(run.number, logged.last(run.number))
        if not rows:
            return
        points = [Point(step=row.step, samples=row.samples, values=_reported(row)) for row in rows]
        for begin in range(0, len(points), _AT_A_TIME):
            part = points[begin : begin + _AT_A_TIME]
            tracker.log(run, part)
            logged.note(run.number, part[-1].step)
            self._n_taken += 1


def _reported(row: StepRow) -> dict[str, float]:
    """Return the signals that a trial reported for a step; NaN is one, None is not."""
    values = ((name, getattr(row, name)) for name in _SIGNALS)
    return {name: value for name, value in values if value is not None}


def _decision_tags(decision: Decision) -> Mapping[str, str]:
    place = "" if decision.rung is None else f" at rung {decision.rung}"
    return {
        "decision": f"{verb(decision.entry())}{place}",
        "rule": decision.rule,
        "reason": one_line(decision.reason),
    }


def _end_tags(run: Run) -> Mapping[str, str]:
    reason = {} if run.state is TrialState.COMPLETE or not run.reason else {"reason": one_line(run.reason)}
    return {"state": run.state.value, **reason}


def _without_secrets(text: str) -> str:
    """Return what a client says without the passwords and keys that it was given by the environment."""
    for name in _ADDRESSES:
        text = hide(text, os.environ.get(name, ""))
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, "***")
    return text
