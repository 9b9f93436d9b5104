"""What a sweep tells whoever watches it."""

import dataclasses
import enum
from typing import Protocol

from sweeper.records import Decision, RungRecord, TrialRecord


class EventKind(enum.StrEnum):
    """What a sweep tells whoever watches it."""

    SWEEP_STARTED = "sweep_started"
    TRIAL_STARTED = "trial_started"
    REPORTED = "reported"
    RUNG = "rung"
    DECIDED = "decided"
    TRIAL_ENDED = "trial_ended"
    TRIAL_RETRIED = "trial_retried"
    NOTE = "note"
    SWEEP_ENDED = "sweep_ended"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened in a sweep. `record` is the trial as it stands after it; do not change it."""

    kind: EventKind
    at_s: float  # seconds since the sweep's start, by the sweep's clock
    message: str = ""  # one sentence; empty for REPORTED
    record: TrialRecord | None = None
    decision: Decision | None = None
    rung: RungRecord | None = None


class Listener(Protocol):
    """Whoever watches a sweep: the live view, the event log, a test."""

    def on_event(self, event: Event) -> None:
        """Take note of an event. Must not raise and must return quickly."""
