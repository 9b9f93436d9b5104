"""Where the rungs lie, and where each point comes to them."""

import dataclasses
import math

from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.space_values import possible_values
from sweeper.learning import LEARNED_FRACTIONS, LEARNED_MIN_POINTS
from sweeper.phases import Course
from sweeper.plan.budget import CommonBudget, possible_batches, to_samples
from sweeper.plan.data import DataFacts, PlannedRung, RungUnit
from sweeper.rungs import rung_samples, rungs_at_fractions

DEFAULT_FRACTIONS = (0.1, 0.3)  # of the budget


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungMarks:
    """The rungs of a whole sweep: the same marks for all points."""

    marks: tuple[int, ...]
    unit: RungUnit
    is_known: bool = True  # False until the data was counted


def rung_marks(config: SweepConfig, common: CommonBudget, facts: DataFacts | None) -> RungMarks:
    """Return the sweep's rungs: samples, unless the user speaks of steps.

    Fractions are of the smallest budget of the sweep, so that every point comes to every rung.
    """
    rungs = config.rungs
    if rungs.steps is not None:
        return RungMarks(marks=tuple(rungs.steps), unit="steps")
    if rungs.samples is not None:
        return RungMarks(marks=tuple(rungs.samples), unit="samples")
    batches = possible_batches(config)
    lowest, highest = _budget_range(config, common, facts)
    unit: RungUnit = "samples"
    if common.kind == "steps":
        if batches is not None and len(batches) == 1:
            lowest, highest = (budget and budget * batches[0] for budget in (lowest, highest))
        elif rungs.first is None:
            unit = "steps"
        else:
            highest = highest and highest * max(batches or [1])
    if lowest is None or highest is None:
        return RungMarks(marks=(), unit=unit, is_known=False)
    if rungs.first is not None and rungs.reduction_factor is not None:
        first, factor = rungs.first, rungs.reduction_factor
        marks = rung_samples(first=first, budget=highest, reduction_factor=factor)
        return RungMarks(marks=marks, unit=unit)
    fractions = rungs.fractions if rungs.fractions is not None else _default_fractions(config)
    distinct = dict.fromkeys(rungs_at_fractions(fractions, budget=lowest))
    return RungMarks(marks=tuple(mark for mark in distinct if mark < lowest), unit=unit)


def point_rungs(
    rungs: RungMarks, course: Course, *, has_batch: bool, total_steps: int | None
) -> tuple[PlannedRung, ...]:
    """Return the rungs of one point.

    A rung at the point's end is none, since a trial that gets there is complete. Of two that fall on one step
    the later one stays, which lies nearer to what the point has seen there.
    """
    planned: dict[int, PlannedRung] = {}
    for index, mark in enumerate(rungs.marks):
        step = mark if rungs.unit == "steps" else course.first_step_at(mark)
        if total_steps is None or step < total_steps:
            samples = course.samples_at(step) if has_batch or rungs.unit == "steps" else mark
            planned[step] = PlannedRung(index=index, mark=mark, step=step, samples=samples, unit=rungs.unit)
    return tuple(planned.values())


def _default_fractions(config: SweepConfig) -> tuple[float, ...]:
    """Return more rungs where trials are judged by prediction: each one lets a hopeless trial end sooner."""
    return LEARNED_FRACTIONS if learns(config) else DEFAULT_FRACTIONS


def learns(config: SweepConfig) -> bool:
    """Whether trials are judged by prediction, and may be enough to learn from: those of an earlier study count too."""
    if config.pruner.name != EARLY_DYNAMICS or config.pruner.directions != "learned":
        return False
    return config.pruner.prior is not None or n_points(config) >= LEARNED_MIN_POINTS


def n_points(config: SweepConfig) -> int:
    """Return how many points the sweep has, as far as the config says; repeated ones count."""
    if config.sampler.n_trials is not None:
        return config.sampler.n_trials
    if config.points is not None:
        return len(config.points)
    return math.prod(len(possible_values(dimension) or ()) for dimension in config.search_space.values())


def _budget_range(
    config: SweepConfig, common: CommonBudget, facts: DataFacts | None
) -> tuple[int | None, int | None]:
    """Return the smallest and the largest budget of the sweep, in samples or, for `steps`, in steps."""
    if common.kind == "steps" and common.value is not None:
        return int(common.value), int(common.value)
    if not common.is_swept:
        return common.samples, common.samples
    dimension = config.search_space[common.kind]
    values = dimension.listed or getattr(dimension, dimension.kind)
    if common.kind == "steps":
        return int(min(values)), int(max(values))
    lowest, highest = (to_samples(common.kind, one, facts, common.mix) for one in (min(values), max(values)))
    return lowest, highest
