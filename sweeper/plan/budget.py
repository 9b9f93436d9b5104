"""How much data a point trains on: the same for all, in whole optimiser steps of each."""

import dataclasses
import math

from sweeper.config.models import SweepConfig
from sweeper.config.space_values import possible_values
from sweeper.config.trial_models import BUDGET_KINDS, TrainSettings
from sweeper.errors import ConfigError
from sweeper.plan.data import DataFacts, Params
from sweeper.plan.mix import Mix, shared_mix

MAX_LOSS_FRAC = 0.05  # of the budget, given up so that all points end on the same sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonBudget:
    """What the sweep's budget comes to, before it is cut into one point's steps."""

    kind: str  # as the user gave it
    value: float | None  # None where the search space sweeps it
    samples: int | None = None  # for all points alike; None if swept, given in steps, or not counted yet
    asked_samples: int | None = None  # before rounding
    mix: Mix | None = (
        None  # of a budget in tokens: what samples are drawn from; None until the data was counted
    )
    differs: bool = False  # no multiple of all batches is near: each point rounds down to its own

    @property
    def is_swept(self) -> bool:
        return self.value is None


def common_budget(config: SweepConfig, facts: DataFacts | None) -> CommonBudget:
    """Return the budget that all points share.

    It is the given one if that is a multiple of every effective batch, else the largest common multiple below
    it if no more than 5 % are lost, else the given one, from which every point rounds down.

    Raises:
        ConfigError: If it is less than one optimiser step of some batch.
    """
    kind = budget_kind(config)
    value = getattr(config.trial.budget, kind)
    mix = shared_mix(config, facts) if kind == "tokens" else None
    if value is None or kind == "steps":
        return CommonBudget(kind=kind, value=value, mix=mix)
    asked = to_samples(kind, value, facts, mix)
    if asked is None:
        return CommonBudget(kind=kind, value=value)
    batches = possible_batches(config)
    if batches is not None:
        batches = sorted({*batches, *phase_batches(config)})
    refuse_under_one_step(asked, batches or largest_batch(config))
    if batches is None:
        rounded, differs = asked, "effective_batch_size" in config.search_space
    else:
        unit = math.lcm(*batches) if batches else 1
        rounded = asked // unit * unit
        differs = rounded < (1 - MAX_LOSS_FRAC) * asked
    samples = asked if differs else rounded
    return CommonBudget(
        kind=kind, value=value, samples=samples, asked_samples=asked, mix=mix, differs=differs
    )


def point_samples(
    common: CommonBudget, params: Params, batch: int | None, facts: DataFacts | None
) -> int | None:
    """Return one point's budget: a multiple of its batch, or None until the data was counted."""
    value: float = params[common.kind] if common.value is None else common.value
    if common.kind == "steps":
        return int(value or 0) * (batch or 1)
    samples = to_samples(common.kind, value, facts, common.mix) if common.is_swept else common.samples
    if samples is None or batch is None:
        return samples
    refuse_under_one_step(samples, [batch])
    return samples // batch * batch


def budget_kind(config: SweepConfig) -> str:
    """Return in what the budget is given, be it fixed or swept."""
    swept = (kind for kind in BUDGET_KINDS if kind in config.search_space)
    return next(swept, None) or config.trial.budget.kinds[0]


def to_samples(kind: str, value: float, facts: DataFacts | None, mix: Mix | None) -> int | None:
    """Return a budget in samples; None where that needs facts that are not at hand."""
    if kind == "samples":
        return int(value)
    if kind == "tokens":
        return None if mix is None else max(1, round(value * mix.samples / mix.tokens))
    return None if facts is None else max(1, round(value * facts.rows))


def possible_batches(config: SweepConfig) -> list[int] | None:
    """Return the effective batches that points can have, ascending; None where they cannot be listed."""
    dimension = config.search_space.get("effective_batch_size")
    if dimension is not None:
        values = possible_values(dimension)
        # Beyond a few dozen, the least common multiple says nothing: each point rounds by itself.
        return sorted(set(values)) if values is not None and len(values) <= 64 else None
    default = None if config.trial.function else TrainSettings().effective_batch_size
    batch = config.trial.settings.get("effective_batch_size", default)
    return [batch] if isinstance(batch, int) and not isinstance(batch, bool) else None


def phase_batches(config: SweepConfig) -> list[int]:
    """Return the effective batches that phases have of their own."""
    sizes = {phase.effective_batch_size for phase in config.trial.phases or ()}
    return sorted(size for size in sizes if size is not None)


def largest_batch(config: SweepConfig) -> list[int]:
    """Return the largest effective batch of a range as a list; empty where none is known."""
    dimension = config.search_space.get("effective_batch_size")
    return [dimension.int[1]] if dimension is not None and dimension.int is not None else []


def refuse_under_one_step(samples: int, batches: list[int]) -> None:
    """Refuse batches that the budget cannot fill once.

    Raises:
        ConfigError: Naming all of them.
    """
    too_large = [batch for batch in batches if batch > samples]
    if too_large:
        named = ", ".join(str(batch) for batch in too_large)
        raise ConfigError(
            f"The budget of {samples} samples is less than one optimiser step of effective_batch_size = "
            f"{named}. Raise the budget to at least {max(too_large)} samples, or remove these batches."
        )
