"""The `search_space` and `sampler` sections: what may vary, and who proposes points."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from sweeper.config.section import Float, Section
from sweeper.config.values import FloatBounds, IntBounds

SamplerName = Literal["grid", "random", "tpe", "qmc", "gp", "cmaes"]
DIMENSION_KINDS = ("grid", "choice", "uniform", "log_uniform", "int")
_ROUNDING = 1e-8  # of steps; Optuna's own


def is_on_step(value: float, *, low: float, step: float | None) -> bool:
    """Whether a number lies a whole number of steps above a lower bound, as Optuna (5.0) counts them; None: anywhere.

    >>> is_on_step(0.3, low=0.1, step=0.1), is_on_step(0.35, low=0.1, step=0.1)
    (True, False)
    """
    if step is None:
        return True
    n_steps = (value - low) / step
    return abs(n_steps - round(n_steps)) < _ROUNDING


class Dimension(Section):
    """One axis of the search space. Exactly one of the five kinds is set."""

    grid: list[Any] | None = Field(default=None, min_length=1)  # every value, in order
    choice: list[Any] | None = Field(default=None, min_length=1)  # categorical
    uniform: FloatBounds | None = None  # bounds inclusive
    log_uniform: FloatBounds | None = None  # bounds inclusive, both > 0
    int: IntBounds | None = None  # bounds inclusive
    step: Annotated[Float, Field(gt=0)] | None = None  # spacing for `uniform` and `int`
    log: bool = False  # for `int`

    @property
    def kind(self) -> str:
        """Return which of the five kinds is set; the first of them, should a file set several."""
        return next(kind for kind in DIMENSION_KINDS if getattr(self, kind) is not None)

    @property
    def listed(self) -> list[Any] | None:
        """Return the values of a `grid` or `choice`; None for a range."""
        return self.grid if self.grid is not None else self.choice

    def nearest_step(self, value: float) -> float:
        """Return the value of a range's grid of steps that is nearest; the value itself where it has none."""
        low, high = getattr(self, self.kind)
        if self._spacing is None:
            return value
        most = math.floor((high - low) / self._spacing + _ROUNDING)
        n_steps = min(most, max(0, round((value - low) / self._spacing)))
        return min(float(high), float(low + n_steps * self._spacing))

    def is_on_step(self, value: float) -> bool:
        """Whether a number between a range's bounds lies on its grid of steps."""
        return is_on_step(value, low=getattr(self, self.kind)[0], step=self._spacing)

    @property
    def _spacing(self) -> float | None:
        return 1 if self.step is None and self.int is not None else self.step


class SamplerSection(Section):
    """Who proposes points. `grid` takes them all; the others draw `n_trials`."""

    name: SamplerName = "grid"
    n_trials: int | None = Field(default=None, ge=1)  # needed by all but grid
    options: dict[str, Any] = Field(default_factory=dict)  # passed to Optuna's class
