"""What a point's settings come to: its batch, its schedule's name, its beta2."""

from collections.abc import Mapping
from typing import Any

from sweeper.batch import AUTO, BatchPlan, plan_batch
from sweeper.config.trial_models import TrainSettings
from sweeper.errors import ConfigError
from sweeper.optimizer import BETA2, HALF_LIFE, WARMUP_FORMS, beta2_of_half_life
from sweeper.phases import OF_PHASES, PHASED
from sweeper.plan.mix import Mix

# What adapters would be made of, where there are none: the defaults, as ids have always held them.
_NO_ADAPTERS = {
    name: value for name, value in TrainSettings().model_dump().items() if name.startswith("lora_")
}
_UNLESS_PHASED = ("data_strategy", *OF_PHASES)


def batch_of(settings: Mapping[str, Any], n_workers: int = 1) -> BatchPlan | None:
    """Return how a step is cut; None for a function without `effective_batch_size`.

    Raises:
        ConfigError: If it cannot be cut exactly.
    """
    size = settings.get("effective_batch_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(
            f"`effective_batch_size` must be a whole number of at least 1, but got {size}. Correct it."
        )
    micro = settings.get("micro_batch_size", size)
    if micro == AUTO:  # cut where it trains, by what fits there
        micro = size
    return plan_batch(effective_batch_size=size, micro_batch_size=micro, data_parallel_size=n_workers)


def named_schedule(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose schedule has the name that transformers knows it by."""
    has_warmup = any(settings[name] for name in WARMUP_FORMS)
    if settings["lr_scheduler_type"] == "constant" and has_warmup:
        # transformers' `constant` ignores a warm-up without a word (5.23).
        return {**settings, "lr_scheduler_type": "constant_with_warmup"}
    return dict(settings)


def with_beta2(
    settings: Mapping[str, Any], effective_batch_size: int | None, mix: Mix | None
) -> dict[str, Any]:
    """Return settings whose `adam_beta2` is what the optimiser gets; None until the data was counted."""
    half_life = settings.get(HALF_LIFE)
    tokens = tokens_per_step(effective_batch_size, mix)
    if half_life is None or BETA2 not in settings:
        return dict(settings)
    beta2 = None if tokens is None else beta2_of_half_life(half_life_tokens=half_life, tokens_per_step=tokens)
    return {**settings, BETA2: beta2}


def tokens_per_step(effective_batch_size: int | None, mix: Mix | None) -> float | None:
    """Return the target tokens of an optimiser step, as a mean over what is drawn; None where they are not known."""
    if mix is None or effective_batch_size is None:
        return None
    return effective_batch_size * mix.tokens / mix.samples


def hashed_settings(settings: Mapping[str, Any], *, is_function: bool, mixes: bool) -> dict[str, Any]:
    """Return the settings that a point's id is made of.

    Left out are those that came later and are not set, what follows from others, and what has no effect, so that
    points that train the same have the same id; so do fully trained ones whatever is said of adapters.

    Args:
        settings: The point's, resolved.
        is_function: Whether they are those of a user's function, which may call anything as it likes.
        mixes: Whether the point draws from several data sets at a time, so that their weights count.
    """
    unset = {name for name in (HALF_LIFE, "warmup_samples") if settings.get(name) is None}
    if HALF_LIFE not in unset:
        unset.add(BETA2)
    if not is_function:
        unset |= {name for name in ("model", "data_weights", *_UNLESS_PHASED) if settings.get(name) is None}
        if settings.get("data_strategy") != PHASED:
            unset.update(_UNLESS_PHASED)
        if not settings.get("use_liger_kernel"):
            unset.add("use_liger_kernel")
        if not mixes:
            unset.add("data_weights")
    used = {key: value for key, value in settings.items() if key not in unset}
    if not is_function and settings.get("method") == "full":
        used |= _NO_ADAPTERS
    return used
