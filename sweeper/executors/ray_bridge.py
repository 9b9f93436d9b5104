"""Between Tune and the orchestrator: what our own searcher, scheduler and callback share.

Ray's state is disposable: nothing here is needed to go on after a crash.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import ray
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sweeper.events import Event, EventKind
from sweeper.executors.attempt import JOIN_S
from sweeper.executors.ray_attempt import StopWord, attempt_key
from sweeper.executors.ray_pace import Pace
from sweeper.executors.ray_rest import RestingSlots
from sweeper.executors.ray_silence import Silence
from sweeper.executors.ray_waiting import Waiting
from sweeper.executors.ray_worker import RESULT, WorkerReplacedError, WorkerResult
from sweeper.orchestrator import Orchestrator
from sweeper.records import Decision, Outcome, OutcomeKind, Report

T = TypeVar("T")

# Windows that only time has closed, of all trials together. Tune takes in 200 results a second at most, 5 ms each, and
# what is to be judged or saved waits behind them. A spike of the loss is seen with its window: on 500 slots after 5 s.
_WINDOWS_PER_S = 100.0


class Bridge:
    """What searcher, scheduler and callback share: which Tune trial is which trial of the study.

    Args:
        orchestrator: The sweep.
        board: What running trials look at.
        waiting: Tells what trials wait for.
        patience_s: How long trials that are to save and end are waited for.
        clock: Seconds.
    """

    def __init__(
        self, orchestrator: Orchestrator, board: Any, waiting: Waiting,
        *, patience_s: float = JOIN_S, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._waiting = waiting
        self._silence = Silence(orchestrator)
        self._resting = RestingSlots()
        self._pace = Pace(clock=clock)
        self._workers: set[tuple[Any, Any]] = set()  # node and process of all that came to train
        self.orchestrator = orchestrator
        self.board = board
        self.keys: dict[int, str] = {}  # trial number -> attempt key, of trials in flight
        self._numbers: dict[str, int] = {}  # Tune's id -> trial number
        self._starting: set[str] = set()
        self._n_told = 0
        self._patience_s = patience_s
        self._clock = clock
        self._draining_since: float | None = None  # when what still ran was told to end
        self._patience_is_over = False
        self.on_sigusr1 = signal.getsignal(signal.SIGUSR1)  # ours; Tune will take it
        self.set_limit: Callable[[], object] = lambda: None  # lets Tune run as many trials as are wanted now
        self.n_slots: Callable[[], int] = lambda: 1  # that are wanted now
        self.error: Exception | None = None  # what the orchestrator raised; Tune would make a TuneError of it
        orchestrator.listen(self)

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in the snapshots that Tune pickles: the study is the truth, and holds open files."""
        return (object, ())

    def on_event(self, event: Event) -> None:
        """Tell a trial that it is stopped as soon as that is recorded, before all that follows from it.

        One that reports just now too: Tune may keep its worker for later, and it would train on.
        """
        if event.kind is EventKind.DECIDED and event.decision is not None and event.decision.stop:
            self._tell({event.decision.trial})

    def on_started(self, tune_id: str) -> None:
        """Take note that a trial has its worker."""
        self._starting.discard(tune_id)
        self._tell_starting()

    def _tell_starting(self) -> None:
        self._n_told += 1
        self.board.set_starting.remote(len(self._starting), order=self._n_told)

    def guarded(self, call: Callable[[], T], otherwise: T) -> T:
        """Return what a call to the orchestrator returns; after one that raised, call nothing any more.

        Without a study that takes what is reported, for example on a full disk, all trials are stopped.
        """
        if self.error is None:
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - raised again when Tune has come to its end
                self.error = error
        return otherwise

    def steer(self) -> None:
        """Act on what was asked for from outside."""
        self.orchestrator.poll()
        self.set_limit()

    def suggest(self, tune_id: str) -> dict[str, Any] | str | None:
        self.steer()  # here too: while nothing runs, Tune does nothing else but ask for trials, once a second
        if self._resting.count and len(self.keys) + self._resting.count >= self.n_slots():
            return None
        if self.keys and self._pace.rests:  # with none in flight Tune would do nothing but ask again
            return None
        with self._pace.taking():
            spec = self.orchestrator.next_trial()
        if spec is None:
            return Searcher.FINISHED if self.orchestrator.is_done else None
        self._numbers[tune_id] = spec.number
        self._starting.add(tune_id)
        self._tell_starting()
        self.keys[spec.number] = attempt_key(spec)
        every_s = max(spec.report_every_s, self.n_slots() / _WINDOWS_PER_S)
        return {"spec": dataclasses.replace(spec, report_every_s=every_s)}

    def on_result(self, tune_id: str, result: dict[str, Any]) -> str:
        """Carry one result in; return Tune's word for what happens to that trial."""
        number = self._numbers[tune_id]
        if number not in self.keys:
            return str(TrialScheduler.STOP)
        self._silence.heard(number)
        said: WorkerResult = result[RESULT]
        self.orchestrator.on_worker(number, said.worker)
        who = (said.worker.get("node"), said.worker.get("pid"))
        if who not in self._workers:
            self._workers.add(who)
            self._resting.wake()
        if said.note is not None:
            self.orchestrator.tell(EventKind.NOTE, said.note)
        stopped: set[int] = set()
        for message in said.messages:
            decisions = self._carry_in(number, message)
            stopped |= {decision.trial for decision in decisions if decision.stop}
            if any(decision.aside for decision in decisions):
                # It waits for its judgement, and looks at the board when it is let go on.
                ray.get(self.board.tell.remote([self.keys[number]], "pause"))
        if number in stopped and number in self.keys:
            # Tune stops this worker's trial now; what it would still say is not waited for.
            self._end(number, Outcome(kind=OutcomeKind.STOPPED))
        return str(TrialScheduler.STOP if number not in self.keys else TrialScheduler.CONTINUE)

    def _carry_in(self, number: int, message: Report | Outcome) -> list[Decision]:
        if number not in self.keys:
            return []
        if isinstance(message, Report):
            return self.orchestrator.on_report(number, message)
        return self._end(number, message)

    def _end(self, number: int, outcome: Outcome) -> list[Decision]:
        self.keys.pop(number)
        self._pace.go_on()
        return self.orchestrator.on_end(number, outcome)

    def _tell(self, numbers: Iterable[int], word: StopWord = "stop") -> None:
        keys = [self.keys[number] for number in numbers if number in self.keys]
        if keys:
            self.board.tell.remote(keys, word)

    def on_lost(self, tune_id: str, reason: str) -> None:
        self.on_started(tune_id)
        number = self._numbers[tune_id]
        if self.keys.pop(number, None) is None:
            return
        if WorkerReplacedError.__name__ in reason:
            self.orchestrator.on_returned(
                number, reason.partition(f"{WorkerReplacedError.__name__}: ")[2] or reason
            )
        elif not self.orchestrator.on_lost(number, reason, slots=self.n_slots()) and self._workers:
            self._resting.rest()  # where none has come to train yet, too many end the sweep soon

    def drain(self) -> None:
        """Once the orchestrator starts nothing more, tell what still runs to stop."""
        self.guarded(self.orchestrator.check_held, None)
        self.guarded(lambda: self._waiting.look(len(self._starting)), None)
        starting = {self._numbers[tune_id] for tune_id in self._starting}
        self.guarded(lambda: self._silence.look(self.keys.keys() - starting), None)
        self.guarded(self.steer, None)
        if self.error is not None or self.orchestrator.is_draining:
            self._tell_all_to_end()

    def _tell_all_to_end(self) -> None:
        """Tell what still runs to end, once; and to end without saving where that takes too long: it may hang."""
        now, n = self._clock(), len(self.keys)
        if self._draining_since is None:
            self._draining_since = now
            words = f"{n} running trials are told to end at their next step"
            may_save = self.error is None and self.orchestrator.may_save
        elif now - self._draining_since >= self._patience_s and not self._patience_is_over:
            self._patience_is_over = True
            words = f"{n} running trials have not ended for {self._patience_s:.0f} s: they are to end without saving"
            may_save = False
        else:
            return
        if self.keys:
            self.guarded(lambda: self.orchestrator.tell(EventKind.NOTE, words), None)
        self._tell(self.keys, "pause" if may_save else "stop")

    def hand_back(self) -> bool:
        """Take back what Tune was given, where nothing more is started and none of it has a worker.

        Returns:
            Whether something was, so that Tune has nothing to wait for any more.
        """
        waiting = {self._numbers[tune_id] for tune_id in self._starting}
        if self._draining_since is None or not self.keys or not waiting.issuperset(self.keys):
            return False
        while self.keys:
            number, _ = self.keys.popitem()
            words = "not begun: the sweep ends before a worker came to train it"
            self.guarded(partial(self.orchestrator.on_returned, number, words), None)
        return True
