"""Whether the best point lies at the edge of the values that were tried, and which points lie beyond it."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
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

    The best one and the values that were tried are those of trials from scratch. A value is tried when a trial that has
    it has ended; of those that are still to be trained none may lie beyond the edge. Where an inner value has given as
    much as the edge has, there is none.
    """
    best = _best(view)
    if best is None:
        return []
    found = []
    tied = [record for record in view.from_scratch if record.value == best.value]
    for name, value in best.params.items():
        values, tried = _values(view, name), _values(view, name, ended=True)
        if (
            name == SEED
            or not is_number(value)
            or len(tried) < _MIN_TRIED
            or value not in (values[0], values[-1])
            or any(record.params.get(name) in values[1:-1] for record in tied)
        ):
            continue
        is_smallest = value == values[0]
        beyond = _beyond(view, best, name, values if is_smallest else values[::-1])
        if beyond is None and not _has_more(view.config, name, value, is_smallest=is_smallest):
            continue  # such as a warm-up of 0 steps
        if not _is_listed(view.config, name):
            beyond = None
        found.append(Edge(name=name, value=value, is_smallest=is_smallest, beyond=beyond))
    return found


def _values(view: StudyView, name: str, *, ended: bool = False) -> list[float]:
    """Return the values of a param in trials from scratch, in order: in all of them, or in those that have ended."""
    found = {
        record.params[name]
        for record in view.records
        if is_number(record.params.get(name))
        and not record.is_warm_started
        and (record.state.is_finished or not ended)
    }
    return sorted(found)


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
    micro = best.settings.get("micro_batch_size")
    for value in _steps(tried):
        if name == "effective_batch_size" and isinstance(micro, int) and value > micro:
            value = round(value / micro) * micro
        is_further = value > edge if edge > inner else value < edge
        if is_further and _point_id(view.config, {**best.params, name: value}) is not None:
            return value
    return None


def _steps(tried: Sequence[float]) -> Iterator[float]:
    """Yield values beyond `tried[0]`, the likeliest first.

    Rates and batch sizes go by factors; shares and Adam's betas, which end at 1, by factors of what is missing to it.
    """
    edge, inner = tried[0], tried[1]
    is_whole, are_positive = all(isinstance(value, int) for value in tried), all(value > 0 for value in tried)
    even = round if is_whole else _short
    step = even(edge + (edge - inner))
    yield even(_by_factor(edge, inner)) if are_positive else step
    if not is_whole and min(tried) >= 0 and inner < edge < 1:
        yield float(f"{1 - _short(_by_factor(1 - edge, 1 - inner)):.12g}")
    if are_positive and step > 0:
        yield step


def _by_factor(edge: float, inner: float) -> float:
    least, most = _STEPS
    factor = min(most, max(least, max(edge, inner) / min(edge, inner)))
    return edge * factor if edge > inner else edge / factor


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
