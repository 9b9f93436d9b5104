"""Requests to a running sweep, and what became of them. Pure."""

import dataclasses
import enum
import getpass
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self

NO_LIMIT = ("none", None)  # what lifts the limit of trials at a time


class Verb(enum.StrEnum):
    """What can be asked of a sweep."""

    STOP = "stop"  # end one trial as PRUNED
    STOP_ALL = "stop_all"  # end the sweep; it can be resumed
    KEEP = "keep"  # the pruner stops this trial no more
    ADD = "add"  # train one more point
    CLONE = "clone"  # train a trial's point once more, with other values
    PAUSE = "pause"  # start no trial until told otherwise
    UNPAUSE = "unpause"
    SET = "set"  # change a setting of the sweep


ADDING = (Verb.ADD, Verb.CLONE)  # what brings more to train


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlRequest:
    """One request, as it is written to the study."""

    id: str  # in the order in which one machine's requests were made
    verb: Verb
    arguments: Mapping[str, Any]  # JSON-able: trial, params, warm_start, setting, value
    by: str  # user@host
    pid: int
    at: str  # ISO 8601, UTC, by the sender's clock

    @classmethod
    def new(cls, verb: Verb, arguments: Mapping[str, Any], *, at: str) -> Self:
        """Return a request of this process's user."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        return cls(id=name, verb=verb, arguments=arguments, by=whoami(), pid=os.getpid(), at=at)

    @property
    def trial(self) -> int | None:
        """The trial that it is about."""
        return self.arguments.get("trial")

    @property
    def text(self) -> str:
        """The request as a command line says it, without the study."""
        arguments = self.arguments
        words = ["stop --all" if self.verb is Verb.STOP_ALL else str(self.verb)]
        if self.trial is not None:
            words.append(f"--trial {self.trial}")
        words += [f"{name}={value}" for name, value in (arguments.get("params") or {}).items()]
        if "setting" in arguments:
            value = arguments["value"]
            words.append(f"{arguments['setting']}={'none' if value is None else value}")
        if arguments.get("warm_start"):
            words.append("--warm-start")
        return " ".join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlOutcome:
    """What the driver made of a request."""

    order: int  # of all answers of a study, from 0
    is_done: bool  # False: refused
    message: str  # one sentence
    at: str  # ISO 8601, UTC, by the driver's clock
    trial: int | None = None  # that was added


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlEvent:
    """A request with its outcome; None while no driver has acted on it."""

    request: ControlRequest
    outcome: ControlOutcome | None

    def as_dict(self) -> dict[str, Any]:
        """Return the event as `status --json` shows it."""
        request, outcome = self.request, self.outcome
        return {
            "request": request.text,
            "verb": request.verb.value,
            "trial": request.trial,
            "arguments": dict(request.arguments),
            "by": request.by,
            "pid": request.pid,
            "at": request.at,
            "outcome": None if outcome is None else "done" if outcome.is_done else "refused",
            "message": None if outcome is None else outcome.message,
            "acted_at": None if outcome is None else outcome.at,
            "added_trial": None if outcome is None else outcome.trial,
        }


def paused_by(events: Sequence[ControlEvent]) -> str | None:
    """Return who paused the sweep; None where no pause lasts. The events are in the order of their answers."""
    words = [one for one in _done(events) if one.verb in (Verb.PAUSE, Verb.UNPAUSE)]
    return words[-1].by if words and words[-1].verb is Verb.PAUSE else None


def max_concurrent(events: Sequence[ControlEvent]) -> int | None:
    """Return how many trials may run at a time as somebody has set it; None where nobody has."""
    words = [one for one in _done(events) if one.verb is Verb.SET]
    return limit_of(words[-1]) if words else None


def limit_of(request: ControlRequest) -> int | None:
    """Return how many trials a request of `set` wants at a time; None where it lifts the limit."""
    value = request.arguments["value"]
    return None if value in NO_LIMIT else int(value)


def _done(events: Sequence[ControlEvent]) -> list[ControlRequest]:
    return [event.request for event in events if event.outcome is not None and event.outcome.is_done]


def request_from(name: str, facts: Mapping[str, Any]) -> ControlRequest:
    """Read a request that was stored under a name.

    Raises:
        ValueError, KeyError, TypeError: If it is none.
    """
    return ControlRequest(
        id=name, verb=Verb(facts["verb"]), arguments=dict(facts["arguments"]), by=str(facts["by"]),
        pid=int(facts["pid"]), at=str(facts["at"]),
    )  # fmt: skip


def request_facts(request: ControlRequest) -> dict[str, Any]:
    """Return what is stored of a request; its id is the name of the attribute."""
    facts = dataclasses.asdict(request)
    del facts["id"]
    return facts


def whoami() -> str:
    """Return user@host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
