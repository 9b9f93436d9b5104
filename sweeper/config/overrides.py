"""`key=value` from the command line, laid over a document."""

import re
from collections.abc import Iterable
from typing import Any

from sweeper.config.document import Document, KeyPath, Place, parse_value
from sweeper.config.messages import show_text
from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.pruner_models import (
    PRUNER_KEYS_FOREIGN,
    PRUNER_KEYS_LEARNED,
    PRUNER_KEYS_OWN,
    PRUNER_KEYS_RANK,
    RUNG_FORMS,
)
from sweeper.config.space_models import DIMENSION_KINDS
from sweeper.config.trial_models import BUDGET_KINDS, TrainSettings
from sweeper.errors import ConfigError, Problem
from sweeper.storage_url import mask_url

_SHOWN = 200  # letters of an override, as the place of a problem


def apply_overrides(document: Document, overrides: Iterable[str]) -> list[Problem]:
    """Lay overrides over the document, in order, and return what was wrong with their form.

    A bare setting's name (`learning_rate=1e-4`) fixes it, which takes it out of the search space; a dimension
    (`search_space.learning_rate.grid=[...]`) takes the fixed setting away. Of keys that exclude each other,
    such as the budget's kinds, the override's one stays.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(document, override)
        except ConfigError as error:
            problems.extend(error.problems)
    return problems


def split_override(override: str) -> tuple[str, str]:
    """Return an override's key and its value's text.

    Raises:
        ConfigError: If there is no `key=`.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            Problem("An override has the form `key=value`. Write for example `seed=1`.", label(override))
        )
    if not all(key.strip().split(".")):
        message = (
            f"The key `{show_text(key.strip())}` has an empty part. Write names with one `.` between them."
        )
        raise ConfigError(Problem(message, label(override)))
    return key.strip(), text


def label(override: str) -> str:
    """Return how messages name an override's place, without a URL's password."""
    key, equals, text = override.partition("=")
    return f"override `{show_text(key + equals + (mask_url(text) if '://' in text else text), limit=_SHOWN)}`"


def is_override(place: Place) -> bool:
    """Whether a place is an override."""
    return place.file is not None and place.file.startswith("override `")


def _apply(document: Document, override: str) -> None:
    key, text = split_override(override)
    value = parse_value(text, label=label(override))
    path = _resolve(document, key)
    _clear_rivals(document, path, value.data)
    parent = document.data
    for depth, part in enumerate(path[:-1], start=1):
        if isinstance(parent, dict):
            if parent.get(str(part)) is None:
                parent[str(part)] = {}
                document.places[path[:depth]] = Place(label(override))
            parent = parent[str(part)]
        elif isinstance(parent, list) and isinstance(part, int) and part < len(parent):
            parent = parent[part]
        else:
            raise _no_place(override, path[: depth - 1], parent)
    last = path[-1]
    fits = (
        isinstance(last, int) and last < len(parent) if isinstance(parent, list) else isinstance(parent, dict)
    )
    if not fits:
        raise _no_place(override, path[:-1], parent)
    document.graft(path, value.data, {(): Place(label(override)), **value.places})


def _resolve(document: Document, key: str) -> KeyPath:
    """Return the path that a dotted key, or a bare setting's name, stands for."""
    path: KeyPath = tuple(key.split("."))
    if len(path) == 1 and key not in SweepConfig.model_fields:
        places = ("trial", "settings", key), ("search_space", key)
        missing = object()
        if key in TrainSettings.model_fields or any(
            document.get(at, missing) is not missing for at in places
        ):
            return ("trial", "settings", key)
    result: list[str | int] = []
    for part in path:
        holder = document.get(tuple(result))
        is_index = isinstance(holder, list) and re.fullmatch("[0-9]{1,6}", str(part)) is not None
        result.append(int(part) if is_index else part)
    return tuple(result)


def _clear_rivals(document: Document, path: KeyPath, value: Any) -> None:
    """Remove what the override at `path` takes the place of; of a pruner's keys, none that was overridden too."""
    rivals: list[KeyPath] = []
    if path[:2] == ("trial", "settings") and len(path) == 3:
        rivals = [("search_space", path[2])]
    elif path[0] == "search_space" and len(path) >= 2:
        rivals = [("trial", "settings", path[1])]
        if len(path) == 3 and path[2] in DIMENSION_KINDS:
            rivals += [(*path[:2], kind) for kind in DIMENSION_KINDS]
    elif path[:2] == ("trial", "budget") and len(path) == 3 and path[2] in BUDGET_KINDS:
        rivals = [(*path[:2], kind) for kind in BUDGET_KINDS]
    elif path[0] == "rungs" and len(path) == 2 and path[1] in RUNG_FORMS:
        others = RUNG_FORMS if path[1] == "first" else (*RUNG_FORMS, "reduction_factor")
        rivals = [("rungs", form) for form in others]
    elif path in (("pruner", "name"), ("pruner", "directions")):
        keys = _keys_of_other_pruners(path[-1], value)
        rivals = [("pruner", key) for key in keys if not is_override(document.place(("pruner", key)))]
    for rival in rivals:
        document.remove(rival)


def _keys_of_other_pruners(key: str | int, value: Any) -> tuple[str, ...]:
    """Return the keys of the pruner's section that mean nothing once its `name` or `directions` has this value."""
    if key == "name":
        return PRUNER_KEYS_FOREIGN if value == EARLY_DYNAMICS else PRUNER_KEYS_OWN
    return {"learned": PRUNER_KEYS_RANK, "paper": PRUNER_KEYS_LEARNED}.get(str(value), ())


def _no_place(override: str, path: KeyPath, held: Any) -> ConfigError:
    holder = ".".join(str(key) for key in path)
    has = (
        f"is a list of {len(held)}, counted from 0, so that this names none of them"
        if isinstance(held, list)
        else "has no keys below it"
    )
    return ConfigError(Problem(f"`{holder}` {has}. Override `{holder}` as a whole instead.", label(override)))
