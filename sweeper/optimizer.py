"""What an optimiser's settings mean: warm-up in steps, beta2 from a half-life, whether gradients are clipped. Pure."""

import math
from typing import Any, TypeGuard

WARMUP_FORMS = ("warmup_steps", "warmup_samples", "warmup_frac")
HALF_LIFE = "adam_beta2_half_life_tokens"  # the setting that beta2 follows from, where it is given
BETA2 = "adam_beta2"
STEADY_SCHEDULES = ("constant", "constant_with_warmup")  # they do not depend on the budget


def warmup_in_steps(
    *, steps: int, samples: int | None, frac: float, effective_batch_size: int, total_steps: int
) -> int:
    """Return the optimiser steps of warm-up, of whichever form is given; parts of a step are rounded up.

    >>> warmup_in_steps(steps=0, samples=100, frac=0.0, effective_batch_size=32, total_steps=50)
    4
    >>> warmup_in_steps(steps=0, samples=None, frac=0.1, effective_batch_size=32, total_steps=25)
    3
    """
    if steps:
        return steps
    if samples:
        return -(-samples // effective_batch_size)
    # Rounding guards against 0.1 * 30 = 3.0000000000000004, which would add a step.
    return math.ceil(round(frac * total_steps, 9))


def beta2_of_half_life(*, half_life_tokens: float, tokens_per_step: float) -> float:
    """Return the beta2 with which a squared gradient's weight halves in so many target tokens.

    A fixed beta2 forgets by steps, so at 30 times the batch its memory is 30 times as long in tokens.

    >>> beta2_of_half_life(half_life_tokens=64_000, tokens_per_step=64_000)
    0.5

    Source: Marek et al., arXiv:2507.07101, section 3. Differs: tokens are those that the loss counts, and where
        rows differ in length, a step has the mean of them.
    """
    return float(2.0 ** (-tokens_per_step / half_life_tokens))


def is_norm_limit(value: Any) -> TypeGuard[float]:
    """Whether a value is a norm at which gradients can be clipped: a setting of the user's own function may be any."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
