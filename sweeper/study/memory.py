"""A study without a storage: what happens in it is forgotten with it. For replay, which runs it by the hundred."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.plan import DataFacts, Point
from sweeper.records import Origin, RungRecord, StepRow, TrialRecord, TrialState
from sweeper.study.control_records import ControlEvent, ControlOutcome, ControlRequest

# Nothing is ever written there: trials of a replay have no files.
_NOWHERE = Path("/nonexistent/replay")


class MemoryCurves:
    """The newest curve of each trial."""

    def __init__(self) -> None:
        self._rows: dict[int, Sequence[StepRow]] = {}

    def rows(self, number: int) -> list[StepRow]:
        return list(self._rows.get(number, ()))

    def write(self, number: int, rows: Sequence[StepRow]) -> None:
        self._rows[number] = rows

    def set_aside(self, number: int) -> None:
        """There is none."""


class MemoryBox:
    """Requests that are forgotten with the study."""

    def __init__(self) -> None:
        self._requests: dict[str, ControlRequest] = {}
        self._outcomes: dict[str, ControlOutcome] = {}

    def send(self, request: ControlRequest) -> None:
        self._requests[request.id] = request

    def answer(self, request: ControlRequest, outcome: ControlOutcome) -> None:
        self._outcomes[request.id] = outcome

    def pending(self) -> list[ControlRequest]:
        return [request for name, request in self._requests.items() if name not in self._outcomes]

    def is_earlier(self, request: ControlRequest) -> bool:
        return False  # it has one driver

    def events(self) -> list[ControlEvent]:
        return [
            ControlEvent(request=request, outcome=self._outcomes.get(name))
            for name, request in self._requests.items()
        ]


class MemoryStudy:
    """The points of a sweep, all WAITING; the orchestrator's own records are all that is kept.

    Args:
        config: Whose pruner judges.
        points: In the order of their trials' numbers, which is the order in which they start.
    """

    def __init__(self, config: SweepConfig, points: Sequence[Point]) -> None:
        self.name = config.study
        self.config = config
        self.directory = _NOWHERE
        self.curves = MemoryCurves()
        self.control_box = MemoryBox()
        self._points = list(points)
        self._origins: dict[int, Origin] = {}
        self.states: dict[int, TrialState] = {}  # of the trials that ended

    def facts(self) -> DataFacts | None:
        return None

    def records(self) -> dict[int, TrialRecord]:
        """Return a fresh record of every point."""
        return {
            number: TrialRecord(
                number=number, state=TrialState.WAITING, params=point.params, point_id=point.point_id,
                settings=point.settings, budget_samples=point.budget_samples, total_steps=point.total_steps,
                origin=self._origins.get(number),
            )
            for number, point in enumerate(self._points)
        }  # fmt: skip

    def claim(self, number: int) -> None:
        """Nobody else could have taken it."""

    def skip(self, number: int) -> None:
        """It waits no more, which is the orchestrator's own record."""

    def check_held(self) -> None:
        """Nobody else could have it."""

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Nothing is written."""
        return contextlib.nullcontext()

    def commit(self) -> None:
        """Nothing is written."""

    @property
    def exhausted_at(self) -> int | None:
        """Whatever was recorded, it draws none."""
        return self.config.sampler.n_trials

    def draw(
        self,
        point_of: Callable[[dict[str, Any]], Point],
        *,
        is_new: Callable[[dict[str, Any]], bool] | None = None,
    ) -> NoReturn:
        raise ConfigError("A replay plays the points that were recorded; no sampler draws others.")

    def record_exhausted(self) -> None:
        """It draws none anyway."""

    def add_trial(self, point: Point, origin: Origin) -> int:
        self._points.append(point)
        self._origins[len(self._points) - 1] = origin
        return len(self._points) - 1

    def record_origin(self, number: int, origin: Origin) -> None:
        self._origins[number] = origin

    def set_point(self, number: int, point: Point) -> None:
        raise ConfigError("A replay plays the points that were recorded; none can be added.")

    def record_attempt(self, number: int, attempt: int, facts: Mapping[str, Any]) -> None:
        """Forget it."""

    def record_progress(self, record: TrialRecord) -> None:
        """Forget it: it is the orchestrator's own record."""

    def record_rung(self, number: int, rung: RungRecord) -> None:
        """Forget it: it is in the orchestrator's record."""

    def record_decision(self, number: int, index: int, entry: Mapping[str, Any]) -> None:
        """Forget it: it is in the orchestrator's record."""

    def record_read_off(self, number: int, source: int, *, at: str) -> None:
        """Forget it: it is in the orchestrator's record."""

    def record_checkpoint(self, number: int, name: str) -> None:
        """Forget it."""

    def micro_batches(self) -> dict[str, dict[str, int]]:
        return {}

    def record_micro_batches(self, limits: Mapping[str, Mapping[str, int]]) -> None:
        """A replay runs out of no memory."""

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: str | None = None,
    ) -> None:
        self.states[number] = state
