"""Runs trials in threads of this process, one step at a time, in a fixed order. For debugging and tests.

With several slots the trials take turns: one runs until it reports or ends, then the next one does. So the same
sweep has the same order of reports every time, whatever the machine does.
"""

import contextlib
import dataclasses
import logging
import queue
import threading
import time

from sweeper.channel import TrialStopped
from sweeper.executors.attempt import JOIN_S, TrialFunction, run_attempt, worker_facts
from sweeper.orchestrator import Orchestrator
from sweeper.records import Decision, Outcome, Report
from sweeper.trial_spec import TrialSpec

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Slot:
    """One trial in flight: its thread, and the two queues that pass the turn between it and the driver."""

    spec: TrialSpec
    thread: threading.Thread
    to_driver: "queue.SimpleQueue[tuple[Report | Outcome, bool]]"  # with whether it passes the turn
    to_trial: "queue.SimpleQueue[bool]"
    stop: threading.Event
    pause: threading.Event


_GIVE_UP_POLL_S = 0.05
_IDLE_POLL_S = 0.1  # between two looks at a sweep that is paused


class _TurnChannel:
    def __init__(self, slot: _Slot) -> None:
        self._slot = slot

    def send(self, report: Report, *, wait: bool) -> None:
        # A window that only time has closed passes no turn: else the order would depend on the machine's speed.
        self._slot.to_driver.put((report, wait))
        if wait:
            self._slot.to_trial.get()
        if self._slot.stop.is_set():
            raise TrialStopped

    def should_stop(self) -> bool:
        return self._slot.stop.is_set()

    def should_pause(self) -> bool:
        return self._slot.pause.is_set()


class InProcessExecutor:
    """Runs at most `slots` trials at a time, in turns, with whatever GPUs this process sees.

    Args:
        slots: Trials in flight at a time.
        function: Run instead of what the config names.
    """

    def __init__(self, *, slots: int = 1, function: TrialFunction | None = None) -> None:
        self._n_slots = slots
        self._function = function

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """It needs nothing."""
        return contextlib.nullcontext()

    def run(self, orchestrator: Orchestrator) -> None:
        flying: list[_Slot] = []
        orchestrator.set_capacity(lambda: self._n_slots)
        try:
            while not orchestrator.is_done:
                self._round(flying, orchestrator)
        except Exception:  # the orchestrator raised: nobody takes what they would report
            self._give_up(flying)
            raise
        except KeyboardInterrupt:
            for slot in flying:  # at once: one that does not listen ends with this process
                slot.stop.set()
            raise

    @staticmethod
    def _give_up(flying: list[_Slot]) -> None:
        """Tell the trials to end at their next step and wait until they have; one that hangs is left behind."""
        for slot in flying:
            slot.stop.set()
        give_up_at = time.monotonic() + JOIN_S
        while alive := [slot for slot in flying if slot.thread.is_alive()]:
            if time.monotonic() >= give_up_at:
                numbers = ", ".join(str(slot.spec.number) for slot in alive)
                logger.warning(
                    "Not ended %.0f s after they were told to, and left behind until this process ends: trials %s.",
                    JOIN_S,
                    numbers,
                )
                return
            for slot in alive:
                slot.to_trial.put(True)
                slot.thread.join(_GIVE_UP_POLL_S)

    def _round(self, flying: list[_Slot], orchestrator: Orchestrator) -> None:
        """Give every trial in flight a turn."""
        orchestrator.check_held()
        self._tell(orchestrator.poll(), flying)
        self._fill(flying, orchestrator)
        if not flying and not orchestrator.is_done:  # the sweep is paused
            time.sleep(_IDLE_POLL_S)
        for slot in list(flying):
            if orchestrator.is_draining:
                (slot.pause if orchestrator.may_save else slot.stop).set()
            if self._take_turn(slot, flying, orchestrator):
                flying.remove(slot)
                self._fill(flying, orchestrator)

    def _fill(self, flying: list[_Slot], orchestrator: Orchestrator) -> None:
        while len(flying) < orchestrator.slots(self._n_slots, room=self._n_slots):
            spec = orchestrator.next_trial(worker_facts())
            if spec is None:
                return
            flying.append(self._start(spec))

    def _start(self, spec: TrialSpec) -> _Slot:
        slot = _Slot(
            spec=spec, thread=threading.Thread(name=f"trial-{spec.number}", daemon=True),
            to_driver=queue.SimpleQueue(), to_trial=queue.SimpleQueue(), stop=threading.Event(),
            pause=threading.Event(),
        )  # fmt: skip

        def work() -> None:
            slot.to_trial.get()
            slot.to_driver.put((run_attempt(spec, _TurnChannel(slot), function=self._function), True))

        slot.thread = threading.Thread(target=work, name=f"trial-{spec.number}", daemon=True)
        slot.thread.start()
        return slot

    @staticmethod
    def _tell(decisions: list[Decision], flying: list[_Slot]) -> None:
        """Tell the trials that are to stop, or to be set aside; they do so at their next step."""
        by_number = {slot.spec.number: slot for slot in flying}
        for decision in decisions:
            if decision.trial in by_number:
                told = by_number[decision.trial]
                (told.pause if decision.aside else told.stop).set()

    @classmethod
    def _take_turn(cls, slot: _Slot, flying: list[_Slot], orchestrator: Orchestrator) -> bool:
        """Let one trial run until it is to be judged or ends; return whether it ended."""
        slot.to_trial.put(True)
        while True:
            message, passes_turn = slot.to_driver.get()
            cls._carry_in(slot, message, flying, orchestrator)
            if not isinstance(message, Report):
                slot.thread.join()
                return True
            if passes_turn:
                return False

    @staticmethod
    def _carry_in(
        slot: _Slot, message: Report | Outcome, flying: list[_Slot], orchestrator: Orchestrator
    ) -> None:
        if isinstance(message, Report):
            decisions = orchestrator.on_report(slot.spec.number, message)
        else:
            decisions = orchestrator.on_end(slot.spec.number, message)
        InProcessExecutor._tell(decisions, flying)
