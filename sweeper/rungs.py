"""Where trials are compared, and how many go on from there: rung marks and counts. Pure."""

import math
from collections.abc import Sequence

from sweeper.errors import ConfigError


def rung_samples(*, first: int, budget: int, reduction_factor: int) -> tuple[int, ...]:
    """Return the sample counts at which a trial is compared with its peers.

    Rung k lies at `first * reduction_factor**k`; the budget itself is no rung, since a trial that gets there is
    complete.

    >>> rung_samples(first=100, budget=2700, reduction_factor=3)
    (100, 300, 900)

    Raises:
        ConfigError: If not `1 <= first <= budget` or `reduction_factor < 2`.

    Source: Li et al., arXiv:1810.05934, with r = first, R = budget, eta = reduction_factor and one bracket.
        Differs: marks are samples, not epochs.
    """
    if not 1 <= first <= budget:
        raise ConfigError(
            f"`rungs.first` must lie between 1 and the budget of {budget} samples, but got {first}."
        )
    if reduction_factor < 2:
        raise ConfigError(f"`rungs.reduction_factor` must be at least 2, but got {reduction_factor}.")
    marks = []
    mark = first
    while mark < budget:
        marks.append(mark)
        mark *= reduction_factor
    return tuple(marks)


def n_going_on(keep_frac: float, n: int) -> int:
    """Return how many of n trials at a rung go on: the fraction of them, rounded up.

    >>> n_going_on(0.5, 5), n_going_on(0.28, 25), n_going_on(1e-12, 7)
    (3, 7, 1)
    """
    return max(1, _ceil(keep_frac * n)) if n else 0


def rungs_at_fractions(fractions: Sequence[float], *, budget: int) -> tuple[int, ...]:
    """Return marks at fractions of the budget, rounded up to whole samples.

    >>> rungs_at_fractions([0.1, 0.3], budget=2048)
    (205, 615)
    """
    return tuple(_ceil(fraction * budget) for fraction in fractions)


def _ceil(product: float) -> int:
    # Rounding guards against 0.1 * 30 = 3.0000000000000004, which would count one more.
    return math.ceil(round(product, 9))


def best_go_on(n: int) -> str:
    """Return how many go on from a rung, in words.

    >>> best_go_on(1), best_go_on(3)
    ('the best one goes on', 'the best 3 go on')
    """
    return "the best one goes on" if n == 1 else f"the best {n} go on"
