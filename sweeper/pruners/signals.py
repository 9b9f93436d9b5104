"""Windowed signals: what a trial's last steps say, as one number each. Pure."""

import math
from collections.abc import Iterable, Sequence

from sweeper.records import GRAD_NORM, LOSS, StepRow


def windowed_signals(rows: Sequence[StepRow], *, window_steps: int) -> dict[str, float]:
    """Return the mean loss and gradient norm of the last `window_steps` steps.

    A signal that the trial does not report is left out. A NaN or Inf in the window stays one, so that a diverged
    trial cannot look like a good one.

    >>> rows = [StepRow(1, 8, 0, 4.0, None, None), StepRow(2, 16, 0, 2.0, None, None)]
    >>> windowed_signals(rows, window_steps=8)
    {'loss': 3.0}
    """
    window = rows[-window_steps:]
    values = {LOSS: [row.loss for row in window], GRAD_NORM: [row.grad_norm for row in window]}
    means = {name: _mean(given) for name, given in values.items()}
    return {name: mean for name, mean in means.items() if mean is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return math.fsum(given) / len(given) if _is_summable(given) else (math.nan if given else None)


def _is_summable(values: Sequence[float]) -> bool:
    # fsum raises on inf - inf; a window that holds any non-finite value has no mean anyway.
    return bool(values) and all(math.isfinite(value) for value in values)
