"""What a plan is made of. Frozen data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sweeper.batch import BatchPlan
from sweeper.config.models import SweepConfig
from sweeper.phases import PlannedPhase, phase_ends

RungUnit = Literal["samples", "steps"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What was counted in the training data; budgets in epochs and tokens need it."""

    rows: int  # training sequences of one epoch
    target_tokens: int | None  # tokens of one epoch that the loss counts
    # Rows and target tokens of each of `data_sets`; empty where there are none, or an older study did not count them.
    sets: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    # What each source held, by its place in the `trial` section; every trial is held to it.
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRung:
    """Where one point comes to one rung."""

    index: int  # of the sweep's rungs; a point may lack some
    mark: int  # in samples, or in steps where the rungs are given so
    step: int  # first optimiser step at or past the mark; the mark where the batch is not known
    samples: int  # seen after that step
    unit: RungUnit = "samples"  # of the mark

    def is_reached(self, *, step: int, samples: int) -> bool:
        """Whether a trial that stands at `step` and `samples` has come to this rung."""
        return (step if self.unit == "steps" else samples) >= self.mark


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the search space, resolved."""

    params: dict[str, Any]  # the sampled values only
    settings: dict[str, Any]  # base settings with params applied; all of TrainSettings, or the function's own
    point_id: str  # hash of the resolved trial config
    batch: BatchPlan | None  # None for a function without `effective_batch_size`
    budget_samples: int | None  # None until the data was counted
    total_steps: int | None  # None where batch or budget are not known
    rungs: tuple[PlannedRung, ...]
    phases: tuple[PlannedPhase, ...] = ()  # empty where it trains in one part

    @property
    def phase_ends(self) -> tuple[int, ...]:
        """Samples after which another phase begins; none where it trains in one part."""
        return phase_ends(self.phases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep will do, computed from its config alone."""

    config: SweepConfig
    points: tuple[Point, ...]  # of the grid sampler, all; of the others none
    n_trials: int
    rung_marks: tuple[int, ...]
    rung_unit: RungUnit
    rungs_are_known: bool  # False until the data was counted
    budget_samples: int | None  # of one point, where all have the same
    examples: tuple[Point, ...]  # for samplers that draw: a point of each effective batch and listed budget
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    # Ids of points that are beginnings of one training: the longest of each group is trained, the others are read off.
    same_training: tuple[tuple[str, ...], ...] = ()
    first_points: tuple[Point, ...] = ()  # that a sampler which draws begins with
    untrainable: str | None = None  # of a study that has begun: what to tell of draws that cannot be trained

    @property
    def entered_points(self) -> tuple[Point, ...]:
        """Return the points that a study enters as it begins: the whole grid, or those a sampler begins with."""
        return self.points or self.first_points

    @property
    def trained_points(self) -> tuple[Point, ...]:
        """Return the points that are trained; the others are read off longer ones."""
        read_off = {point_id for group in self.same_training for point_id in group[1:]}
        return tuple(point for point in self.points if point.point_id not in read_off)

    @property
    def total_samples(self) -> int | None:
        """Return the samples of the whole sweep with nothing pruned; None where they are not known yet."""
        if not self.points:
            return None if self.budget_samples is None else self.n_trials * self.budget_samples
        budgets = [point.budget_samples for point in self.trained_points]
        return None if any(budget is None for budget in budgets) else sum(budget or 0 for budget in budgets)


Params = Mapping[str, Any]
