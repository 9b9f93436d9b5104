"""Rules of one dimension of the search space: its kind, its values, its bounds."""

import math
from typing import Any

from pydantic import BaseModel, ValidationError

from sweeper.config.draft import Draft, dotted
from sweeper.config.messages import join, sentence, show
from sweeper.config.space_models import DIMENSION_KINDS, Dimension
from sweeper.config.trial_models import BUDGET_KINDS, Budget, TrainSettings
from sweeper.params import params_key

_NON_SCALAR_KEYS = ("lora_target_modules", "lr_scheduler_kwargs", "data_weights")
# Of a user's function too: the plan cuts its steps by them.
_BATCH_KEYS = ("effective_batch_size", "micro_batch_size")
# What the built-in trial takes `null` for, where that has a name of its own.
_NULL_IS = {
    "replay_frac": 0,
    "phase_start": "last",
    "phase_optimizer_state": "fresh",
    "data_strategy": "stacked",
}


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
    seen: dict[str, Any] = {}
    for index, value in enumerate(values):
        path = ("search_space", name, kind, index)
        problem = value_problem(draft, name, value, path)
        if problem is not None:
            draft.tell(problem, *path)
            continue
        key = value_key(draft, name, value)
        if key in seen:
            shown, first = show(value), show(seen[key])
            held = f"{shown} twice" if shown == first else f"{first} and {shown}, which mean the same"
            draft.tell(
                f"`search_space.{name}.{kind}` holds {held}. Remove one of the two; confirm a "
                "result over seeds with `seed` instead.",
                *path,
            )
        seen.setdefault(key, value)


def value_key(draft: Draft, name: str, value: Any) -> str:
    """Return text that is equal for values of a dimension that mean the same: 1 and 1.0, not 1 and true."""
    is_named = value is None and draft.config.trial.function is None
    return params_key({name: _NULL_IS.get(name) if is_named else value})


def value_problem(draft: Draft, name: str, value: Any, path: tuple[str | int, ...]) -> str | None:
    """Say why a dimension cannot take a value, or None where it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{dotted(path)}` must be a finite number, but got {value}. Remove the value."
    model = _model_of(draft, name)
    is_function = draft.config.trial.function is not None
    if isinstance(value, (list, dict)) and name not in _NON_SCALAR_KEYS and not is_function:
        return (
            f"`{dotted(path)}` must be a single value, but got {show(value)}. Only {join(_NON_SCALAR_KEYS)} "
            "take more."
        )
    if model is None:
        return None
    if value is None and (model is Budget or is_function):
        return f"`{dotted(path)}` has no value. Write a number, or remove it."
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return sentence(error.errors()[-1], name=dotted(path), value=value)  # of a union, its last member's
    return None


def check_function_batch(draft: Draft) -> None:
    """Check the sizes by which the steps of a user's function are cut, where they are fixed."""
    for name in _BATCH_KEYS:
        value = draft.config.trial.settings.get(name)
        path = ("trial", "settings", name)
        is_set = value is not None or (name == "micro_batch_size" and name in draft.config.trial.settings)
        if not is_set or _model_of(draft, name) is None or not draft.knows(dotted(path)):
            continue
        problem = value_problem(draft, name, value, path)
        if problem is not None:
            draft.tell(problem, *path)
            draft.broken.add(path)


def _model_of(draft: Draft, name: str) -> type[BaseModel] | None:
    """Return the section that says what a dimension may be; None where that is the user's function's business."""
    if name in BUDGET_KINDS:
        return Budget
    if draft.config.trial.function is None:
        return TrainSettings
    is_cut = "effective_batch_size" in draft.config.search_space or (
        draft.config.trial.settings.get("effective_batch_size") is not None
    )
    return TrainSettings if is_cut and name in _BATCH_KEYS else None


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
        problem = value_problem(draft, name, bound, (*path, index))
        if problem is not None:
            draft.tell(problem, *path, index)
            return
    if _is_too_wide(dimension):
        draft.tell(
            f"`search_space.{name}.{kind}` is too wide to draw from, or has too many steps, with bounds of [{low:g}, "
            f"{high:g}]. Bring the bounds nearer to each other, whole ones to less than 2^53.",
            *path,
        )
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


def _is_too_wide(dimension: Dimension) -> bool:
    """Whether floats, in which bounds and steps are counted, cannot tell a range's values apart."""
    if dimension.int is not None:
        return max(map(abs, dimension.int)) >= 2**53
    low, high = getattr(dimension, dimension.kind)
    return not math.isfinite((high - low) / (dimension.step or 1))


def _is_whole(draft: Draft, name: str) -> bool:
    model = _model_of(draft, name)
    if model is None:
        return False
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
    if _is_too_wide(dimension):
        return  # told of its bounds
    low, high = getattr(dimension, kind)
    n_steps = (high - low) / dimension.step
    if high > low and abs(n_steps - round(n_steps)) > 1e-9 * max(1.0, n_steps):
        nearest = low + math.floor(n_steps) * dimension.step
        draft.tell(
            f"`search_space.{name}`: steps of {dimension.step:g} from {low:g} do not reach the upper bound "
            f"{high:g}. Nearest valid upper bounds: {nearest:g} and {nearest + dimension.step:g}.",
            *path,
        )
