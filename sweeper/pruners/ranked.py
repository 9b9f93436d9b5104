"""What ranks of signals are made of, and how a decision by rank says them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import get_args

from sweeper.option_checks import check_at_least_zero, check_word
from sweeper.records import GRAD_NORM, LOSS, Direction, RungRecord

RULE = "early_dynamics"
LISTED_PEERS = 256  # a decision names no more: written 10,000 times, lists of 10,000 would fill the storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedSignal:
    """A signal that takes part in the rank."""

    direction: Direction
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_word("RankedSignal.direction", self.direction, get_args(Direction))
        check_at_least_zero("RankedSignal.weight", self.weight)


PAPER_SIGNALS: Mapping[str, RankedSignal] = {
    LOSS: RankedSignal(direction="maximize"),
    GRAD_NORM: RankedSignal(direction="minimize"),
}


def shares(signals: Mapping[str, RankedSignal]) -> dict[str, float]:
    """Return each signal's part of the rank; together they are 1.

    Raises:
        ValueError: If no signal has a weight.
    """
    total = sum(signal.weight for signal in signals.values())
    if not total > 0:
        raise ValueError(f"The weights of the ranked signals must add up to more than 0, but got {total:g}.")
    return {name: signal.weight / total for name, signal in signals.items()}


def shown_signals(signals: Mapping[str, RankedSignal], record: RungRecord) -> dict[str, float | None]:
    """Return what a trial showed of the ranked signals; None for one that it did not report."""
    return {name: record.signals.get(name) for name in signals}


def values_text(signals: Mapping[str, RankedSignal], record: RungRecord) -> str:
    """Return the same in words."""
    return ", ".join(
        f"{name} {record.signals.get(name, math.nan):.4g} "
        f"({'low' if signal.direction == 'minimize' else 'high'} is good)"
        for name, signal in signals.items()
    )
