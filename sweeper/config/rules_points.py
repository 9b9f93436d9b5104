"""Rules of `points`: those of a grid that are taken instead of all, or those that a sampler begins with."""

from typing import Any

from sweeper.config.draft import Draft
from sweeper.config.messages import join, show
from sweeper.config.rules_dimension import value_key, value_problem
from sweeper.config.space_models import Dimension
from sweeper.params import is_number


def check_points(draft: Draft) -> None:
    """Check that every listed point is one of the search space, none stands twice, and no more are drawn than asked."""
    points, space = draft.config.points, draft.config.search_space
    if points is None or not draft.knows("points", "search_space", "sampler"):
        return
    n_trials = draft.config.sampler.n_trials
    if n_trials is not None and len(points) > n_trials:
        draft.tell(
            f"`points` lists {len(points)} points that the sampler begins with, but `sampler.n_trials` is {n_trials}. "
            "Raise it, or remove some.",
            "points",
        )
    held = {
        name: {value_key(draft, name, value) for value in dimension.listed}
        for name, dimension in space.items()
        if dimension.listed is not None
    }
    seen: dict[str, int] = {}
    for index, point in enumerate(points):
        if set(point) != set(space):
            draft.tell(
                f"`points[{index}]` must name every dimension of the search space ({join(space) if space else 'none'}) "
                f"and nothing else, but names {join(point) if point else 'none'}. Correct it.",
                *("points", index),
            )
            continue
        keys = {name: value_key(draft, name, point[name]) for name in space}
        for name, value in point.items():
            problem = value_problem(draft, name, value, ("points", index, name))
            is_held = keys[name] in held[name] if name in held else _is_within(space[name], value)
            if problem is None and not is_held:
                problem = _not_in_grid(space[name], value, name, index)
            if problem is not None:
                draft.tell(problem, *("points", index, name))
        first = seen.setdefault("".join(keys.values()), index)
        if first != index:
            draft.tell(f"`points[{index}]` is the same as `points[{first}]`. Remove one.", *("points", index))


def _not_in_grid(dimension: Dimension, value: Any, name: str, index: int) -> str:
    kind = dimension.kind
    return (
        f"`points[{index}].{name}` = {show(value)} is not among the values of `search_space.{name}.{kind}`: "
        f"{show(list(getattr(dimension, kind)))}. Add it there, or correct it."
    )


def _is_within(dimension: Dimension, value: Any) -> bool:
    low, high = getattr(dimension, dimension.kind)
    return is_number(value) and low <= value <= high and dimension.is_on_step(value)
