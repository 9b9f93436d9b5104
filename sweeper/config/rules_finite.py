"""Rule of values whose type is free, which no model checks: a function's settings, options, mappings in a dimension."""

import math
from collections.abc import Iterator
from typing import Any

from sweeper.config.document import KeyPath
from sweeper.config.draft import Draft, dotted

_FREE: tuple[KeyPath, ...] = (
    ("trial", "settings"),
    ("trial", "phases"),
    ("sampler", "options"),
    ("pruner", "options"),
    ("search_space",),
)


def check_finite(draft: Draft) -> None:
    """Tell every NaN and infinity, which neither the study's JSON nor a point's id can hold."""
    for top in _FREE:
        for path, value in _not_finite(draft.document.get(top), top):
            message = f"`{dotted(path)}` must be a finite number, but got {value}. Write a finite number."
            problem = draft.document.problem(message, path)
            if not any(other.message.startswith(f"`{dotted(path)}` must be") for other in draft.problems):
                draft.problems.append(problem)


def _not_finite(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, (*path, key))
