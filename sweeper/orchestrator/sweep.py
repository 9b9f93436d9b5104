"""The calls of the orchestrator."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from sweeper.checkpoint import KeptCheckpoints
from sweeper.events import EventKind, Listener
from sweeper.orchestrator.ending import Ending
from sweeper.orchestrator.failing import Failing
from sweeper.orchestrator.judging import Judging
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording
from sweeper.orchestrator.sharing import Sharing
from sweeper.orchestrator.starting import Starting
from sweeper.orchestrator.state import SweepState
from sweeper.orchestrator.steering import Steering
from sweeper.plan import Plan, Point
from sweeper.pruners.divergence import DivergenceMonitor, DivergenceRules, monitor_for
from sweeper.pruners.judge import Judge
from sweeper.records import Decision, Outcome, OutcomeKind, Report, TrialRecord
from sweeper.study.control_records import ADDING, Verb
from sweeper.study.interface import SweepStudy
from sweeper.study.micro_batches import MicroBatchLimits
from sweeper.trial_spec import TrialSpec


class Orchestrator:
    """Asks the study for points, records what trials report, and judges.

    All calls come from one thread.

    Args:
        study: The study, held by this driver.
        plan: The plan of its config.
        judge: Who judges trials at rungs.
        rules: Which divergence rules are on.
        listeners: Told of every event.
        clock: Seconds, monotonic.
        monitor_of: Makes the monitor of a trial; replay knows what each recorded trial will break.
        checkpoints_of: Opens a trial's checkpoints; replay has none on disk.
        longest_first: Whether points of a grid that take longest are started first, unless the judge says otherwise;
            else in the grid's order, which replay varies.
    """

    def __init__(
        self,
        *,
        study: SweepStudy,
        plan: Plan,
        judge: Judge,
        rules: DivergenceRules,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        monitor_of: Callable[[int, Point], DivergenceMonitor] | None = None,
        checkpoints_of: Callable[[int], KeptCheckpoints] | None = None,
        longest_first: bool = False,
    ) -> None:
        state = SweepState(
            study=study, plan=plan, listeners=listeners, clock=clock, checkpoints_of=checkpoints_of
        )
        self._state = state
        self._retention = state.retention()
        micro_batches = MicroBatchLimits(study)
        self._recording = Recording(state)
        self._sharing = Sharing(state)
        self._queue = TrialQueue(state, judge, self._sharing, longest_first=longest_first)
        self._starting = Starting(
            state, self._recording, self._queue, micro_batches, self._sharing,
            monitor_of or (lambda number, point: monitor_for(point, rules)),
        )  # fmt: skip
        self._failing = Failing(
            state, recording=self._recording, queue=self._queue, retention=self._retention,
            micro_batches=micro_batches,
        )  # fmt: skip
        self._ending = Ending(
            state, recording=self._recording, queue=self._queue, retention=self._retention, failing=self._failing,
        )  # fmt: skip
        self._untold: list[Decision] = []  # that stop running trials, for the next poll
        self._judging = Judging(
            state, judge=judge, recording=self._recording, ending=self._ending, queue=self._queue,
            sharing=self._sharing,
        )  # fmt: skip
        self._bring_up_to_date()
        self._steering = Steering(state, queue=self._queue, ending=self._ending, starting=self._starting)

    def _bring_up_to_date(self) -> None:
        """Do what an earlier driver of the study left undone."""
        self._ending.carry_out_decisions()
        self._judging.catch_up()
        for number in self._queue.waiting:
            self._starting.inherit(self.records[number])  # before retention removes what they begin with
        self._ending.clear_stopped()

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def records(self) -> dict[int, TrialRecord]:
        return self._state.records

    @property
    def failure(self) -> str | None:
        """Why the sweep gives up, once it does."""
        return self._state.failure

    @property
    def may_save(self) -> bool:
        """Whether trials that are told to end may save a checkpoint first: not on a full disk."""
        return self._state.may_save

    @property
    def is_interrupted(self) -> bool:
        return self._state.is_interrupted

    @property
    def is_out_of_time(self) -> bool:
        """Whether that is so because its time was over."""
        return self._state.is_out_of_time

    @property
    def is_draining(self) -> bool:
        """Whether no further trial will be started."""
        return self._state.is_draining

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to start now and nothing running that could bring more."""
        return not self._state.running and (self.is_draining or self.n_left == 0)

    @property
    def n_running(self) -> int:
        return len(self._state.running)

    @property
    def n_left(self) -> int:
        """Trials that can still be started, as far as is known now."""
        return self._queue.n_left

    def slots(self, planned: int, *, room: int) -> int:
        """Return how many trials run at a time: as planned, or as somebody has set it since.

        Args:
            planned: Without anybody's word.
            room: That the machines have now. What was set may have fitted larger ones.
        """
        limit = self._state.max_concurrent
        return planned if limit is None else min(limit, max(1, room))

    def set_capacity(self, capacity: Callable[[], int]) -> None:
        """Say how many trials the machines hold at a time; asked when somebody wants more."""
        self._steering.set_capacity(capacity)

    def poll(self) -> list[Decision]:
        """Act on what was asked for from outside; cheap, and mostly does nothing. To be called all the time.

        While the sweep ends, a trial that hangs can still be stopped; all else waits for the next driver.

        Returns:
            The decisions that stop a running trial.
        """
        untold, self._untold = self._untold, []
        return untold + (self._steering.poll((Verb.STOP,)) if self.is_draining else self._steering.poll())

    def look_once_more(self) -> bool:
        """Act on what was added since the last look, where nothing is left; return whether there is more to train."""
        if self.is_draining or not self.is_done:
            return False
        self._steering.act(ADDING)
        return not self.is_done

    def interrupt(self) -> None:
        """Start nothing more. Running trials are to be stopped by the executor; they stay RUNNING, to be resumed."""
        self._state.is_interrupted = True

    def check_held(self) -> None:
        """Refuse to go on once another driver has taken the study over.

        Raises:
            StudyMismatchError: If so.
        """
        self._state.study.check_held()

    def listen(self, listener: Listener) -> None:
        """Tell one more listener of every event from now on."""
        self._state.listeners.append(listener)

    def tell(self, kind: EventKind, message: str) -> None:
        """Tell the listeners something that concerns the whole sweep."""
        self._state.tell(kind, message)

    # -- the four calls --------------------------------------------------------------------------------------

    def next_trial(self, worker: dict[str, Any] | None = None) -> TrialSpec | None:
        """Take the next point to train; it is RUNNING in the study when this returns.

        Returns None where nothing is to be started now.
        """
        if not self._starting.may_start:
            return None
        number = self._queue.next_number()
        if self._queue.has_drawn_last:  # fewer points than the judge expected: some need wait no longer
            self._queue.has_drawn_last = False
            self._untold += self._judging.judge_again()
            number = self._queue.next_number()
        if number is None:
            return None
        return self._starting.start(number, self._queue.point_of(self.records[number]), worker)

    def on_report(self, number: int, report: Report) -> list[Decision]:
        """Record one window and judge. Returns the decisions that stop a trial, of this one or of others.

        One that sets this trial aside is among them: it is to save a checkpoint and end.
        """
        with self._state.together():
            return self._on_report(number, report)

    def _on_report(self, number: int, report: Report) -> list[Decision]:
        running = self._state.running.get(number)
        record = self.records.get(number)
        if running is None or record is None or record.state.is_finished:
            return []
        stops = self._judging.take_in(running, report)
        passed = self._sharing.passed(running, report)
        if passed is not None and self._sharing.read_off(passed, running, report):
            self._queue.waiting.remove(passed.number)
            ended = {one.trial for one in stops}
            stops += [one for one in self._judging.judge_again() if one.trial not in ended]
        if not record.state.is_finished:
            if report.checkpoint is not None:
                self._recording.checkpoint(running, report.checkpoint)
                self._state.commit()
                self._retention.after_save(number, self.records)
            else:
                self._recording.flush_when_due(running)
            self._state.tell(EventKind.REPORTED, record=record)
        return stops

    def on_end(self, number: int, outcome: Outcome) -> list[Decision]:
        """Record how an attempt ended. Returns decisions on other trials that its last rows led to."""
        with self._state.together():
            return self._on_end(number, outcome)

    def _on_end(self, number: int, outcome: Outcome) -> list[Decision]:
        stops: list[Decision] = []
        running = self._state.running.get(number)
        if running is not None:
            running.is_done = outcome.kind is OutcomeKind.DONE
        if outcome.report is not None:
            stops = [one for one in self.on_report(number, outcome.report) if one.trial != number]
        running = self._state.running.pop(number, None)
        if running is None:
            return stops
        if self.records[number].state.is_finished:  # stopped by a decision, which recorded everything
            self._state.checkpoints(number).clear()  # it may have saved one while it was being stopped
            self._queue.note_end(self.records[number])
            return stops
        self._ending.end(running, outcome)
        self._queue.note_end(self.records[number])
        return [*stops, *self._judging.judge_again()]

    def on_lost(self, number: int, reason: str, *, slots: int = 1) -> bool:
        """Record that an attempt ended without a word: its process or node died.

        Args:
            number: The trial.
            reason: What is known of it.
            slots: Trials at a time: where a worker never came to train, how many of these in a row are too many.

        Returns:
            Whether its worker had come to train it. If not, the trial bears no blame.
        """
        running = self._state.running.pop(number, None)
        if running is None:
            return True
        has_begun = running.worker is not None
        if self.records[number].state.is_finished:
            self._state.checkpoints(number).clear()  # it may have saved one while it was being stopped
        elif has_begun:
            self._ending.end_lost(running, reason)
        else:
            self._ending.end_unstarted(running, reason, slots=slots)
        return has_begun

    def on_returned(self, number: int, reason: str) -> None:
        """Take a trial back that its worker has not begun: it is started next, and nothing is held against it."""
        running = self._state.running.pop(number, None)
        if running is not None and not self.records[number].state.is_finished:
            self._ending.end_unbegun(running, reason)

    def on_worker(self, number: int, worker: dict[str, Any]) -> None:
        """Record which process took a trial up, and that it starts now: the process may have had to start first."""
        running = self._state.running.get(number)
        record = self.records.get(number)
        # One that another trial's report has stopped by now is not to be touched: its worker hears of it only later.
        if running is None or record is None or record.state.is_finished or running.worker == worker:
            return
        self._failing.note_begun()
        self._recording.taken_up(running, worker)
