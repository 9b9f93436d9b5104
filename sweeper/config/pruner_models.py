"""The `rungs`, `pruner` and `divergence` sections: where trials are compared, and who stops them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.section import Float, Section
from sweeper.config.values import Fraction
from sweeper.records import Direction

PRUNER_KEYS_RANK = (
    "signals",
    "keep_frac",
    "min_peers",
    "mode",
    "max_gpu_hours",
)  # of early_dynamics, judging by rank
PRUNER_KEYS_LEARNED = (
    "risk",
    "tolerance",
    "n_calibration",
    "skip_waiting",
    "set_aside",
    "fill_slots",
    "audit_frac",
    "prior",
)  # by prediction
PRUNER_KEYS_OWN = (*PRUNER_KEYS_RANK, "directions", *PRUNER_KEYS_LEARNED)
PRUNER_KEYS_FOREIGN = ("signal", "direction", "options")  # of every other pruner
RUNG_FORMS = ("fractions", "samples", "steps", "first")


class RungSection(Section):
    """Where trials are compared: `fractions`, `samples`, `steps`, or `first` with `reduction_factor`."""

    fractions: list[Annotated[Float, Field(gt=0, lt=1)]] | None = None  # of the budget
    samples: list[Annotated[int, Field(ge=1)]] | None = None
    steps: list[Annotated[int, Field(ge=1)]] | None = None  # needs `compare: unequal` when batches differ
    first: int | None = Field(default=None, ge=1)  # samples
    reduction_factor: int | None = Field(default=None, ge=2)


class SignalWeight(Section):
    """One signal in a rank: which direction is good, and how much it weighs."""

    direction: Direction
    weight: Float = Field(default=1.0, gt=0)


class PrunerSection(Section):
    """Who stops trials: ours, one of Optuna's by name, or `module:Class`."""

    name: str = EARLY_DYNAMICS
    window_steps: int = Field(default=8, ge=1)  # optimiser steps that a windowed signal is the mean of
    # early_dynamics. Without `directions`: `learned`, unless an option of the rank is given.
    directions: Literal["learned", "paper"] | None = None  # None: `signals` has them
    signals: dict[str, SignalWeight] | None = None  # ranked; default: the paper's directions
    keep_frac: Annotated[Float, Field(gt=0, lt=1)] = 0.5  # the best fraction at each rung goes on
    min_peers: int = Field(
        default=4, ge=2
    )  # trials that must have reached a rung before anyone is judged there
    # Judge at once; or only when no later report can change it; or once all have come to the rung and wait there.
    mode: Literal["eager", "certain", "probe"] = "eager"
    # probe: `keep_frac` becomes what so many allow, by measured steps; without GPUs an hour of a slot counts.
    max_gpu_hours: Annotated[Float, Field(gt=0)] | None = None
    risk: Annotated[Float, Field(gt=0, lt=1)] = 0.05  # of missing the grid's best by more than the tolerance
    tolerance: Annotated[Float, Field(ge=0)] | None = None  # in units of the metric; None: by the noise seen
    n_calibration: int | None = Field(
        default=None, ge=4
    )  # points that run to their end first; None: by the grid
    skip_waiting: bool = True  # stop points before their start too
    set_aside: bool | None = (
        None  # give slots to more promising trials; None: where the built-in trial trains
    )
    # Start something on every free slot, instead of waiting for a far likelier trial: sooner done, more training.
    fill_slots: bool = False
    audit_frac: Fraction = 0.1  # of the condemned trials, goes on to check the rule
    # An earlier study's directory, or a recorded sweep's file, of the same model, data, metric and budget.
    prior: str | None = Field(default=None, min_length=1)
    # Optuna's pruners and `module:Class`
    signal: str | None = None  # judged instead of the study's metric
    direction: Direction | None = None  # of that signal
    options: dict[str, Any] = Field(default_factory=dict)  # passed to the pruner's class

    @model_validator(mode="before")
    @classmethod
    def _resolve_directions(cls, data: object) -> object:
        """Write out which way early_dynamics judges, so that a recorded config means the same ever after."""
        if not isinstance(data, dict) or data.get("name", EARLY_DYNAMICS) != EARLY_DYNAMICS:
            return data
        if data.get("directions") is not None or data.get("signals") is not None:
            return data
        is_ranked = any(key in data for key in PRUNER_KEYS_RANK if key != "signals")
        return {**data, "directions": "paper" if is_ranked else "learned"}


class DivergenceSection(Section):
    """What counts as diverged; works beside any pruner. `false` switches a rule off."""

    nan: bool = True  # NaN or Inf in loss or gradient norm
    loss_spike: bool = True
    loss_spike_factor: Float = Field(default=3.0, gt=1)  # times the trial's own best windowed median
    grad_norm_explosion: bool = True
    grad_norm_factor: Float = Field(default=100.0, gt=1)  # times the trial's own median norm
    dead_gradients: bool = True  # a norm of exactly 0 while there is a loss
    clipped_steps: bool = False
    clipped_frac: Annotated[Float, Field(gt=0, lt=1)] = (
        0.95  # share of steps whose norm was above `max_grad_norm`
    )
    patience_steps: int = Field(default=8, ge=1)  # so many steps in a row
