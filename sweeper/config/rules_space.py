"""Rules of `search_space` and `sampler`."""

import itertools
import json
import math
from typing import Any

from pydantic import ValidationError

from sweeper.batch import plan_batch
from sweeper.config.draft import Draft, dotted
from sweeper.config.messages import join, sentence, show, unknown_key
from sweeper.config.models import BUDGET_KINDS, DIMENSION_KINDS, Budget, Dimension, TrainSettings
from sweeper.errors import ConfigError

MAX_POINTS = 100_000  # a study of 10,000 trials takes 5 s to load; see the plan's warning
_MAX_LISTED = 10_000
_NON_SCALAR_KEYS = ("lora_target_modules", "lr_scheduler_kwargs")


def check_search_space(draft: Draft) -> None:
    """Check every dimension, the sampler's demands on them, and the batches that they span."""
    if ("search_space",) in draft.broken:
        return
    is_function = draft.config.trial.function is not None
    for name, dimension in draft.config.search_space.items():
        if not draft.knows(f"search_space.{name}"):
            continue
        if not is_function and draft.knows("trial.function") and not _is_known(draft, name):
            continue
        if _has_one_kind(draft, name, dimension):
            _check_dimension(draft, name, dimension)
            _check_sampler_takes(draft, name, dimension)
    _check_fixed_twice(draft)
    _check_warmup(draft)
    _check_n_points(draft)
    _check_batches(draft)


def possible_values(dimension: Dimension) -> list[Any] | None:
    """Return all values that a dimension can take; None where they cannot be listed."""
    if dimension.listed is not None:
        return dimension.listed
    if dimension.int is None:
        return None
    low, high = dimension.int
    values = range(low, high + 1, 1 if dimension.log else max(1, int(dimension.step or 1)))
    return list(values) if len(values) <= _MAX_LISTED else None


def _is_known(draft: Draft, name: str) -> bool:
    allowed = [*TrainSettings.model_fields, *BUDGET_KINDS]
    if name in allowed:
        return True
    message, _ = unknown_key(name, allowed, section="search_space")
    draft.tell(message, "search_space", name)
    draft.broken.add(("search_space", name))
    return False


def _has_one_kind(draft: Draft, name: str, dimension: Dimension) -> bool:
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


def _check_dimension(draft: Draft, name: str, dimension: Dimension) -> None:
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
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if is_number and abs(value) < 2**53 else json.dumps(value, sort_keys=True)


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


def _check_sampler_takes(draft: Draft, name: str, dimension: Dimension) -> None:
    if draft.config.sampler.name != "grid" or not draft.knows("sampler"):
        return
    kind = dimension.kind
    if kind in ("uniform", "log_uniform") or (kind == "int" and dimension.step is None):
        remedy = "Add `step`" if kind == "int" else "List the values in `grid`"
        draft.tell(
            f"`search_space.{name}.{kind}` has no list of values, which the `grid` sampler needs. {remedy}, "
            "or choose "
            "a sampler that draws, for example `sampler: {name: tpe, n_trials: 40}`.",
            *("search_space", name, kind),
        )


def _check_fixed_twice(draft: Draft) -> None:
    for name in draft.config.search_space:
        if name in draft.config.trial.settings and draft.knows(
            f"trial.settings.{name}", f"search_space.{name}"
        ):
            draft.tell(
                f"`{name}` is fixed in `trial.settings` and varies in `search_space`. Remove one of the two.",
                *("trial", "settings", name),
            )


def _check_warmup(draft: Draft) -> None:
    if draft.settings is None or not draft.knows("trial.settings"):
        return
    varied = [name for name in ("warmup_steps", "warmup_frac") if name in draft.config.search_space]
    if not varied:
        return
    other = "warmup_frac" if varied[0] == "warmup_steps" else "warmup_steps"
    if len(varied) == 2 or getattr(draft.settings, other):
        draft.tell(
            "`warmup_steps` and `warmup_frac` exclude each other, but the points would have both. Remove "
            "one of them.",
            *("search_space", varied[0]),
        )


def _check_n_points(draft: Draft) -> None:
    if draft.config.sampler.name != "grid" or not draft.knows("search_space", "sampler"):
        return
    lengths = [len(possible_values(dimension) or [0]) for dimension in draft.config.search_space.values()]
    n_points = math.prod(lengths)
    if n_points > MAX_POINTS:
        draft.tell(
            f"The grid has {n_points:,} points ({' x '.join(map(str, lengths))}); at most {MAX_POINTS:,} "
            "can be held. Remove values, or draw points with another sampler.",
            "search_space",
        )


def _check_batches(draft: Draft) -> None:
    """Tell every effective batch that cannot be cut into whole passes, once each."""
    bad: dict[int, tuple[str, tuple[str | int, ...]]] = {}
    for (path, size), (_, micro) in itertools.product(
        _sizes(draft, "effective_batch_size"), _sizes(draft, "micro_batch_size")
    ):
        try:
            plan_batch(effective_batch_size=size, micro_batch_size=micro)
        except ConfigError as error:
            bad.setdefault(size, (str(error), path))
    dimension = draft.config.search_space.get("effective_batch_size")
    if bad and dimension is not None and dimension.int is not None:
        first = ", ".join(str(size) for size in list(bad)[:3])
        draft.tell(
            f"`search_space.effective_batch_size.int` draws {len(bad)} sizes that cannot be cut into whole "
            f"passes, such as {first}: {next(iter(bad.values()))[0]} Use `choice` with sizes that can, or a "
            "fitting `step`.",
            *("search_space", "effective_batch_size", "int"),
        )
        return
    for size, (told, path) in bad.items():
        draft.tell(f"{told} Or set `micro_batch_size` to a divisor of {size}.", *path)


def _sizes(draft: Draft, name: str) -> list[tuple[tuple[str | int, ...], int]]:
    """Return the valid sizes of a setting, each with its place."""
    dimension = draft.config.search_space.get(name)
    if dimension is None:
        fixed = draft.config.trial.settings if draft.settings is None else draft.settings.model_dump()
        is_usable = draft.knows(f"trial.settings.{name}") and _is_size(fixed.get(name))
        return [(("trial", "settings", name), fixed[name])] if is_usable else []
    if not draft.knows(f"search_space.{name}"):
        return []
    path: tuple[str, ...] = ("search_space", name)
    if dimension.listed is None:
        return [(path, value) for value in possible_values(dimension) or [] if _is_size(value)]
    return [
        ((*path, dimension.kind, index), value)
        for index, value in enumerate(dimension.listed)
        if _is_size(value)
    ]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
