"""What a plan's notes and warnings both say and ask of a point."""

from sweeper.config.models import SweepConfig
from sweeper.plan.data import Point


def is_packed(config: SweepConfig, point: Point) -> bool:
    """Whether a point's rows are joined without padding."""
    return config.trial.function is None and point.settings["packing"] is True


def in_steps(n_steps: int) -> str:
    """Return a number of steps in words."""
    return f"{n_steps} step" if n_steps == 1 else f"{n_steps} steps"
