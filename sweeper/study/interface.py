"""What the orchestrator needs of a study: where facts go before anyone acts on them."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeper.config.models import SweepConfig
from sweeper.plan import DataFacts, Point
from sweeper.records import Origin, RungRecord, StepRow, TrialRecord, TrialState
from sweeper.study.control_records import ControlEvent, ControlOutcome, ControlRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """One draw of a sampler, as it was entered."""

    number: int
    params: dict[str, Any]
    point: Point | None  # None: it cannot be trained
    refused: str | None = None  # why not


class Curves(Protocol):
    """The curves of a study's trials."""

    def rows(self, number: int) -> list[StepRow]:
        """Return a trial's curve; empty where it never reported."""

    def write(self, number: int, rows: Sequence[StepRow]) -> None:
        """Replace a trial's curve."""

    def set_aside(self, number: int) -> None:
        """Move a damaged curve out of the way."""


class Box(Protocol):
    """The requests to a study; read `sweeper.study.control_box.ControlBox`."""

    def pending(self) -> list[ControlRequest]: ...

    def events(self) -> list[ControlEvent]: ...

    def is_earlier(self, request: ControlRequest) -> bool: ...

    def answer(self, request: ControlRequest, outcome: ControlOutcome) -> None: ...


class SweepStudy(Protocol):
    """A study as the orchestrator uses it: `Study` in its storage, or `MemoryStudy` for replay.

    Writes go through at once, except in a block `together`. Read `sweeper.study.study.Study` for what each one means.
    """

    name: str
    config: SweepConfig

    @property
    def directory(self) -> Path: ...

    @property
    def curves(self) -> Curves: ...

    @property
    def control_box(self) -> Box: ...

    def facts(self) -> DataFacts | None: ...

    def records(self) -> dict[int, TrialRecord]: ...

    def claim(self, number: int) -> None: ...

    def skip(self, number: int) -> None: ...

    def check_held(self) -> None: ...

    def together(self) -> contextlib.AbstractContextManager[None]: ...

    def commit(self) -> None: ...

    @property
    def exhausted_at(self) -> int | None: ...

    def draw(
        self,
        point_of: Callable[[dict[str, Any]], Point],
        *,
        is_new: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Drawn: ...

    def record_exhausted(self) -> None: ...

    def add_trial(self, point: Point, origin: Origin) -> int: ...

    def record_origin(self, number: int, origin: Origin) -> None: ...

    def set_point(self, number: int, point: Point) -> None: ...

    def record_attempt(self, number: int, attempt: int, facts: Mapping[str, Any]) -> None: ...

    def record_progress(self, record: TrialRecord) -> None: ...

    def record_rung(self, number: int, rung: RungRecord) -> None: ...

    def record_decision(self, number: int, index: int, entry: Mapping[str, Any]) -> None: ...

    def record_read_off(self, number: int, source: int, *, at: str) -> None: ...

    def record_checkpoint(self, number: int, name: str) -> None: ...

    def micro_batches(self) -> dict[str, dict[str, int]]: ...

    def record_micro_batches(self, limits: Mapping[str, Mapping[str, int]]) -> None: ...

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: str | None = None,
    ) -> None: ...
