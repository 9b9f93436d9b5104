"""Sending a request to a study, and waiting for what its driver makes of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.config.document import parse_value
from sweeper.config.overrides import split_override
from sweeper.control.check import check_request
from sweeper.errors import ConfigError, NothingToDoError, StudyMismatchError
from sweeper.records import TrialRecord
from sweeper.study.clock import utc_now
from sweeper.study.control_records import ControlEvent, ControlRequest, Verb
from sweeper.study.holder import Holder
from sweeper.study.lease import Pulse
from sweeper.study.study import Study
from sweeper.study.view import DriverFacts

_WAIT_S = 20.0  # for the driver's answer; it comes within 2 s unless the driver waits for its storage
_LOOK_S = 0.1  # between two looks for it
_SILENT_S = 15.0  # without a beat, of which three were due, after which a driver elsewhere is not counted on


class Sent(NamedTuple):
    """A request that was written."""

    event: ControlEvent  # with its outcome; with none where no driver runs or it has not answered in time
    is_running: bool  # whether a driver runs, as far as the study tells; not so where it ended meanwhile
    silent: DriverFacts | None = (
        None  # one on another machine that did not stir while its answer was waited for
    )


def send_request(
    place: str,
    verb: Verb,
    arguments: Mapping[str, Any],
    *,
    storage: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Write a request to a study, from any process that sees its storage, and wait for the answer.

    Raises:
        ConfigError: If a name or a value is wrong; nothing was written.
        StudyMismatchError: If there is no such study or trial, or the driver refused.
        NothingToDoError: If the whole sweep is to be stopped and none runs, or it ended before it saw that.
    """
    return _send(Study.open(place, url=storage), verb, arguments, clock=clock, sleep=sleep)


def _send(
    study: Study,
    verb: Verb,
    arguments: Mapping[str, Any],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    request = ControlRequest.new(verb, arguments, at=utc_now())
    check_request(request, config=study.config, facts=study.facts(), records=_needed(study, request))
    is_running = study.state() == "running"
    if verb is Verb.STOP_ALL and not is_running:
        raise NothingToDoError(f"No sweep of study `{study.name}` runs, so there is nothing to stop.")
    study.control_box.send(request)
    event, lease = study.control_box.event(request), study.lease()
    pulse = Pulse(longest_gap_s=_WAIT_S, clock=clock)
    still_s = pulse.still_s(lease)
    for _ in range(int(_WAIT_S / _LOOK_S) if is_running else 0):
        sleep(_LOOK_S)
        is_running = study.state() == "running"  # before the answer: a driver may answer and end in between
        event, lease = study.control_box.event(request), study.lease()
        still_s = pulse.still_s(lease)
        if event.outcome is not None or not is_running:
            break
    if event.outcome is not None and not event.outcome.is_done:
        raise StudyMismatchError(event.outcome.message)
    if verb is Verb.STOP_ALL and event.outcome is None and not is_running:
        raise NothingToDoError(f"The sweep of study `{study.name}` ended before it could be stopped.")
    holder = Holder.read(lease)
    is_silent = is_running and still_s >= _SILENT_S and not (holder is not None and holder.is_here)
    return Sent(event, is_running, DriverFacts.read(lease) if is_silent else None)


def send_requests(
    place: str,
    verb: Verb,
    each: Sequence[Mapping[str, Any]],
    *,
    storage: str | None = None,
) -> Iterator[Sent]:
    """Write a request for each of the arguments, one after the other, if all of them can be met.

    Yields and raises what `send_request` does.
    """
    study = Study.open(place, url=storage)
    facts = study.facts()
    for arguments in each:
        request = ControlRequest.new(verb, arguments, at=utc_now())
        check_request(request, config=study.config, facts=facts, records=_needed(study, request))
    for arguments in each:
        yield _send(study, verb, arguments)


def _needed(study: Study, request: ControlRequest) -> Mapping[int, TrialRecord]:
    """Return the trials that tell whether a request can be met: to read thousands from a database takes seconds."""
    if request.verb in (Verb.STOP, Verb.KEEP) and request.trial is not None:
        record = study.record(request.trial)
        if record is not None:
            return {record.number: record}
        return study.records()  # the message tells which there are
    return study.records() if request.verb in (Verb.ADD, Verb.CLONE) else {}


def outcome_text(sent: Sent) -> str:
    """Return what became of a request, in a few words."""
    if sent.event.outcome is not None:
        return f"{sent.event.outcome.message}."
    if sent.silent is not None:
        last = f" (last at {sent.silent.last_beat})" if sent.silent.last_beat else ""
        return (
            f"Written. The driver, process {sent.silent.pid} on {sent.silent.host}, has neither answered nor stirred "
            f"for {_WAIT_S:.0f} s{last}: its machine has probably stopped, or lost the storage. Then it is acted on at "
            "the next `sweeper resume`."
        )
    if sent.is_running:
        return (
            f"Written. The driver has not answered within {_WAIT_S:.0f} s; it acts on it as soon as it can."
        )
    return "Written. No driver runs this study now: it is acted on at the next `sweeper resume`."


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` words as a mapping, values as a sweep file would read them.

    Raises:
        ConfigError: If a word has no `=`, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, text = split_override(pair)
        if key in found:
            raise ConfigError(f"`{key}` is given twice. Give it once.")
        found[key] = parse_value(text, label=f"`{pair}`").data
    return found
