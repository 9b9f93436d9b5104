"""A point as a trial of Optuna's storage holds it. Pure."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from sweeper import encoding
from sweeper.plan import Point
from sweeper.study import space


def waiting_trial(
    point: Point, dimensions: Mapping[str, BaseDistribution], attributes: Mapping[str, Any] | None = None
) -> FrozenTrial:
    """Return a WAITING trial. Values that a dimension does not have are kept beside Optuna's params."""
    fitting, stored = stored_point(point, dimensions)
    return create_trial(
        state=OptunaState.WAITING,
        params=fitting,
        distributions={name: dimensions[name] for name in fitting},
        user_attrs={encoding.POINT: stored, **(attributes or {})},
    )


def stored_point(
    point: Point, dimensions: Mapping[str, BaseDistribution]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what Optuna's params can hold of a point, and what is kept of it beside them."""
    given = {name: space.encode_choice(value) for name, value in point.params.items()}
    fitting = {name: value for name, value in given.items() if space.contains(dimensions[name], value)}
    extra = {name: value for name, value in point.params.items() if name not in fitting}
    return fitting, {**point_attributes(point), **({encoding.EXTRA_PARAMS: extra} if extra else {})}


def point_attributes(point: Point) -> dict[str, Any]:
    """Return what is kept of every point beside Optuna's params."""
    return {
        "point_id": point.point_id,
        "budget_samples": point.budget_samples,
        "total_steps": point.total_steps,
    }
