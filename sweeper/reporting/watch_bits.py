"""Bars and curves in characters. Pure."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

_BLOCKS = "▁▂▃▄▅▆▇█"


def bar(frac: float, width: int) -> str:
    """Return a bar that is filled as far as `frac` says.

    >>> bar(0.5, 8)
    '━━━━────'
    """
    filled = round(min(1.0, max(0.0, frac)) * width)
    return "━" * filled + "─" * (width - filled)


def sparkline(values: Sequence[float | None] | pd.Series, width: int) -> str:
    """Return a curve in at most `width` characters, each the mean of its part; `x` where a part is not finite.

    >>> sparkline([4.0, 3.0, 2.0, 1.0], 4), sparkline([1.0, None, math.inf, -math.inf], 3), sparkline([], 5)
    ('█▆▃▁', '▁xx', '')
    """
    numbers = np.asarray(values, dtype=float)  # None is NaN
    n_parts = min(width, len(numbers))
    parts = [numbers[i * len(numbers) // n_parts : (i + 1) * len(numbers) // n_parts] for i in range(n_parts)]
    with np.errstate(all="ignore"):  # Inf and -Inf in one part; a sum that is too large
        means = [float(part.mean()) for part in parts]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((m - low) * scale)] if math.isfinite(m) else "x" for m in means)
