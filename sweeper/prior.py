"""The evidence of an earlier study, from which learned pruning starts: its finished trials at this sweep's rungs."""

import bisect
import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.config.messages import join
from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import BUDGET_KINDS
from sweeper.errors import ConfigError, SweeperError
from sweeper.plan import Plan, Point
from sweeper.pruners.signals import windowed_signals
from sweeper.records import RungRecord, TrialRecord, TrialState
from sweeper.study.recorded import RecordedPoint, RecordedSweep
from sweeper.study.recorded_files import is_recorded_file
from sweeper.study.recorded_open import open_recorded
from sweeper.study.study import Study

logger = logging.getLogger(__name__)

_NO_PLACE = (*BUDGET_KINDS, "seed")  # params that do not say where a point lies
# What must be the same for one study's results to say something about another's.
_SHARED = (
    *("model", "revision", "train_data", "data_sets", "phases", "eval_data", "metrics", "function"),
    "chat_template",
)


def read_prior(config: SweepConfig) -> RecordedSweep | None:
    """Return what `pruner.prior` names: an earlier study, or a recorded sweep's file; None where it names none.

    Raises:
        ConfigError: If it cannot be read, has no finished trial, or measured something else.
    """
    place = config.pruner.prior
    if place is None:
        return None
    if not is_recorded_file(place):
        with _named(place):
            earlier = Study.open(place).config
        _check_alike(earlier, config, place)
    return open_prior(place, config)


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Say of what cannot be read in the block that `pruner.prior` names it."""
    try:
        yield
    except SweeperError as error:
        raise ConfigError(
            f"`pruner.prior` names `{place}`, which cannot be read as an earlier study. {error}"
        ) from error


def prior_of(plan: Plan) -> dict[int, TrialRecord]:
    """Return what the study that `pruner.prior` names has shown at the plan's rungs; empty where none is named.

    Raises:
        ConfigError: If it says nothing of this sweep.
    """
    sweep = read_prior(plan.config)
    if sweep is None or not plan.rungs_are_known:
        return {}
    return prior_records(
        sweep, marks=plan.rung_marks, unit=plan.rung_unit, budget_samples=plan.budget_samples,
        window_steps=plan.config.pruner.window_steps, space=PriorSpace.of(plan.points or plan.examples),
    )  # fmt: skip


def open_prior(place: str, config: SweepConfig) -> RecordedSweep:
    """Return a study or a file as a recorded sweep of this sweep's metric.

    Raises:
        ConfigError: If it cannot be read, or has another metric.
    """
    with _named(place):
        sweep = open_recorded(place)
    if (sweep.metric, sweep.direction) != (config.metric, config.direction):
        raise ConfigError(
            f"`pruner.prior` names `{place}`, whose metric is `{sweep.metric}` ({sweep.direction}), but this sweep's "
            f"is `{config.metric}` ({config.direction}). Name a study of the same metric, or leave it out."
        )
    return sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorSpace:
    """The space in which this sweep's points lie, and those of an earlier study are to be seen."""

    dimensions: tuple[str, ...]
    settings: Mapping[str, Any]  # of one of its points: what is no dimension is the same in all of them

    @classmethod
    def of(cls, points: Sequence[Point]) -> "PriorSpace":
        """Return the space of some points: a dimension is what each of them has a value of."""
        shared = [name for name in points[0].params if all(name in point.params for point in points)]
        return cls(dimensions=tuple(shared), settings={**points[0].settings, **points[0].params})

    def params_of(self, point: RecordedPoint) -> dict[str, Any] | str:
        """Return what a point of the earlier study has in these dimensions; the name of what keeps it out of them.

        What this sweep varies may have been fixed there; what it fixes may have varied there, and then only the points
        with this sweep's own value lie in its space. A seed does not move a point, and the budget is the same.
        """
        for name in point.params:
            is_apart = name not in self.dimensions and name not in _NO_PLACE
            if is_apart and self.settings.get(name) != point.params[name]:
                return name
        known = {**point.settings, **point.params}
        known |= {name: self.settings[name] for name in BUDGET_KINDS if name in self.dimensions}
        lacking = [name for name in self.dimensions if name not in known]
        return lacking[0] if lacking else {name: known[name] for name in self.dimensions}


