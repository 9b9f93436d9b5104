"""The plan of a sweep in full: what is in the config, and what was found and measured where that was asked for."""

import dataclasses
from typing import Any

from sweeper import readiness
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.noted_data import as_its_study_noted
from sweeper.plan import Plan, plan_sweep
from sweeper.plan_text import plan_json
from sweeper.preflight.afford import afford
from sweeper.preflight.disk import DiskNeed
from sweeper.preflight.facts import PreflightFacts, run_preflight
from sweeper.preflight.measure import Cost, measure_cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a plan is to hold beside what the config says."""

    preflight: bool = False  # check model and data, and count rows, tokens and slots
    measure: bool = False  # train a few steps too; includes the preflight
    price: float | None = None  # of one GPU-hour


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullPlan:
    """A plan and what stands beside it; None where it was not asked for, or is not known."""

    plan: Plan
    found: PreflightFacts | None
    disk: DiskNeed | None
    cost: Cost | None
    hours_line: str | None  # what `max_gpu_hours` allow

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        told = plan_json(self.plan) | {"disk": None if self.disk is None else dataclasses.asdict(self.disk)}
        told |= {} if self.found is None else {"preflight": self.found.as_json()}
        return told | ({} if self.cost is None else {"cost": self.cost.as_json()})


def plan_in_full(config: SweepConfig, request: PlanRequest) -> FullPlan:
    """Plan a sweep; only a measurement trains, in a child process and a few steps.

    Raises:
        ConfigError: If the sweep cannot be run, or a price is given of what is not measured.
    """
    readiness.check_pruner(config)
    if request.price is not None and not request.measure:
        raise ConfigError("`--price` is for `--measure`, which was not given. Add it.")
    found = run_preflight(as_its_study_noted(config)) if request.preflight or request.measure else None
    facts = None if found is None else found.facts
    plan = plan_sweep(config, facts=facts)
    disk = readiness.plan_disk(config, found)
    cost = hours_line = None
    if request.measure and found is not None:
        cost = measure_cost(plan, found.slots, facts=facts, price_per_gpu_hour=request.price)
        if config.pruner.max_gpu_hours is not None:
            config, hours_line = afford(plan, cost)
            plan = plan_sweep(config, facts=facts)
    return FullPlan(plan=plan, found=found, disk=disk, cost=cost, hours_line=hours_line)
