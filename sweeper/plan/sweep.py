"""The plan of a whole sweep."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension
from sweeper.config.space_values import possible_values
from sweeper.config.trial_models import BUDGET_KINDS
from sweeper.errors import ConfigError
from sweeper.plan.budget import common_budget, possible_batches
from sweeper.plan.data import DataFacts, Plan, Point
from sweeper.plan.marks import rung_marks
from sweeper.plan.notes import notes
from sweeper.plan.points import PointResolver
from sweeper.plan.sharing import same_training
from sweeper.plan.warnings import warnings


def plan_sweep(
    config: SweepConfig, *, facts: DataFacts | None = None, began_as: SweepConfig | None = None
) -> Plan:
    """Compute what a sweep will do. Reads no file and starts nothing.

    Args:
        config: The resolved config.
        facts: What was counted in the training data. Without them, budgets in epochs or tokens stay unknown.
        began_as: Of a study that has begun, its config so far: what its sampler could draw under that and could not
            train either is warned of and not refused, since such a study may be older than the rule.

    Raises:
        ConfigError: If a point cannot be trained as configured.
    """
    resolver = _resolver(config, facts)
    common, rungs = resolver.common, resolver.rungs
    points = [resolver.resolve(params) for params in grid_params(config)]
    listed = points or [resolver.resolve(params) for params in _listed_params(config)]
    once = tuple({point.point_id: point for point in reversed(listed)}.values())[::-1]
    unique, first = (once, ()) if points else ((), once)
    before = None if began_as is None else _resolver(began_as, facts)
    examples, untrainable = ((), None) if points else _examples(resolver, before)
    shown = unique or examples
    shared = same_training(config, unique)
    return Plan(
        config=config,
        points=unique,
        first_points=first,
        examples=examples,
        n_trials=config.sampler.n_trials or len(unique),
        rung_marks=rungs.marks,
        rung_unit=rungs.unit,
        rungs_are_known=rungs.is_known,
        budget_samples=_shared_budget(shown),
        notes=(*notes(config, common, rungs, shown, facts), *_shared_notes(shared)),
        warnings=(*warnings(config, common, rungs, shown), *_repeats(len(listed), len(once))),
        same_training=shared,
        untrainable=untrainable,
    )


def _resolver(config: SweepConfig, facts: DataFacts | None) -> PointResolver:
    common = common_budget(config, facts)
    return PointResolver(config=config, common=common, rungs=rung_marks(config, common, facts), facts=facts)


def grid_params(config: SweepConfig) -> Iterator[dict[str, Any]]:
    """Yield the params of every point of a grid, the last dimension fastest; none for samplers that draw."""
    if config.sampler.name != "grid":
        return
    if config.points is not None:
        yield from _listed_params(config)
        return
    names = list(config.search_space)
    axes = [possible_values(dimension) or [] for dimension in config.search_space.values()]
    for values in itertools.product(*axes):
        yield dict(zip(names, values, strict=True))


def _listed_params(config: SweepConfig) -> Iterator[dict[str, Any]]:
    for point in config.points or ():
        yield {name: point[name] for name in config.search_space}


def _examples(resolver: PointResolver, before: PointResolver | None) -> tuple[tuple[Point, ...], str | None]:
    """Resolve what a sampler may draw; return the points, and what to tell of those that were left out.

    Raises:
        ConfigError: If one cannot be trained and could before, or none can.
    """
    examples, refused = [], []
    for params in _example_params(resolver.config):
        try:
            examples.append(resolver.resolve(params))
        except ConfigError as error:
            if before is None or _resolves(before, params):
                raise
            refused.append((params, error))
    if not refused:
        return tuple(examples), None
    (first, why), n = refused[0], len(examples) + len(refused)
    if not examples:
        raise why
    named = ", ".join(f"{name} = {first[name]}" for name in _axes(resolver.config))
    return tuple(examples), (
        f"{len(refused)} of the {n} batches and lengths of training that the sampler may draw cannot be trained, the "
        f"first with {named}: {why} A draw of them ends as FAIL without being trained."
    )


def _resolves(resolver: PointResolver, params: Mapping[str, Any]) -> bool:
    try:
        resolver.resolve(params)
    except ConfigError:
        return False
    return True


def _example_params(config: SweepConfig) -> Iterator[dict[str, Any]]:
    """Yield a point for every length and cut of training that a sampler may draw; of ranges the ends.

    So what would be too short to train is refused with the plan, and not when it is drawn.
    """
    first = {name: _ends(dimension)[0] for name, dimension in config.search_space.items()}
    axes = _axes(config)
    for values in itertools.product(*axes.values()):
        yield {**first, **dict(zip(axes, values, strict=True))}


def _axes(config: SweepConfig) -> dict[str, Sequence[Any]]:
    """Return the dimensions that say how long a point is trained and how that is cut, with their values or ends."""
    axes: dict[str, Sequence[Any]] = {}
    for name, dimension in config.search_space.items():
        if name == "effective_batch_size":
            axes[name] = possible_batches(config) or _ends(dimension)
        elif name in BUDGET_KINDS or name == "data_strategy":
            axes[name] = dimension.listed or _ends(dimension)[:1]
    return axes


def _ends(dimension: Dimension) -> tuple[Any, Any]:
    values = dimension.listed or getattr(dimension, dimension.kind)
    return values[0], values[-1]


def _repeats(n_points: int, n_unique: int) -> Iterator[str]:
    if n_unique < n_points:
        yield (
            f"{n_points - n_unique} of {n_points} points resolve to the same training as another one and are "
            "trained once."
        )


def _shared_notes(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    n_shorter = sum(len(group) - 1 for group in groups)
    if n_shorter:
        points = "1 point differs" if n_shorter == 1 else f"{n_shorter} points differ"
        yield (
            f"{points} from a longer one in nothing but the budget, and under a steady rate a shorter run is the "
            "beginning of the longer one: it is read off its curve and not trained. Where the longer one is stopped "
            "before, the shorter one is trained."
        )


def _shared_budget(points: Sequence[Point]) -> int | None:
    """Return the budget of one point if all have the same."""
    budgets = {point.budget_samples for point in points}
    return budgets.pop() if len(budgets) == 1 else None
