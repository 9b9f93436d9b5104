"""What an attempt is told of its trial, wherever it runs."""

import dataclasses
from typing import Any

from sweeper.batch import AUTO, BatchPlan
from sweeper.phases import PlannedPhase
from sweeper.records import HOST


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShorterTrial:
    """A trial that is the beginning of this one: it is read off when this one comes to its budget."""

    samples: int  # its budget
    trial_dir: str  # where its results belong


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything an attempt needs, JSON-able, so that it can travel to any node."""

    number: int
    attempt: int  # from 1
    study: str
    params: dict[str, Any]
    settings: dict[str, Any]  # base settings with params applied
    trial: dict[str, Any]  # the sweep file's `trial` section, paths absolute
    seed: int
    budget_samples: int
    total_steps: int | None
    micro_batch_size: int | None
    gradient_accumulation_steps: int | None
    marks: tuple[int, ...]  # samples at which a window closes: rungs and evaluations
    evaluation_marks: tuple[int, ...]  # samples at which the eval sets are read, the end not counted
    checkpoint_marks: tuple[int, ...]
    step_marks: tuple[int, ...] = ()  # the same as `marks`, for rungs that are given in steps
    data_parallel_size: int = 1  # workers that train the trial together
    gpu_share: float = (
        1.0  # of the memory of the GPU that each of them trains on, if there is one; 0: trains on CPUs
    )
    sharding: str | None = None  # how they share the model; None: each has all of it
    threads: int = 1  # of each worker
    trial_dir: str = ""  # this trial's own directory
    metric: str = ""
    direction: str = ""  # of the metric
    phases: tuple[PlannedPhase, ...] = ()  # empty where the trial trains in one part
    checkpoint_place: str = ""  # a path or an fsspec URL; empty: in the trial's directory
    checkpoint_step: int | None = None  # the newest that the study has the curve of; None: any may be used
    shorter: tuple[ShorterTrial, ...] = ()
    inherited_step: int = 0  # the checkpoint of this step is another trial's; 0: there is none
    data_identities: dict[str, str] = dataclasses.field(default_factory=dict)  # see `DataFacts.sources`
    benchmarks: dict[str, Any] | None = None  # the `benchmarks` section, where the trial itself runs it
    micro_batch_limits: dict[str, int] = dataclasses.field(
        default_factory=dict
    )  # by device; what fitted so far
    report_every_s: float = 1.0  # after which a window is closed that nothing else has closed

    def fitted(self, device: str) -> "TrialSpec":
        """Return the spec with the micro-batch that fits on a device, as far as is known."""
        if self.batch is None:
            return self
        limits = [limit for name, limit in self.micro_batch_limits.items() if name in (device, HOST)]
        limit = min(limits, default=None)
        plan = self._lowered(self.batch, limit)
        return dataclasses.replace(
            self,
            micro_batch_size=plan.micro_batch_size,
            gradient_accumulation_steps=plan.gradient_accumulation_steps,
            phases=tuple(
                dataclasses.replace(phase, batch=self._lowered(phase.batch, limit)) for phase in self.phases
            ),
        )

    @property
    def batch(self) -> BatchPlan | None:
        """How a step is cut; None for a function without `effective_batch_size`."""
        if self.micro_batch_size is None or self.gradient_accumulation_steps is None:
            return None
        return BatchPlan(
            micro_batch_size=self.micro_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            data_parallel_size=self.data_parallel_size,
        )

    @property
    def is_auto(self) -> bool:
        """Whether the micro-batch is cut by what fits."""
        return self.settings.get("micro_batch_size") == AUTO

    def _lowered(self, batch: BatchPlan, limit: int | None) -> BatchPlan:
        return batch.cut(limit) if self.is_auto and limit is not None else batch.within(limit)
