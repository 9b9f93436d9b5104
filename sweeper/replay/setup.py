"""A recorded sweep as a config and as points, so that the orchestrator can run it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.config import config_from_dict
from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS, MAX_STUDY_NAME
from sweeper.errors import ConfigError
from sweeper.plan import PlannedRung, Point
from sweeper.plan.budget import CommonBudget
from sweeper.plan.marks import RungMarks, rung_marks
from sweeper.study.recorded import RecordedPoint, RecordedSweep

_SECTIONS = ("pruner", "rungs", "divergence")
_PLAYED = "recorded:points"  # stands for what was trained; nothing is imported


def replay_config(
    sweep: RecordedSweep,
    pruner: str | Mapping[str, Any] = EARLY_DYNAMICS,
    overrides: Sequence[str] = (),
    *,
    seed: int = 0,
    sections: Mapping[str, Any] | None = None,
) -> SweepConfig:
    """Return the config under which a recorded sweep is played.

    Args:
        sweep: What was recorded.
        pruner: The pruner's name, or its whole section.
        overrides: `key=value`; keys are of the pruner's section unless they start with `pruner.`, `rungs.` or
            `divergence.`.
        seed: The study's seed.
        sections: `rungs` and `divergence`, as in a sweep file.

    Raises:
        ConfigError: As for a sweep file, and if a signal that is to be judged was not recorded.
    """
    data: dict[str, Any] = {
        "study": re.sub(r"[^A-Za-z0-9._-]+", "-", sweep.name).strip("-.")[:MAX_STUDY_NAME] or "recorded",
        "seed": seed,
        "metric": sweep.metric,
        "direction": sweep.direction,
        "trial": {"function": _PLAYED, "budget": {"samples": _lowest_budget(sweep)}},
        # Nothing of it is read but how many points there are: what they are stands in the sweep.
        "search_space": {"point": {"grid": list(range(len(sweep.points)))}},
        "pruner": {"name": pruner} if isinstance(pruner, str) else dict(pruner),
        **(sections or {}),
    }
    # Where gradients were clipped stands with the points: `_check_recorded` asks them.
    data["trial"]["settings"] = {"max_grad_norm": 1.0}
    config = config_from_dict(data, overrides=[_in_section(override) for override in overrides])
    _check_recorded(sweep, config)
    if config.pruner.directions == "learned" and config.pruner.set_aside is None:
        # A recorded point can go on from anywhere, as the built-in trial can.
        config = config.model_copy(update={"pruner": config.pruner.model_copy(update={"set_aside": True})})
    return config


def replay_rungs(sweep: RecordedSweep, config: SweepConfig) -> RungMarks:
    """Return where the points are compared.

    Where the config names no rungs, the default fractions move to the nearest positions at which the sweep was
    measured, so that what is judged there was seen there.
    """
    budget = _lowest_budget(sweep)
    common = CommonBudget(kind="samples", value=budget, samples=budget)
    planned = rung_marks(config, common, None)
    if config.rungs.model_fields_set or planned.unit == "steps":
        return planned
    measured = _shared_marks(sweep, budget)
    if not measured:
        return planned
    nearest = dict.fromkeys(min(measured, key=lambda at: abs(at - mark)) for mark in planned.marks)
    return RungMarks(marks=tuple(sorted(nearest)), unit="samples")


def replay_points(sweep: RecordedSweep, rungs: RungMarks) -> tuple[Point, ...]:
    """Return the recorded points as the orchestrator knows points, in the sweep's order."""
    return tuple(
        Point(
            params=dict(point.params),
            settings={**point.settings, **point.params},
            point_id=f"recorded-{index}",
            batch=None,
            budget_samples=point.budget_samples,
            total_steps=point.total_steps,
            rungs=_rungs_of(point, rungs),
        )
        for index, point in enumerate(sweep.points)
    )


def _rungs_of(point: RecordedPoint, rungs: RungMarks) -> tuple[PlannedRung, ...]:
    """Return where one point comes to the rungs; of two that fall on one row the later one stays."""
    planned: dict[int, PlannedRung] = {}
    for index, mark in enumerate(rungs.marks):
        for row in point.rows[:-1]:  # a rung at the point's end is none
            if (row.step if rungs.unit == "steps" else row.samples) >= mark:
                planned[row.step] = PlannedRung(
                    index=index, mark=mark, step=row.step, samples=row.samples, unit=rungs.unit
                )
                break
    return tuple(planned.values())


def _shared_marks(sweep: RecordedSweep, budget: int) -> list[int]:
    """Return the positions at which every point has been measured, as marks.

    A point is measured at its first step at or past a mark, and a large batch steps far past it. So the marks
    are those of the point with the finest steps.
    """
    finest = max(sweep.points, key=lambda point: (len(point.measured), len(point.rows)))
    return [at.samples for at in finest.measured if at.samples < budget]


def _lowest_budget(sweep: RecordedSweep) -> int:
    return min(point.budget_samples for point in sweep.points)


def _clips(point: RecordedPoint) -> bool:
    return point.settings.get("max_grad_norm") is not None


def _in_section(override: str) -> str:
    key = override.partition("=")[0].strip()
    return override if key.split(".")[0] in _SECTIONS else f"pruner.{override}"


def _check_recorded(sweep: RecordedSweep, config: SweepConfig) -> None:
    """Refuse a pruner that would judge by what the sweep did not record.

    Raises:
        ConfigError: Naming what was recorded.
    """
    section = config.pruner
    if config.divergence.clipped_steps and not any(_clips(point) for point in sweep.points):
        raise ConfigError(
            f"`divergence.clipped_steps` needs to know where gradients were clipped, and `{sweep.name}` recorded no "
            "`max_grad_norm`. Remove it."
        )
    if section.max_gpu_hours is not None:
        raise ConfigError(
            "`max_gpu_hours` is worked out from measured steps, which a replay has not. Give `keep_frac` instead."
        )
    judged = list(section.signals or {})
    if section.signal is not None:
        judged.append(section.signal)
    elif section.name not in ("nop", EARLY_DYNAMICS):
        judged.append(config.metric)
    for name in judged:
        if name not in sweep.signals:
            raise ConfigError(
                f"Pruner `{section.name}` judges `{name}`, which `{sweep.name}` did not record before its end. "
                f"It recorded {', '.join(f'`{known}`' for known in sweep.signals) or 'nothing'}. "
                "Choose one of these with `signal` or `signals`."
            )
