"""Points that differ in nothing but their budget: one of them is trained, the others are read off its curve."""

import json
from collections.abc import Sequence

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import BUDGET_KINDS
from sweeper.optimizer import STEADY_SCHEDULES
from sweeper.plan.data import Point
from sweeper.records import GRAD_NORM, LOSS


def same_training(config: SweepConfig, points: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
    """Return the ids of points that are beginnings of one training, the longest of each group first.

    A shorter run is the beginning of a longer one only where the rate does not depend on the budget. Where what is
    measured at a trial's end needs more than its curve and its evaluation (benchmarks, the mean of its last losses),
    every point is trained for itself; so it is with a user's function, which need not end as it passes by.
    """
    if config.trial.function is not None or not any(kind in config.search_space for kind in BUDGET_KINDS):
        return ()
    if config.metric in (LOSS, GRAD_NORM):
        return ()
    if config.benchmarks is not None and config.benchmarks.when == "completed":
        return ()
    groups: dict[str, list[Point]] = {}
    for point in points:
        if _is_steady(point):
            groups.setdefault(json.dumps(point.settings, sort_keys=True), []).append(point)
    ordered = (sorted(group, key=lambda point: -(point.budget_samples or 0)) for group in groups.values())
    return tuple(tuple(point.point_id for point in group) for group in ordered if len(group) > 1)


def _is_steady(point: Point) -> bool:
    settings = point.settings
    return (
        point.budget_samples is not None
        and not point.phases
        and settings["lr_scheduler_type"] in STEADY_SCHEDULES
        and not settings["warmup_frac"]
    )
