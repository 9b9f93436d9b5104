"""Which values dimensions and settings take in a sweep. Pure."""

from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension

MAX_POINTS = 100_000  # a study of 10,000 trials takes 5 s to load; see the plan's warning


def possible_values(dimension: Dimension) -> list[Any] | None:
    """Return all values that a dimension can take; None where they cannot be listed."""
    if dimension.listed is not None:
        return dimension.listed
    count = n_values(dimension)
    if dimension.int is None or count is None or count > MAX_POINTS:
        return None
    low, high = dimension.int
    return list(range(low, high + 1, _spacing(dimension)))


def n_values(dimension: Dimension) -> int | None:
    """Return how many values a dimension can take, be they listed or too many for that; None of a range of fractions.

    >>> n_values(Dimension(int=(2, 20_001), step=1))
    20000
    """
    if dimension.listed is not None:
        return len(dimension.listed)
    if dimension.int is None:
        return None
    low, high = dimension.int
    return max(0, (high - low) // _spacing(dimension) + 1)


def setting_values(config: SweepConfig, name: str, *defaults: Any) -> list[Any]:
    """Return the values that a setting takes; the defaults where it is neither fixed nor swept.

    Of a range that cannot be listed there are none.
    """
    dimension = config.search_space.get(name)
    if dimension is not None:
        return list(possible_values(dimension) or [])
    return [config.trial.settings[name]] if name in config.trial.settings else list(defaults)


def _spacing(dimension: Dimension) -> int:
    return 1 if dimension.log else max(1, int(dimension.step or 1))
