"""What the rooms of the orchestrator share: the study, the records of its trials, and what runs."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeper.checkpoint import KeptCheckpoints, Retention, checkpoints_place, open_checkpoints, trials_at
from sweeper.events import Event, EventKind, Listener
from sweeper.plan import Plan, Point
from sweeper.pruners.divergence import DivergenceMonitor
from sweeper.records import LoggedRecords, RungRecord
from sweeper.step_rows import StepRows
from sweeper.study import layout
from sweeper.study.interface import SweepStudy
from sweeper.trial_spec import TrialSpec


@dataclasses.dataclass(kw_only=True)
class Running:
    """What is kept of a trial while it runs; all of it can be rebuilt from its curve."""

    point: Point
    rows: StepRows
    monitor: DivergenceMonitor
    metrics: dict[str, float]  # newest value of each
    spec: TrialSpec
    worker: dict[str, Any] | None
    started: str
    n_written: int  # rows of it that are on disk
    flushed_at: float
    progress_at: float  # when its progress was last written
    earlier_train_s: float
    earlier_evaluation_s: float
    unjudged: list[RungRecord]  # recorded by an earlier driver that died before it had judged there
    train_s: float = 0.0  # this attempt
    evaluation_s: float = 0.0
    micro_batch_size: int | None = None  # as its worker last said
    is_done: bool = False  # whether it has trained to its end, as its worker says
    told_aside: bool = False  # whether it was told to save and end, so that another one gets its slot


class SweepState:
    """The sweep in memory.

    Args:
        study: The study, held by this driver.
        plan: The plan of its config.
        listeners: Told of every event.
        clock: Seconds, monotonic.
        checkpoints_of: Opens a trial's checkpoints; by default those at `place`.
    """

    def __init__(
        self,
        *,
        study: SweepStudy,
        plan: Plan,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        checkpoints_of: Callable[[int], KeptCheckpoints] | None = None,
    ) -> None:
        self.checkpoints = checkpoints_of or self._open_checkpoints
        self.study = study
        self.plan = plan
        self.config = study.config
        self.clock = clock
        self.records = LoggedRecords(study.records())
        exhausted_at = study.exhausted_at
        self.records.all_drawn = exhausted_at is not None and exhausted_at == study.config.sampler.n_trials
        self.points = {point.point_id: point for point in plan.points}
        self.running: dict[int, Running] = {}
        self.is_interrupted = False
        self.is_out_of_time = False  # by which it is interrupted
        self.failure: str | None = None  # why the sweep gives up, once it does
        self.may_save = True  # whether trials that are told to end may save first: not on a full disk
        self.is_paused = False  # until somebody ends the pause
        self.max_concurrent: int | None = None  # trials at a time, as somebody has set it
        self.kept: dict[int, str] = {}  # trials that the pruner stops no more, with who asked for it
        self.listeners = list(listeners)
        self._started_at = clock()
        self._untold: list[Event] | None = None  # events of what is not committed yet

    @property
    def is_draining(self) -> bool:
        """Whether no further trial will be started."""
        return self.is_interrupted or self.failure is not None

    @property
    def elapsed_s(self) -> float:
        """How long this driver has had the sweep."""
        return self.clock() - self._started_at

    def trial_dir(self, number: int) -> Path:
        return layout.trial_dir(self.study.directory, number)

    def place(self, number: int) -> str:
        """Return where a trial's checkpoints lie."""
        url = self.config.trial.checkpoint.url
        return checkpoints_place(
            url, study=self.study.name, trial_dir=str(self.trial_dir(number)), number=number
        )

    def with_checkpoints(self, numbers: Iterable[int]) -> list[int]:
        """Return which of some trials may have checkpoints; of an object store, which is slow, that is asked once."""
        url = self.config.trial.checkpoint.url
        found = None if url is None else trials_at(url, study=self.study.name)
        return [number for number in numbers if found is None or number in found]

    def retention(self) -> Retention:
        """Return what removes checkpoints by the config's policy; it keeps count of them."""
        policy = self.config.trial.checkpoint
        return Retention(
            self.checkpoints,
            with_any=self.with_checkpoints,
            keep_best=policy.keep_best,
            max_bytes=None if policy.max_gb is None else int(policy.max_gb * 1e9),
            maximize=self.config.direction == "maximize",
        )

    def _open_checkpoints(self, number: int) -> KeptCheckpoints:
        return open_checkpoints(self.place(number))

    def tell(self, kind: EventKind, message: str = "", **facts: Any) -> None:
        """Tell the listeners of an event; `facts` are further fields of `Event`."""
        event = Event(kind=kind, at_s=self.elapsed_s, message=message, **facts)
        if self._untold is None:
            self._deliver(event)
        else:
            self._untold.append(event)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let what the block writes be committed at once, where the storage can, and told of after that.

        In a block within a block it is part of the outer one.
        """
        if self._untold is not None:
            yield
            return
        self._untold = []
        try:
            with self.study.together():
                try:
                    yield
                finally:  # what was recorded before an error is as true as without it
                    self.commit()
        finally:
            self._untold = None

    def commit(self) -> None:
        """Commit what was written so far. Asked before anything is acted on that cannot be taken back."""
        self.study.commit()
        while self._untold:
            self._deliver(self._untold.pop(0))

    def _deliver(self, event: Event) -> None:
        for listener in self.listeners:
            listener.on_event(event)
