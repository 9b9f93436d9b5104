"""What differs between two nested records of facts. Pure."""

from collections.abc import Mapping
from typing import Any


def differing(first: Any, second: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return every leaf that differs, by its dotted place; None where one side has none.

    >>> differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})
    {'a.c': (2, 3), 'd': (None, 4)}
    """
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return {} if first == second else {prefix: (first, second)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*first, *(key for key in second if key not in first)]:
        place = f"{prefix}.{key}" if prefix else str(key)
        found |= differing(first.get(key), second.get(key), place)
    return found
