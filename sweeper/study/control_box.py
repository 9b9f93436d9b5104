"""Where requests and their outcomes lie: attributes of the study, one each, so that no writer meets another."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage

from sweeper.study.control_records import (
    ControlEvent,
    ControlOutcome,
    ControlRequest,
    request_facts,
    request_from,
)

logger = logging.getLogger(__name__)

_ASKED, _ANSWERED = "sweeper:control:", "sweeper:controlled:"


class ControlBox:
    """The requests to one study. Anyone may send; only the driver answers.

    A look reads the study's own attributes and none of its trials: of a journal the lines that are new since the
    last look, of a database one short query.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._ended: set[str] = set()  # answered, or not to be read
        self._earlier: set[str] = set()  # ids

    def send(self, request: ControlRequest) -> None:
        """Write a request."""
        self._storage.set_study_user_attr(self._study_id, f"{_ASKED}{request.id}", request_facts(request))

    def answer(self, request: ControlRequest, outcome: ControlOutcome) -> None:
        """Write what became of a request."""
        name = f"{_ANSWERED}{request.id}"
        self._storage.set_study_user_attr(self._study_id, name, dataclasses.asdict(outcome))
        self._ended.add(request.id)

    def note_earlier(self) -> None:
        """Take note of what was asked of earlier drivers. To be called before this one takes the study.

        Anything later may be asked of this one, which stands as `running` from the moment when it takes the study.
        """
        self._earlier = {request.id for request in self.pending()}

    def is_earlier(self, request: ControlRequest) -> bool:
        """Whether a request was noted as one of an earlier driver's."""
        return request.id in self._earlier

    def pending(self) -> list[ControlRequest]:
        """Return the requests without an answer, in the order of their ids. Cheap."""
        attributes = self._storage.get_study_user_attrs(self._study_id)
        found = []
        for key in attributes:
            if not key.startswith(_ASKED):
                continue
            name = key.removeprefix(_ASKED)
            if name in self._ended:
                continue
            if f"{_ANSWERED}{name}" in attributes:
                self._ended.add(name)
                continue
            request = self._read(name, attributes[key])
            if request is not None:
                found.append(request)
        return sorted(found, key=lambda request: request.id)

    def events(self) -> list[ControlEvent]:
        """Return all requests in the order in which they were answered, those without an answer last."""
        attributes = self._storage.get_study_user_attrs(self._study_id)
        found = []
        for key, facts in attributes.items():
            if key.startswith(_ASKED):
                name = key.removeprefix(_ASKED)
                request = self._read(name, facts)
                if request is not None:
                    found.append(
                        ControlEvent(request=request, outcome=_outcome(attributes.get(f"{_ANSWERED}{name}")))
                    )
        return sorted(found, key=_place)

    def event(self, request: ControlRequest) -> ControlEvent:
        """Return one request with its outcome."""
        attributes = self._storage.get_study_user_attrs(self._study_id)
        return ControlEvent(request=request, outcome=_outcome(attributes.get(f"{_ANSWERED}{request.id}")))

    def _read(self, name: str, facts: Any) -> ControlRequest | None:
        try:
            return request_from(name, facts)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("A request to the study cannot be read and is left alone (%s: %s).", name, error)
            self._ended.add(name)
            return None


def _outcome(facts: Mapping[str, Any] | None) -> ControlOutcome | None:
    return None if facts is None else ControlOutcome(**facts)


def _place(event: ControlEvent) -> tuple[bool, int, str]:
    outcome = event.outcome
    return (outcome is None, 0 if outcome is None else outcome.order, event.request.id)
