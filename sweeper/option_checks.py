"""Options that are given in Python, where no sweep file's rules have checked them. Pure."""

import math
import numbers
from collections.abc import Sequence
from typing import Any


def check_word(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse what is none of a few words.

    Raises:
        ValueError: With the words.
    """
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed[:-1]) + f' or "{allowed[-1]}"'
        raise ValueError(f"`{name}` must be {words}, but got {value!r}. Write one of them.")


def check_fraction(name: str, value: Any, *, with_ends: bool = False) -> None:
    """Refuse what is no fraction between 0 and 1, these two included only `with_ends`.

    Raises:
        TypeError: If it is no number.
        ValueError: If it lies elsewhere.
    """
    _check_real(name, value)
    if 0 < value < 1 or (with_ends and value in (0, 1)):
        return
    ends = "0 and 1 included" if with_ends else "neither of them included"
    remedy = f"{value:g} % is {value / 100:g}." if 1 < value < 100 else "Write for example 0.1."
    raise ValueError(f"`{name}` must lie between 0 and 1, {ends}, but got {value!r}. {remedy}")


def check_at_least_zero(name: str, value: Any) -> None:
    """Refuse what is no finite number of at least 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is negative or not finite.
    """
    _check_real(name, value)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            f"`{name}` must be a finite number of at least 0, but got {value!r}. Choose another value."
        )


def check_count(name: str, value: Any) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is less.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, but got {value!r}. Write for example 24.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, but got {value!r}. Choose a larger value.")


def check_listeners(listeners: Any) -> None:
    """Refuse what cannot be told of a sweep's events, before there is a study.

    Raises:
        TypeError: If it is no list of objects with a method `on_event`.
    """
    if not isinstance(listeners, Sequence) or isinstance(listeners, str):
        raise TypeError(f"`listeners` must be a list, but got {listeners!r}. Write `listeners=[...]`.")
    for listener in listeners:
        if not callable(getattr(listener, "on_event", None)) or isinstance(listener, type):
            raise TypeError(
                f"A listener must be an object with a method `on_event(event)`, but got {listener!r}. Give an object "
                "of a class that has one; see `sweeper.events.Listener`."
            )


def _check_real(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, but got {value!r}. Write for example 0.1.")
