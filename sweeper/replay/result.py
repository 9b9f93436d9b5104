"""What a replay found: one outcome per order, and what they come to. Pure."""

import collections
import dataclasses
import statistics
from typing import Any

from sweeper.plan.data import RungUnit


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderOutcome:
    """How one order of the sweep would have ended."""

    chosen: (
        int | None
    )  # index of the recorded point that would have been called best; None where none completed
    value: float | None  # its final metric
    regret: float  # how much worse than the grid's best, in the metric's units; never negative
    is_hit: bool  # regret within the tolerance
    spent_samples: int
    spent_s: float  # training and evaluation, all slots together, at recorded speed
    makespan_s: float  # virtual seconds from the first start to the last end
    survivors: tuple[int, ...]  # indices of the points that were trained to their end, ascending


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """One pruner on one recorded sweep over many orders."""

    sweep: str
    pruner: str
    metric: str
    tolerance: float  # in the metric's units
    rung_marks: tuple[int, ...]
    rung_unit: RungUnit
    full_samples: int  # every point trained to its end
    full_s: float
    slots: int
    orders: tuple[OrderOutcome, ...]

    @property
    def costs(self) -> tuple[float, ...]:
        """Share of the sweep's samples that was trained, per order."""
        return tuple(order.spent_samples / self.full_samples for order in self.orders)

    @property
    def cost(self) -> float:
        """Mean share of the samples that was trained."""
        return statistics.fmean(self.costs)

    @property
    def cost_s(self) -> float:
        """Mean share of the seconds; differs from `cost`, since small batches take longer."""
        return (
            statistics.fmean(order.spent_s for order in self.orders) / self.full_s
            if self.full_s
            else self.cost
        )

    @property
    def wall(self) -> float:
        """Mean time from the first start to the last end, as a share of the grid's seconds over the slots.

        It is more than `cost_s` by what the slots stand free: at the end, and where trials wait for others.
        """
        took_s = statistics.fmean(order.makespan_s for order in self.orders)
        return took_s * self.slots / self.full_s if self.full_s else self.cost

    @property
    def regret(self) -> float:
        """Mean regret."""
        return statistics.fmean(order.regret for order in self.orders)

    @property
    def worst_regret(self) -> float:
        return max(order.regret for order in self.orders)

    @property
    def hit(self) -> float:
        """Share of orders whose final choice is within the tolerance of the grid's best."""
        return statistics.fmean(order.is_hit for order in self.orders)

    @property
    def n_choices(self) -> int:
        """Different final choices over all orders; 1 where the order of reports does not matter."""
        return len({order.chosen for order in self.orders})

    @property
    def survivors(self) -> tuple[int, int]:
        """The fewest and the most points that were trained to their end."""
        counts = [len(order.survivors) for order in self.orders]
        return min(counts), max(counts)

    @property
    def contested(self) -> float:
        """Share of the points trained to their end in some order that were not in every one; 0 where orders agree."""
        in_orders = collections.Counter(point for order in self.orders for point in order.survivors)
        not_in_all = sum(count < len(self.orders) for count in in_orders.values())
        return not_in_all / len(in_orders) if in_orders else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary, JSON-able."""
        return {
            "sweep": self.sweep, "pruner": self.pruner, "metric": self.metric, "orders": len(self.orders),
            "tolerance": self.tolerance, "rungs": list(self.rung_marks), "rung_unit": self.rung_unit,
            "cost": self.cost,
            "cost_median": statistics.median(self.costs), "cost_max": max(self.costs), "cost_s": self.cost_s,
            "wall": self.wall,
            "regret": self.regret, "regret_max": self.worst_regret, "hit": self.hit, "choices": self.n_choices,
            "survivors_min": self.survivors[0], "survivors_max": self.survivors[1],
            "contested": self.contested,
        }  # fmt: skip
