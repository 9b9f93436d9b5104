"""Whether the best point lies at the edge of the values that were tried, and which points lie beyond it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.params import SEED, is_number
from sweeper.plan import plan_point
from sweeper.records import TrialRecord
from sweeper.study.failed import from_scratch
from sweeper.study.view import StudyView

_MIN_TRIED = 3  # of two values the best is always at an edge
_STEPS = (1.5, 10.0)  # least and largest factor from the edge to what lies beyond it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
    """One dimension in which the best value is the last one that was tried."""

    name: str
    value: float
    is_smallest: bool
    beyond: float | None  # the next value to try; None where the sampler, not the user, chooses values


def edges_of(view: StudyView) -> list[Edge]:
    """Return where the best point lies at an edge beyond which there are values that can be trained.

    The best one and the values that were tried are those of trials from scratch.
    """
    best = _best(view)
    if best is None:
        return []
    found = []
    for name, value in best.params.items():
        tried = sorted(
            {
                record.params[name]
                for record in view.records
                if is_number(record.params.get(name)) and not record.is_warm_started
            }
        )
        if (
            name == SEED
            or not is_number(value)
            or len(tried) < _MIN_TRIED
            or value not in (tried[0], tried[-1])
        ):
            continue
        is_smallest = value == tried[0]
        beyond = _beyond(view, best, name, tried if is_smallest else tried[::-1])
        if beyond is None and not _has_more(view.config, name, value, is_smallest=is_smallest):
            continue  # such as a warm-up of 0 steps
        if not _is_listed(view.config, name):
            beyond = None
        found.append(Edge(name=name, value=value, is_smallest=is_smallest, beyond=beyond))
    return found


def points_beyond(view: StudyView) -> list[dict[str, Any]]:
    """Return the points to add: the best one's params with each edge passed alone, and with all passed at once."""
    steps = {edge.name: edge.beyond for edge in edges_of(view) if edge.beyond is not None}
    best = _best(view)
    if best is None or not steps:
        return []
    moves = [{name: value} for name, value in steps.items()] + ([steps] if len(steps) > 1 else [])
    known = {record.point_id for record in from_scratch({one.number: one for one in view.records})}
    points = [{**best.params, **move} for move in moves]
    return [point for point in points if (found := _point_id(view.config, point)) and found not in known]


def _best(view: StudyView) -> TrialRecord | None:
    return next(iter(view.from_scratch), None)


def _is_listed(config: SweepConfig, name: str) -> bool:
    dimension = config.search_space.get(name)
    return config.sampler.name == "grid" and dimension is not None and dimension.listed is not None


def _has_more(config: SweepConfig, name: str, value: float, *, is_smallest: bool) -> bool:
    """Whether the search space has values beyond one that the sampler has drawn."""
    dimension = config.search_space.get(name)
    if dimension is None:
        return False
    within = [one for one in dimension.listed or getattr(dimension, dimension.kind) if is_number(one)]
    return any(one < value if is_smallest else one > value for one in within)


def _beyond(view: StudyView, best: TrialRecord, name: str, tried: Sequence[float]) -> float | None:
    """Return the first value beyond `tried[0]`, the edge, that can be trained; the others lead away from it."""
    edge, inner = tried[0], tried[1]
    if all(value > 0 for value in tried):
        least, most = _STEPS
        factor = min(most, max(least, max(edge, inner) / min(edge, inner)))
        value = edge * factor if edge > inner else edge / factor
    else:
        value = edge + (edge - inner)
    if all(isinstance(value, int) for value in tried):
        rounded: float = round(value)
        micro = best.settings.get("micro_batch_size")
        if name == "effective_batch_size" and isinstance(micro, int) and rounded > micro:
            rounded = round(rounded / micro) * micro
    else:
        rounded = _short(value)
    can_be = rounded != edge and _point_id(view.config, {**best.params, name: rounded}) is not None
    return rounded if can_be else None


def _short(value: float) -> float:
    """Return a value with as few digits as change it by no more than a tenth.

    >>> _short(0.00949), _short(1.5e-4), _short(2.5e-7)
    (0.009, 0.00015, 2.5e-07)
    """
    for digits in (1, 2):
        rounded = float(f"{value:.{digits - 1}e}")
        if math.isclose(rounded, value, rel_tol=0.1 if digits == 1 else 1.0):
            return rounded
    return value


def _point_id(config: SweepConfig, params: dict[str, Any]) -> str | None:
    try:
        return plan_point(config, params).point_id
    except ConfigError:
        return None  # beyond what the setting allows, or a batch that cannot be cut
