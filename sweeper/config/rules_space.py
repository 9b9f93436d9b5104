"""Rules of the search space as a whole: its names, the sampler's demands, the batches it spans."""

import itertools
import math
from typing import Any

from sweeper.batch import plan_batch
from sweeper.config.draft import Draft
from sweeper.config.messages import unknown_key
from sweeper.config.rules_dimension import check_dimension, has_one_kind
from sweeper.config.space_models import Dimension
from sweeper.config.space_values import MAX_POINTS, n_values, possible_values
from sweeper.config.trial_models import BUDGET_KINDS, TrainSettings
from sweeper.errors import ConfigError


def check_search_space(draft: Draft) -> None:
    """Check every dimension, the sampler's demands on them, and the batches that they span."""
    if ("search_space",) in draft.broken:
        return
    is_function = draft.config.trial.function is not None
    for name, dimension in draft.config.search_space.items():
        if not draft.knows(f"search_space.{name}"):
            continue
        if not draft.knows("trial.function") and name not in (*TrainSettings.model_fields, *BUDGET_KINDS):
            continue  # a function's own, or misspelt: which of the two is not known
        if not is_function and draft.knows("trial.function") and not _is_known(draft, name):
            continue
        if has_one_kind(draft, name, dimension):
            check_dimension(draft, name, dimension)
            _check_sampler_takes(draft, name, dimension)
    _check_fixed_twice(draft)
    _check_n_points(draft)
    _check_batches(draft)


def _is_known(draft: Draft, name: str) -> bool:
    allowed = [*TrainSettings.model_fields, *BUDGET_KINDS]
    if name in allowed:
        return True
    message, _ = unknown_key(name, allowed, section="search_space")
    draft.tell(message, "search_space", name)
    draft.broken.add(("search_space", name))
    return False


def _check_sampler_takes(draft: Draft, name: str, dimension: Dimension) -> None:
    if draft.config.sampler.name != "grid" or not draft.knows("sampler", "points"):
        return
    if draft.config.points is not None:  # they name one value of each dimension
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


def _check_n_points(draft: Draft) -> None:
    if draft.config.sampler.name != "grid" or not draft.knows("search_space", "sampler", "points"):
        return
    if draft.config.points is not None:
        return
    lengths = [n_values(dimension) or 1 for dimension in draft.config.search_space.values()]
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
    n_workers = draft.config.resources.n_workers if draft.knows("resources") else 1
    micros: list[int | None] = [micro for _, micro in _sizes(draft, "micro_batch_size")]
    if not micros:
        micros = [None]  # as large as the batch
    for (path, size), micro in itertools.product(_sizes(draft, "effective_batch_size"), micros):
        try:
            plan_batch(
                effective_batch_size=size, micro_batch_size=micro or size, data_parallel_size=n_workers
            )
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
        share, left = divmod(size, n_workers)
        remedy = (
            f"{n_workers} workers cannot share {size} sequences equally."
            if left
            else f"Or set `micro_batch_size` to a divisor of {share}."
        )
        draft.tell(f"{told} {remedy}", *path)


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
