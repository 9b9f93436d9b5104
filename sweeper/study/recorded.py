"""Recorded sweeps: what every point showed on its way to its end, detached from how it was trained.

Replay plays them against a pruner; `recorded_files` keeps them as Parquet or JSONL.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.plan import DataFacts, plan_point
from sweeper.pruners.divergence import DIVERGENCE_RULES
from sweeper.records import GRAD_NORM, LOSS, Direction, StepRow, TrialRecord, TrialState, goodness_sign
from sweeper.study.study import Study

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Metrics that were evaluated after a step."""

    step: int
    samples: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedPoint:
    """One point of a recorded sweep, trained to its end, or until it diverged."""

    params: Mapping[str, Any]
    settings: Mapping[str, Any]  # base settings with params applied; the params alone where no more is known
    budget_samples: int
    total_steps: int
    value: float  # of the sweep's metric at the end; NaN where it diverged
    metrics: Mapping[str, float]  # every final metric
    rows: tuple[StepRow, ...]  # every optimiser step, or whatever was recorded of them
    measured: tuple[Measured, ...]  # in order, the end not among them
    seconds: float  # training and evaluation of the whole point
    number: int | None = None  # of the trial that it was recorded from
    phase_ends: tuple[int, ...] = ()  # samples after which it went on with other data


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedSweep:
    """A sweep whose every point's end is known, so that any pruner can be judged by it."""

    name: str
    metric: str
    direction: Direction
    points: tuple[RecordedPoint, ...]
    seed_sd: float | None = None  # of the metric between seeds of one point, where known
    left_out: int = 0  # points that were stopped early, so that their end is not known

    def __post_init__(self) -> None:
        if not self.finals:
            raise ConfigError(
                f"The recorded sweep `{self.name}` has no point with a final `{self.metric}`, so there is no "
                "best one to be found. Record a sweep with `pruner: nop`, whose points are trained to their end."
            )

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return goodness_sign(self.direction)

    @property
    def best(self) -> float:
        """The best final value of the whole grid."""
        return self.sign * max(self.sign * value for value in self.finals)

    @property
    def finals(self) -> tuple[float, ...]:
        """The final values of the points that did not diverge, in their order."""
        return tuple(point.value for point in self.points if math.isfinite(point.value))

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of what a pruner may judge at a rung."""
        names = dict.fromkeys(name for point in self.points for at in point.measured for name in at.metrics)
        rows = [point.rows[0] for point in self.points if point.rows]
        own = [
            name
            for name in (LOSS, GRAD_NORM)
            if name not in names and any(getattr(row, name) is not None for row in rows)
        ]
        return (*own, *names)

    def with_metric(self, metric: str, direction: Direction | None = None) -> "RecordedSweep":
        """Return the same runs judged by another metric that was measured too.

        Raises:
            ConfigError: If it was not measured.
        """
        known = dict.fromkeys(name for point in self.points for name in point.metrics)
        if metric not in known:
            raise ConfigError(
                f"The recorded sweep `{self.name}` has no final metric `{metric}`. "
                f"Choose one of {', '.join(known)}."
            )
        points = tuple(
            dataclasses.replace(point, value=point.metrics.get(metric, math.nan)) for point in self.points
        )
        return dataclasses.replace(
            self, metric=metric, direction=direction or self.direction, points=points, seed_sd=None
        )


def parse_direction(text: str) -> Direction:
    """Return a direction.

    Raises:
        ConfigError: If it is none.
    """
    if text == "minimize":
        return "minimize"
    if text == "maximize":
        return "maximize"
    raise ConfigError(f"A direction is `minimize` or `maximize`, but got `{text}`.")


def record_study(study: Study) -> RecordedSweep:
    """Return what a study recorded: its completed trials, and those that diverged.

    A trial that was stopped by comparison with others, failed or has not ended is left out, since nobody knows
    what it would have come to; and so is one that trains another one on or began with another one's weights: its
    curve is not what its own params give, and its seconds are of a part of it.

    Raises:
        ConfigError: If no trial has completed.
    """
    records = study.records()
    facts = study.facts()
    points = [
        _point_of(record, tuple(study.curves.rows(number)), study.config, facts, of=records)
        for number, record in sorted(records.items())
        if not (record.is_continued or record.is_warm_started)
    ]
    known = tuple(point for point in points if point is not None)
    left_out = len(points) - len(known)
    if left_out:
        logger.warning(
            "%d of %d trials of study `%s` were not trained to their end and are left out.",
            left_out, len(points), study.name,
        )  # fmt: skip
    return RecordedSweep(
        name=study.name,
        metric=study.config.metric,
        direction=study.config.direction,
        points=known,
        left_out=left_out,
    )


def seed_sd(sweeps: Sequence[RecordedSweep]) -> float:
    """Return the standard deviation between seeds of one point, pooled over the better half of the points.

    Points are matched by their params. The better half counts, since the best one is looked for there.

    Raises:
        ConfigError: If the sweeps share no points, or are fewer than two.
    """
    values: dict[str, list[float]] = {}
    for sweep in sweeps:
        for point in sweep.points:
            values.setdefault(_key(point.params), []).append(point.value)
    shared = [
        given for given in values.values() if len(given) == len(sweeps) > 1 and all(map(math.isfinite, given))
    ]
    if not shared:
        names = ", ".join(f"`{sweep.name}`" for sweep in sweeps)
        raise ConfigError(
            f"The noise between seeds needs the same points under two seeds or more, but {names} share none."
        )
    shared.sort(key=lambda given: -sweeps[0].sign * float(np.mean(given)))
    better = shared[: max(1, len(shared) // 2)]
    return float(np.sqrt(np.mean([np.var(given, ddof=1) for given in better])))


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))


def _point_of(
    record: TrialRecord,
    rows: tuple[StepRow, ...],
    config: SweepConfig,
    facts: DataFacts | None,
    *,
    of: Mapping[int, TrialRecord],
) -> RecordedPoint | None:
    diverged = record.state is TrialState.PRUNED and any(
        decision.get("stop") and decision.get("rule") in DIVERGENCE_RULES for decision in record.decisions
    )
    if not diverged and (record.state is not TrialState.COMPLETE or record.value is None):
        return None
    last = rows[-1] if rows else None
    # A trial that diverged stands before its budget's end; its seconds are of what it did train.
    budget = record.budget_samples or (last.samples if last else 0)
    trained = record if record.read_off is None else of[record.read_off]
    seen = trained.samples or budget
    return RecordedPoint(
        params=dict(record.params),
        settings=dict(record.settings),
        budget_samples=budget,
        total_steps=record.total_steps or (last.step if last else 0),
        value=math.nan if record.value is None else record.value,
        metrics=dict(record.metrics),
        # A trial that reported nothing but its result is one window.
        rows=rows or (StepRow(record.total_steps or 1, budget, 0, None, None, None),),
        measured=tuple(
            Measured(step=rung.step, samples=rung.samples, metrics=metrics)
            for _, rung in sorted(record.rungs.items())
            if (metrics := {k: v for k, v in rung.signals.items() if k not in (LOSS, GRAD_NORM)})
        ),
        seconds=(trained.train_s + trained.evaluation_s) * budget / max(seen, 1),
        number=record.number,
        phase_ends=plan_point(config, record.params, facts=facts).phase_ends if config.trial.phases else (),
    )
