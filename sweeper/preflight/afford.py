"""How far a sweep may go for a number of GPU-hours: the share of points that `probe` lets go on at each rung."""

import math
from collections.abc import Sequence

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.plan import Plan
from sweeper.preflight.measure import Cost
from sweeper.rungs import n_going_on

_STEPS = 1000  # shares are looked for in thousandths


def afford(plan: Plan, cost: Cost) -> tuple[SweepConfig, str]:
    """Return the config with the largest `keep_frac` that its `max_gpu_hours` allow, and what to tell of it.

    Without GPUs an hour of a slot counts. The `keep_frac` that is given is the most that it becomes.

    Args:
        plan: Of a config with `max_gpu_hours`.
        cost: Of the whole grid, measured.

    Raises:
        ConfigError: If the hours are too few for any share.
    """
    section = plan.config.pruner
    assert section.max_gpu_hours is not None
    hours = device_hours(cost)
    fractions = [mark / _length(plan) for mark in plan.rung_marks]
    most = section.max_gpu_hours / hours
    found = keep_frac_within(most, n_points=plan.n_trials, fractions=fractions, at_most=section.keep_frac)
    if found is None:
        least = probe_share(1 / _STEPS, n_points=plan.n_trials, fractions=fractions) * hours
        raise ConfigError(
            f"`pruner.max_gpu_hours` is {section.max_gpu_hours:g}, but training all {plan.n_trials} points to the "
            f"first rung and one of them to its end takes {least:.3g} (in full: {hours:.3g}). Raise it, or lower the "
            "first rung or the number of points."
        )
    spent = probe_share(found, n_points=plan.n_trials, fractions=fractions) * hours
    pruner = section.model_copy(update={"keep_frac": found})
    return plan.config.model_copy(update={"pruner": pruner}), (
        f"keep_frac = {found:g}: the sweep then takes some {spent:.3g} of at most {section.max_gpu_hours:g} GPU-hours "
        f"(in full: {hours:.3g}), if those that go on are as long as the others"
    )


def device_hours(cost: Cost) -> float:
    """Return the GPU-hours of the whole grid, or where there are no GPUs the hours of its slots."""
    return cost.total_s * (cost.gpus_per_trial or 1.0) / 3600


def keep_frac_within(
    share: float, *, n_points: int, fractions: Sequence[float], at_most: float
) -> float | None:
    """Return the largest fraction to keep whose cost is within a share of the whole grid's; None where none is."""
    for step in range(math.floor(at_most * _STEPS), 0, -1):
        if probe_share(step / _STEPS, n_points=n_points, fractions=fractions) <= share:
            return step / _STEPS
    return None


def probe_share(keep_frac: float, *, n_points: int, fractions: Sequence[float]) -> float:
    """Return the share of the whole grid's training that probing takes: the best go on at every rung.

    >>> probe_share(0.5, n_points=8, fractions=[0.25])
    0.625
    """
    entering, before, spent = n_points, 0.0, 0.0
    for at in (*fractions, 1.0):
        spent += entering * (at - before)
        entering, before = n_going_on(keep_frac, entering), at
    return spent / n_points


def _length(plan: Plan) -> float:
    """Return the budget of a point in the unit of the rungs; the mean where they differ."""
    points = plan.points or plan.examples
    if plan.rung_unit == "steps":
        return sum(point.total_steps or 0 for point in points) / len(points)
    return sum(point.budget_samples or 0 for point in points) / len(points)
