"""Points that differ in nothing but their budget: one of them is trained, the others are read off its curve."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import BUDGET_KINDS
from sweeper.optimizer import STEADY_SCHEDULES
from sweeper.plan.data import Point
from sweeper.plan.phases import is_phased
from sweeper.plan.points import resolve_settings
from sweeper.records import GRAD_NORM, LOSS, TrialRecord


def same_training(config: SweepConfig, points: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
    """Return the ids of points that are beginnings of one training, the longest of each group first.

    A shorter run is the beginning of a longer one only where the rate does not depend on the budget. Where what is
    measured at a trial's end needs more than its curve and its evaluation (benchmarks, the mean of its last losses),
    every point is trained for itself; so it is with a user's function, which need not end as it passes by.
    """
    if not _may_share(config):
        return ()
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.budget_samples is not None and not point.phases and _is_steady(point.settings):
            groups.setdefault(_key(point.settings), []).append(point)
    ordered = (sorted(group, key=lambda point: -(point.budget_samples or 0)) for group in groups.values())
    return tuple(tuple(point.point_id for point in group) for group in ordered if len(group) > 1)


def by_training(config: SweepConfig, records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Return trials by what is trained: those of one list are beginnings of one training, as `same_training` says.

    A trial that somebody added is trained for itself, and so are all where nothing can be shared.
    """
    if config.sampler.name != "grid" or not _may_share(config):
        return [[record] for record in records]
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(_training_of(config, record), []).append(record)
    return list(groups.values())


def _training_of(config: SweepConfig, record: TrialRecord) -> str:
    """Return text that is equal for trials of one training."""
    if record.origin is None and record.budget_samples is not None:
        settings = resolve_settings(config, record.params)
        if not is_phased(config, settings) and _is_steady(settings):
            return _key(settings)
    return str(record.number)


def _may_share(config: SweepConfig) -> bool:
    if config.trial.function is not None or not any(kind in config.search_space for kind in BUDGET_KINDS):
        return False
    if config.metric in (LOSS, GRAD_NORM):
        return False
    return config.benchmarks is None or config.benchmarks.when != "completed"


def _is_steady(settings: Mapping[str, Any]) -> bool:
    return settings["lr_scheduler_type"] in STEADY_SCHEDULES and not settings["warmup_frac"]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
