"""What a sweep will do, computed from its config: points, batches, budgets, rungs. Pure."""

from sweeper.plan.data import DataFacts, Plan, PlannedRung, Point
from sweeper.plan.points import n_undrawn, plan_longer, plan_point
from sweeper.plan.sharing import by_training
from sweeper.plan.spec import trial_spec
from sweeper.plan.sweep import grid_params, plan_sweep

__all__ = [
    "DataFacts",
    "Plan",
    "PlannedRung",
    "Point",
    "by_training",
    "grid_params",
    "n_undrawn",
    "plan_longer",
    "plan_point",
    "plan_sweep",
    "trial_spec",
]
