"""Rules of `points`, which picks points out of the grid instead of taking all."""

import json
from typing import Any

from sweeper.config.draft import Draft
from sweeper.config.messages import join, show
from sweeper.config.space_models import Dimension
from sweeper.params import is_number


def check_points(draft: Draft) -> None:
    """Check that every listed point is a point of the grid, and none stands twice."""
    points, space = draft.config.points, draft.config.search_space
    if points is None or not draft.knows("points", "search_space", "sampler"):
        return
    if draft.config.sampler.name != "grid":
        draft.tell(
            f"`points` picks points of a grid, but `sampler` is `{draft.config.sampler.name}`. Write "
            "`sampler: grid`, or remove `points`.",
            "points",
        )
        return
    seen: dict[str, int] = {}
    for index, point in enumerate(points):
        if set(point) != set(space):
            draft.tell(
                f"`points[{index}]` must name every dimension of the search space ({join(space) if space else 'none'}) "
                f"and nothing else, but names {join(point) if point else 'none'}. Correct it.",
                *("points", index),
            )
            continue
        for name, value in point.items():
            if not _holds(space[name], value):
                kind = space[name].kind
                draft.tell(
                    f"`points[{index}].{name}` = {show(value)} is not among the values of "
                    f"`search_space.{name}.{kind}`: {show(list(getattr(space[name], kind)))}. Add it there, or "
                    "correct it.",
                    *("points", index, name),
                )
        first = seen.setdefault(json.dumps(point, sort_keys=True), index)
        if first != index:
            draft.tell(f"`points[{index}]` is the same as `points[{first}]`. Remove one.", *("points", index))


def _holds(dimension: Dimension, value: Any) -> bool:
    if dimension.listed is not None:
        return value in dimension.listed
    low, high = getattr(dimension, dimension.kind)
    return is_number(value) and low <= value <= high and dimension.is_on_step(value)
