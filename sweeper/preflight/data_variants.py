"""The variants of a sweep's model and data that its points can have, each to be checked. Pure."""

from collections.abc import Iterable
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_values import possible_values
from sweeper.config.trial_models import TrainSettings

_MOST_VALUES = 16  # of a setting that are all checked; of more, the smallest


def models_of(config: SweepConfig) -> list[SweepConfig]:
    """Return the sweep once for each of its models, as if it had that one alone."""
    return [_with_model(config, model) for model in variant_values(config, "model") or [None]]


def _with_model(config: SweepConfig, model: str | None) -> SweepConfig:
    if model is None:
        return config
    space = {name: dimension for name, dimension in config.search_space.items() if name != "model"}
    return config.model_copy(update={"trial": config.trial.with_model(model), "search_space": space})


def data_settings(config: SweepConfig) -> Iterable[TrainSettings]:
    """Yield settings with every combination of swept values that the tokens depend on.

    A `max_length` drawn from a range is checked at its smallest value, where the most rows lose their answer.
    """
    base = {key: value for key, value in config.trial.settings.items() if key in TrainSettings.model_fields}
    for loss_on in variant_values(config, "loss_on") or [None]:
        for max_length in variant_values(config, "max_length") or [None]:
            swept = {"loss_on": loss_on, "max_length": max_length}
            yield TrainSettings.model_validate(base | {k: v for k, v in swept.items() if v is not None})


def largest_length(config: SweepConfig) -> int:
    """Return the largest `max_length` that a point can have."""
    dimension = config.search_space.get("max_length")
    if dimension is None:
        return int(config.trial.settings.get("max_length", TrainSettings().max_length))
    return int(max(dimension.listed or dimension.int or [TrainSettings().max_length]))


def packs(config: SweepConfig) -> bool:
    """Whether any point puts several rows into one sequence."""
    return True in (variant_values(config, "packing") or [config.trial.settings.get("packing")])


def variant_values(config: SweepConfig, name: str) -> list[Any]:
    """Return the values of a swept setting that are checked; empty where it is not swept."""
    dimension = config.search_space.get(name)
    if dimension is None:
        return []
    values = possible_values(dimension)
    if values is not None and len(values) <= _MOST_VALUES:
        return list(values)
    return [min(values)] if values else [dimension.int[0]] if dimension.int else []
