"""The lease of a study: one driver at a time, whatever machine it runs on."""

import contextlib
import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sweeper.errors import StudyMismatchError
from sweeper.study.holder import Holder

logger = logging.getLogger(__name__)

BEAT_AT = "beat_at"  # the holder's wall clock at its last beat, for people; older versions did not write it

_held_here: set[str] = set()  # tokens of the leases that this process holds


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """How quick a lease is. In seconds of each process's own monotonic clock; clocks are never compared."""

    beat_s: float = 5.0  # between two beats of the holder
    expiry_s: float = 60.0  # without a beat, after which a holder on another machine counts as dead
    settle_s: float = 0.25  # between taking the lease and believing it; longer than a write takes to be seen
    look_s: float = 1.0  # between two looks at a holder that may be dead


class Pulse:
    """Says for how long a lease has stood still, by the clock of whoever looks at it again and again.

    Args:
        longest_gap_s: Between two looks. After a longer one nothing is held against the holder: the storage was away,
            for the holder too.
        clock: Seconds, monotonic.
    """

    def __init__(self, *, longest_gap_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap_s = longest_gap_s
        self._clock = clock
        self._seen: Mapping[str, Any] | None = None
        self._since = self._looked = 0.0

    def still_s(self, facts: Mapping[str, Any]) -> float:
        """Take note of what stands there now; return for how long it has."""
        now = self._clock()
        if facts != self._seen or now - self._looked > self._longest_gap_s:
            self._since = now
        self._seen, self._looked = dict(facts), now
        return now - self._since


class LeaseRecord(Protocol):
    """Where the lease is written: one mapping, of which the last write counts."""

    def read(self) -> dict[str, Any]:
        """Return what was written last; empty where nothing was."""

    def write(self, facts: dict[str, Any], *, seen: Mapping[str, Any]) -> bool:
        """Replace what was read, where that still stands there; return False where something else did, and does.

        A record that cannot make sure of that writes in any case.
        """


class Lease:
    """Says who drives a study, in the study's own storage.

    The holder counts beats. Another process takes the lease when it is free, when the holder is a dead process
    of its own machine, or when the counter stood still for the expiry by its own clock. It writes itself, waits
    until whoever read at the same time has written too, and looks who stands there: the last one holds it. A
    holder that was taken for dead, since it was stopped or cut off, finds another's name at its next beat and
    must not write any more. Where the record can make sure that nobody came in between, each writes only over what it
    has read: of two that take a lease at once the first holds it, and a beat that comes late overwrites nobody.

    Args:
        record: Where it is written.
        study: Name of the study, for messages.
    """

    def __init__(
        self,
        record: LeaseRecord,
        *,
        study: str,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], str] = lambda: "",
    ) -> None:
        self._record = record
        self._study = study
        self._times = times or LeaseTimes()
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._token = uuid.uuid4().hex
        self._facts: dict[str, Any] = {}
        self._seen: Mapping[str, Any] = {}  # what this process wrote, as it was read last
        self._lost: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._sure_at = 0.0  # when the last beat that came through was begun; others count from later on

    @property
    def is_lost(self) -> bool:
        """Whether another process is known to have taken the lease."""
        return self._lost is not None

    def acquire(self) -> None:
        """Take the lease, waiting for a holder that may be dead.

        Raises:
            StudyMismatchError: If another process holds it, or took it at the same time.
        """
        found = self._wait_until_free()
        self._facts = {
            "state": "running",
            **Holder.me().facts(),
            "since": self._now(),
            "token": self._token,
            "beat": 0,
            BEAT_AT: self._now(),
        }
        self._sure_at = self._clock()
        self._record.write(dict(self._facts), seen=found)
        self._sleep(self._times.settle_s)
        self._seen = found = self._record.read()
        if found.get("token") != self._token:
            raise StudyMismatchError(self._held_by(found))
        _held_here.add(self._token)
        self._thread = threading.Thread(target=self._beat_until_ended, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on once another process has taken the lease. Cheap; asked before every write.

        Where no beat came through for as long as others wait before they take over, the record itself is asked.

        Raises:
            StudyMismatchError: If so.
        """
        if self._lost is None and self._clock() - self._sure_at > self._times.expiry_s:
            self._look()
        self.confirm(None)

    def confirm(self, found: Mapping[str, Any] | None) -> None:
        """Take note of what stands in the record, which somebody else has read, and refuse as `check` does.

        Args:
            found: None where nothing was written since the last look.

        Raises:
            StudyMismatchError: If another process has taken the lease.
        """
        if found is not None:
            self._note(found)
        if self._lost is not None:
            raise StudyMismatchError(self._lost)

    def release(self, state: str) -> None:
        """Hand the lease back and say how the sweep stands. Does nothing where it was lost."""
        self._ended.set()
        _held_here.discard(self._token)
        if self._thread is not None:
            self._thread.join(self._times.expiry_s)
        with self._writing:
            self._look()
            if self._lost is None and self._facts:
                with contextlib.suppress(StudyMismatchError):  # lost since that look: the record refuses
                    self._write({**self._facts, "state": state})

    def _wait_until_free(self) -> dict[str, Any]:
        """Return what stands there once it may be replaced."""
        found = self._record.read()
        pulse = Pulse(longest_gap_s=2 * self._times.look_s + 1.0, clock=self._clock)
        while not _is_free(found):
            holder = Holder.read(found)
            if holder is not None and holder.is_here:  # it lives, or it would be free
                raise StudyMismatchError(self._held_by(found))
            if pulse.still_s(found) >= self._times.expiry_s:
                holder_text = self._held_by(found, advice=False)
                logger.warning(
                    "%s It did not stir for %.0f s: taken over.", holder_text, self._times.expiry_s
                )
                break
            self._sleep(self._times.look_s)
            again = self._record.read()
            is_same = again.get("token") == found.get("token") and again.get("state") == "running"
            if again != found and is_same:
                raise StudyMismatchError(self._held_by(again))  # it beats
            found = again
        return found

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(self._times.beat_s):
            try:
                with self._writing:
                    self._beat()
            except StudyMismatchError:
                return  # `check` says so
            except Exception as error:  # noqa: BLE001 - a thread that died would let others take over unnoticed
                # The driver's own next write meets the same and says so; a beat that comes later is no harm.
                logger.warning("The lease of study `%s` could not be renewed: %s", self._study, error)

    def _beat(self) -> None:
        asked_at = self._clock()
        self._look()
        self.check()  # looks again where the answer was that long in coming
        self._facts["beat"] += 1
        self._facts[BEAT_AT] = self._now()
        self._write(dict(self._facts))
        self._sure_at = asked_at

    def _write(self, facts: dict[str, Any]) -> None:
        """Write over what this process wrote before.

        Raises:
            StudyMismatchError: If another process came in between.
        """
        while not self._record.write(facts, seen=self._seen):
            self._look()
            self.confirm(None)  # it may be a write of its own, of which nobody had heard

    def _look(self) -> None:
        self._note(self._record.read())

    def _note(self, found: Mapping[str, Any]) -> None:
        if found.get("token") == self._token:
            self._seen = found
        elif self._facts and self._lost is None:
            self._lost = (
                f"{self._held_by(found, advice=False)} It took the study over from this process, which stops here "
                "and writes nothing more."
            )

    def _held_by(self, found: Mapping[str, Any], *, advice: bool = True) -> str:
        text = (
            f"Study `{self._study}` is held by another driver: process {found.get('pid')} on {found.get('host')}, "
            f"since {found.get('since')}."
        )
        if not advice:
            return text
        return f"{text} Wait for it to end or stop it there; `sweeper status` shows what it does."


def _is_free(facts: dict[str, Any]) -> bool:
    """Whether nobody holds a lease that reads so.

    It was never taken, was handed back, or is that of a dead process of this machine, or of this process, which
    could not hand it back, for example since the disk was full.
    """
    if facts.get("state") != "running" or not facts.get("token"):
        return True
    holder = Holder.read(facts)
    if holder is None:
        return False
    return holder.is_dead or (holder == Holder.me() and facts["token"] not in _held_here)