def prior_records(
    sweep: RecordedSweep, *, marks: Sequence[int], unit: str, budget_samples: int | None, window_steps: int,
    space: PriorSpace | None = None,
) -> dict[int, TrialRecord]:  # fmt: skip
    """Return the sweep's points as completed trials that stood at these rungs. Their numbers are negative.

    Args:
        sweep: The earlier one.
        marks: Of this sweep's rungs.
        unit: Of the marks: `samples` or `steps`.
        budget_samples: That every point of this sweep trains; None where they differ.
        window_steps: Of the windowed signals.
        space: Of this sweep; None: the earlier one's own. Points that do not lie in it are left out.

    Raises:
        ConfigError: If its points were trained for another budget, or none lies in this sweep's space.
    """
    budgets = {point.budget_samples for point in sweep.points}
    if budget_samples is None or budgets != {budget_samples}:
        own = "is not the same for all points" if budget_samples is None else f"is {budget_samples:,} samples"
        raise ConfigError(
            f"The points of the earlier study `{sweep.name}` were trained for "
            f"{', '.join(f'{budget:,}' for budget in sorted(budgets))} samples, but the budget of this sweep {own}. "
            "What the one ends at says nothing of the other. Leave `pruner.prior` out, or train for the same budget."
        )
    params = _params_of(sweep, space)
    return {
        -1 - index: TrialRecord(
            number=-1 - index, state=TrialState.COMPLETE, params=params[index], point_id=f"prior-{index}",
            settings=dict(point.settings), budget_samples=point.budget_samples, total_steps=point.total_steps,
            value=point.value, metrics=dict(point.metrics), samples=point.budget_samples, step=point.total_steps,
            rungs={
                rung: record for rung, mark in enumerate(marks)
                if (record := _stood_at(point, rung, mark, unit, window_steps)) is not None
            },
        )
        for index, point in enumerate(sweep.points) if math.isfinite(point.value) and index in params
    }  # fmt: skip


def _params_of(sweep: RecordedSweep, space: PriorSpace | None) -> dict[int, dict[str, Any]]:
    """Return the params of the points that lie in a space, by index, and tell how many do not.

    Raises:
        ConfigError: If none does.
    """
    if space is None:
        return {index: dict(point.params) for index, point in enumerate(sweep.points)}
    found = {index: space.params_of(point) for index, point in enumerate(sweep.points)}
    inside = {index: params for index, params in found.items() if not isinstance(params, str)}
    if len(inside) == len(found):
        return inside
    names = join(dict.fromkeys(name for name in found.values() if isinstance(name, str)))
    if not inside:
        raise ConfigError(
            f"No point of the earlier study `{sweep.name}` lies in this sweep's space: they have other values of "
            f"{names}, or none that is known. Name a study that shares values with this one, or leave `pruner.prior` "
            "out."
        )
    logger.warning(
        "%d of %d points of the earlier study `%s` are left out: they have other values of %s than this sweep.",
        len(found) - len(inside), len(found), sweep.name, names,
    )  # fmt: skip
    return inside


def _stood_at(point: RecordedPoint, rung: int, mark: int, unit: str, window_steps: int) -> RungRecord | None:
    """Return what a point showed at a mark; None where that is not before its end."""
    positions = [row.step if unit == "steps" else row.samples for row in point.rows]
    at = bisect.bisect_left(positions, mark)
    if at >= len(positions) - 1:
        return None
    row = point.rows[at]
    signals = windowed_signals(point.rows[: at + 1], window_steps=window_steps)
    for measured in point.measured:
        if measured.step <= row.step:
            signals.update(measured.metrics)
    return RungRecord(rung=rung, mark=mark, step=row.step, samples=row.samples, signals=signals)


def _check_alike(earlier: SweepConfig, config: SweepConfig, place: str) -> None:
    """Refuse a study of something else.

    Raises:
        ConfigError: Naming what differs.
    """
    theirs, ours = earlier.trial.model_dump(mode="json"), config.trial.model_dump(mode="json")
    differing = [name for name in _SHARED if theirs.get(name) != ours.get(name)]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"`pruner.prior` names `{Path(place).name}`, which trained something else: its `trial.{name}` is "
            f"{theirs.get(name)}, this sweep's {ours.get(name)}. Name a study of the same model and data, or leave "
            "it out."
        )
