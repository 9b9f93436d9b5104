"""Rules of one dimension of the search space: its kind, its values, its bounds."""

import json
import math
from typing import Any

from pydantic import ValidationError

from sweeper.config.draft import Draft, dotted
from sweeper.config.messages import join, sentence, show
from sweeper.config.space_models import DIMENSION_KINDS, Dimension
from sweeper.config.trial_models import BUDGET_KINDS, Budget, TrainSettings
from sweeper.params import is_number

_NON_SCALAR_KEYS = ("lora_target_modules", "lr_scheduler_kwargs", "data_weights")


def has_one_kind(draft: Draft, name: str, dimension: Dimension) -> bool:
    """Whether exactly one kind is set; tells if not."""
    kinds = [kind for kind in DIMENSION_KINDS if getattr(dimension, kind) is not None]
    if len(kinds) == 1:
        return True
    got = join(kinds) if kinds else "none"
    draft.tell(
        f"`search_space.{name}` must have exactly one of {join(DIMENSION_KINDS)}, but got {got}. "
        + ("Remove all but one." if kinds else "Write for example `grid: [...]`."),
        *("search_space", name),
    )
    draft.broken.add(("search_space", name))
    return False


def check_dimension(draft: Draft, name: str, dimension: Dimension) -> None:
    """Check a dimension's values, or its bounds and step, against the setting that it varies."""
    _check_step(draft, name, dimension)
    if dimension.listed is not None:
        _check_listed(draft, name, dimension.kind, dimension.listed)
    else:
        _check_bounds(draft, name, dimension)


def _check_listed(draft: Draft, name: str, kind: str, values: list[Any]) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        path = ("search_space", name, kind, index)
        problem = _value_problem(draft, name, value, path)
        if problem is not None:
            draft.tell(problem, *path)
            continue
        key = _identity(value)
        if key in seen:
            draft.tell(
                f"`search_space.{name}.{kind}` holds {show(value)} twice. Remove one of the two; confirm a "
                "result over seeds with `seed` instead.",
                *path,
            )
        seen.setdefault(key, index)


def _identity(value: Any) -> str:
    """Return text that is equal for values that are one: 1 and 1.0, not 1 and true."""
    if is_number(value) and abs(value) < 2**53:
        return repr(float(value))
    return json.dumps(value, sort_keys=True)


def _value_problem(draft: Draft, name: str, value: Any, path: tuple[str | int, ...]) -> str | None:
    """Say why a dimension cannot take a value, or None where it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{dotted(path)}` must be a finite number, but got {value}. Remove the value."
    is_function = draft.config.trial.function is not None
    if isinstance(value, (list, dict)) and name not in _NON_SCALAR_KEYS and not is_function:
        return (
            f"`{dotted(path)}` must be a single value, but got {show(value)}. Only {join(_NON_SCALAR_KEYS)} "
            "take more."
        )
    if is_function and name not in BUDGET_KINDS:
        return None
    model = Budget if name in BUDGET_KINDS else TrainSettings
    if name in BUDGET_KINDS and value is None:
        return f"`{dotted(path)}` has no value. Write a number, or remove it."
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return sentence(error.errors()[0], name=dotted(path), value=value)
    return None


def _check_bounds(draft: Draft, name: str, dimension: Dimension) -> None:
    kind = dimension.kind
    low, high = getattr(dimension, kind)
    path = ("search_space", name, kind)
    if kind != "int" and _is_whole(draft, name):
        draft.tell(
            f"`{name}` is a whole number, but `{kind}` draws fractions. Use `int`, with `log: true` for "
            "orders of magnitude, or list the values in `choice`.",
            *path,
        )
        return
    for index, bound in enumerate((low, high)):
        problem = _value_problem(draft, name, bound, (*path, index))
        if problem is not None:
            draft.tell(problem, *path, index)
            return
    if low >= high:
        remedy = "Fix the value in `trial.settings` instead" if low == high else "Swap the two"
        draft.tell(
            f"`search_space.{name}.{kind}` must have its lower bound below its upper one, but got [{low:g}, "
            f"{high:g}]. {remedy}.",
            *path,
        )
    if (kind == "log_uniform" or dimension.log) and low <= 0:
        draft.tell(
            f"`search_space.{name}.{kind}` is drawn on a logarithmic scale, so its bounds must be greater "
            f"than 0, but got [{low:g}, {high:g}]. Raise the lower bound.",
            *path,
        )


def _is_whole(draft: Draft, name: str) -> bool:
    if draft.config.trial.function is not None and name not in BUDGET_KINDS:
        return False
    model = Budget if name in BUDGET_KINDS else TrainSettings
    try:
        model.model_validate({name: 1.5})
    except ValidationError as error:
        return error.errors()[0]["type"] == "int_type"
    return False


def _check_step(draft: Draft, name: str, dimension: Dimension) -> None:
    kind, path = dimension.kind, ("search_space", name)
    if dimension.log and kind != "int":
        remedy = "Use `log_uniform` instead" if kind == "uniform" else "Remove it"
        draft.tell(f"`search_space.{name}.log` is for `int`, but got `{kind}`. {remedy}.", *path, "log")
    if dimension.step is None:
        return
    if kind not in ("int", "uniform"):
        draft.tell(
            f"`search_space.{name}.step` is for `int` and `uniform`, but got `{kind}`. Remove it.",
            *path,
            "step",
        )
        return
    if dimension.log:
        draft.tell(
            f"`search_space.{name}` cannot have both `step` and `log`. Remove one of them.", *path, "step"
        )
        return
    if kind == "int" and dimension.step != int(dimension.step):
        draft.tell(
            f"`search_space.{name}.step` must be a whole number, but got {dimension.step:g}. Round it.",
            *path,
            "step",
        )
        return
    low, high = getattr(dimension, kind)
    n_steps = (high - low) / dimension.step
    if high > low and abs(n_steps - round(n_steps)) > 1e-9 * max(1.0, n_steps):
        nearest = low + math.floor(n_steps) * dimension.step
        draft.tell(
            f"`search_space.{name}`: steps of {dimension.step:g} from {low:g} do not reach the upper bound "
            f"{high:g}. Nearest valid upper bounds: {nearest:g} and {nearest + dimension.step:g}.",
            *path,
        )
