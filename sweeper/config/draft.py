"""A config that may still be wrong in places: every problem told, and what is right can be checked further.

The rules that need several sections must run although some section is wrong. So what pydantic refuses is
replaced by a default, remembered as broken, and a rule asks `knows` before it reads.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sweeper.config.document import Document, KeyPath, has_item
from sweeper.config.messages import sentence, unknown_key, unknown_name
from sweeper.config.models import SweepConfig
from sweeper.config.overrides import is_override
from sweeper.config.space_values import possible_values
from sweeper.config.trial_models import TrainSettings
from sweeper.errors import Problem

Model = TypeVar("Model", bound=BaseModel)

_PLACEHOLDERS: dict[str, Any] = {
    "study": "study",
    "metric": "metric",
    "direction": "minimize",
    "trial": {},
    "search_space": {},
    "path": "path",
}
_SOURCES = (("trial", "train_data"), ("trial", "data_sets"), ("trial", "eval_data"))  # what has a `path`
_MAX_ROUNDS = 20  # one suffices unless a repair uncovers another error


@dataclasses.dataclass(kw_only=True)
class Draft:
    """A config with defaults where it is broken, and what was found wrong so far."""

    document: Document
    config: SweepConfig
    settings: TrainSettings | None  # of the built-in trial; None for a function
    broken: set[KeyPath]
    problems: list[Problem]

    def knows(self, *paths: str) -> bool:
        """Whether all these dotted places are as the user wrote them."""
        keys = [tuple(path.split(".")) for path in paths]
        return not any(_overlap(path, broken) for path in keys for broken in self.broken)

    def knows_setting(self, name: str) -> bool:
        """Whether a setting is as the user wrote it, wherever it stands."""
        return self.knows(f"trial.settings.{name}", f"search_space.{name}")

    def place_of(self, name: str) -> tuple[str, ...]:
        """Return where a setting stands, or would."""
        return ("search_space", name) if name in self.config.search_space else ("trial", "settings", name)

    def values(self, name: str) -> list[tuple[KeyPath, Any]]:
        """Return the values that a setting of the built-in trial takes, each with its place.

        There are none of a broken one, nor of a range that cannot be listed.
        """
        if self.settings is None or not self.knows_setting(name):
            return []
        dimension, place = self.config.search_space.get(name), self.place_of(name)
        if dimension is None:
            return [(place, getattr(self.settings, name))]
        if dimension.listed is not None:
            return [((*place, dimension.kind, index), value) for index, value in enumerate(dimension.listed)]
        return [((*place, dimension.kind), value) for value in possible_values(dimension) or []]

    def tell(self, message: str, *path: str | int) -> None:
        """Add a problem that stands at `path`."""
        self.problems.append(self.document.problem(message, path))


def draft_config(document: Document, *, problems: list[Problem], broken: set[KeyPath]) -> Draft:
    """Check every section on its own and return what is left to check together.

    Args:
        document: What the user wrote, with its places.
        problems: What was found before.
        broken: Places that are known to be wrong and are in `problems` already.
    """
    checker = _Checker(document=document, problems=list(problems), broken=set(broken))
    config = checker.check(SweepConfig, document.data, ())
    settings = None
    if config.trial.function is None and ("trial", "function") not in checker.broken:
        settings = checker.check(TrainSettings, config.trial.settings, ("trial", "settings"))
    return Draft(
        document=document, config=config, settings=settings, broken=checker.broken, problems=checker.problems
    )


@dataclasses.dataclass(kw_only=True)
class _Checker:
    document: Document
    problems: list[Problem]
    broken: set[KeyPath]

    def check(self, model: type[Model], data: Any, prefix: KeyPath) -> Model:
        """Return a valid model, made from `data` without what is wrong in it."""
        data = copy.deepcopy(data)
        for path in self.broken:
            if path[: len(prefix)] == prefix:
                _repair(data, path[len(prefix) :], needs_value=True)
        for _ in range(_MAX_ROUNDS):
            try:
                return model.model_validate(data)
            except ValidationError as error:
                self._take(error, data, prefix)
        raise AssertionError(f"The sections could not be separated from their errors: {self.broken}")

    def _take(self, error: ValidationError, data: Any, prefix: KeyPath) -> None:
        seen: dict[KeyPath, Mapping[str, Any]] = {}
        for detail in error.errors(
            include_url=False
        ):  # a union tells one error per member: the last one counts
            seen[_data_path(data, detail["loc"], is_missing=detail["type"] == "missing")] = dict(detail)
        for path, found in seen.items():
            is_unknown = found["type"] == "extra_forbidden"
            message = self._unknown(path, prefix) if is_unknown else self._wrong(found, path, prefix)
            self.problems.append(self.document.problem(message, prefix + path))
            self.broken.add(prefix + path)
        for path, found in seen.items():
            _repair(data, path, needs_value=found["type"] != "extra_forbidden")

    def _unknown(self, path: KeyPath, prefix: KeyPath) -> str:
        section = (prefix + path)[:-1]
        allowed = _keys_of(section)
        if not section and is_override(
            self.document.place(path)
        ):  # there, a setting's bare name is a key as well
            return unknown_name(str(path[-1]), [*allowed, *TrainSettings.model_fields], what="key")
        message, meant = unknown_key(str(path[-1]), allowed, section=dotted(section))
        if meant is not None:
            self.broken.add(tuple(meant.split(".")))
        return message

    def _wrong(self, detail: Mapping[str, Any], path: KeyPath, prefix: KeyPath) -> str:
        return sentence(detail, name=dotted(prefix + path), value=self.document.get(prefix + path))


def dotted(path: KeyPath) -> str:
    """Return a path as messages write it.

    >>> dotted(("trial", "train_data", 0, "path"))
    'trial.train_data[0].path'
    """
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in path]
    return "".join(parts).removeprefix(".")


def _keys_of(section: KeyPath) -> list[str]:
    """Return the keys that a section allows, found by walking the models."""
    model: type[BaseModel] = SweepConfig
    if section == ("trial", "settings"):
        return list(TrainSettings.model_fields)
    for key in section:
        if isinstance(key, str) and key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as `dict[str, Dimension]` or `list[DataSource] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)


def _data_path(data: Any, loc: tuple[str | int, ...], *, is_missing: bool) -> KeyPath:
    """Return where an error stands in the data, without pydantic's own steps, such as a union's member."""
    path: list[str | int] = []
    for key in loc[:-1] if is_missing else loc:
        if has_item(data, key):
            data = data[key]
            path.append(key)
    return (*path, loc[-1]) if is_missing else tuple(path)


def _repair(data: Any, path: KeyPath, *, needs_value: bool) -> None:
    """Take the wrong value out of `data`; a wrong item takes its whole list along, a wrong benchmark all of them."""
    keys = list(path)
    if keys[:1] == ["benchmarks"] and needs_value:
        keys = keys[:1]
    first_index = next((index for index, key in enumerate(keys) if isinstance(key, int)), None)
    if first_index is not None:
        keys = keys[:first_index]
    for key in keys[:-1]:
        if not isinstance(data, dict) or key not in data:
            return
        data = data[key]
    if not keys or not isinstance(data, dict):
        return
    data.pop(keys[-1], None)
    # A dimension, a metric or a set of data may be called as a section is.
    owner = {"path": _SOURCES, "direction": (("pruner",),)}.get(str(keys[-1]), ())
    is_own_key = len(keys) == 1 or any(tuple(keys[: len(above)]) == above for above in owner)
    if needs_value and first_index is None and is_own_key and keys[-1] in _PLACEHOLDERS:
        data[keys[-1]] = copy.deepcopy(_PLACEHOLDERS[keys[-1]])


def _overlap(first: KeyPath, second: KeyPath) -> bool:
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]
