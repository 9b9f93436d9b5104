"""Plays a recorded sweep under a pruner, over many random orders."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.config.models import SweepConfig
from sweeper.events import Listener
from sweeper.executors.replay import CurveCheckpoints, RecordedPlay, ReplayExecutor, VirtualClock
from sweeper.orchestrator import Orchestrator
from sweeper.plan import Plan
from sweeper.prior import PriorSpace, open_prior, prior_records
from sweeper.pruners.judge import Judge, divergence_rules, make_judge
from sweeper.records import TrialRecord, TrialState
from sweeper.replay.result import OrderOutcome, ReplayResult
from sweeper.replay.setup import replay_config, replay_points, replay_rungs
from sweeper.study.memory import MemoryStudy
from sweeper.study.recorded import RecordedSweep

_JITTER = 0.2  # a trial's speed is lognormal around its recorded one: two in three within 20 %
_FALLBACK_TOLERANCE = 0.01  # of the grid's range, where the noise between seeds is not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How a recorded sweep is replayed."""

    orders: int = 200  # random orders of its points; order k is the same for every pruner
    slots: int = 4  # trials at a time
    seed: int = 0  # of the orders and speeds, and of the study
    # How much worse than the grid's best still counts as a hit, in the metric's units. None: the standard deviation
    # between seeds where the sweep knows it, else 1 % of the grid's range.
    tolerance: float | None = None


class Replay:
    """A recorded sweep under one pruner, worked out once and played as often as wanted.

    Args:
        sweep: What was recorded.
        config: From `replay_config`.
        judge: Makes the judge, a new one for every order; by default the config's.
    """

    def __init__(
        self,
        sweep: RecordedSweep,
        config: SweepConfig,
        *,
        judge: Callable[[SweepConfig], Judge] = make_judge,
    ) -> None:
        self.sweep = sweep
        self.config = config
        self._rules = divergence_rules(config)
        rungs = replay_rungs(sweep, config)
        self.rungs = rungs
        self._make_judge = judge
        self._points = replay_points(sweep, rungs)
        if config.pruner.prior is not None:
            budgets = {point.budget_samples for point in sweep.points}
            earlier = prior_records(
                open_prior(config.pruner.prior, config), marks=rungs.marks, unit=rungs.unit,
                budget_samples=budgets.pop() if len(budgets) == 1 else None,
                window_steps=config.pruner.window_steps, space=PriorSpace.of(self._points),
            )  # fmt: skip
            self._make_judge = functools.partial(make_judge, prior=earlier)
        self._plays = [RecordedPlay(point, metric=sweep.metric, rules=self._rules) for point in sweep.points]

    def play(
        self,
        order: Sequence[int] | None = None,
        *,
        slots: int = 1,
        speeds: Mapping[int, float] | None = None,
        tolerance: float = 0.0,
        listeners: Sequence[Listener] = (),
        arrivals: Sequence[int] | None = None,
    ) -> OrderOutcome:
        """Play one order.

        Args:
            order: Indices of the recorded points as they are to start; trial n is the n-th of them.
            slots: Trials at a time.
            speeds: By trial number; see `ReplayExecutor`.
            tolerance: What counts as a hit, in the metric's units.
            listeners: Told of every event.
            arrivals: Trials in the order of their messages, instead of the clock's; see `ReplayExecutor`.
        """
        order = range(len(self._points)) if order is None else order
        points = [self._points[index] for index in order]
        plays = {number: self._plays[index] for number, index in enumerate(order)}
        study = MemoryStudy(self.config, points)
        clock = VirtualClock()
        orchestrator = Orchestrator(
            study=study, plan=self._plan(points), judge=self._make_judge(self.config), rules=self._rules,
            listeners=listeners, clock=clock, monitor_of=lambda number, point: plays[number].monitor(),
            checkpoints_of=lambda number: CurveCheckpoints(lambda: study.curves.rows(number)),
        )  # fmt: skip
        executor = ReplayExecutor(plays, slots=slots, clock=clock, speeds=speeds, arrivals=arrivals)
        executor.run(orchestrator)
        return self._outcome(order, orchestrator.records, executor, clock.now, tolerance)

    def _plan(self, points: Sequence[Any]) -> Plan:
        return Plan(
            config=self.config, points=tuple(points), n_trials=len(points), rung_marks=self.rungs.marks,
            rung_unit=self.rungs.unit, rungs_are_known=True, budget_samples=None, examples=(), notes=(), warnings=(),
        )  # fmt: skip

    def _outcome(
        self,
        order: Sequence[int],
        records: Mapping[int, TrialRecord],
        executor: ReplayExecutor,
        makespan_s: float,
        tolerance: float,
    ) -> OrderOutcome:
        completed = [n for n, record in records.items() if record.state is TrialState.COMPLETE]
        sign = self.sweep.sign
        best = max(completed, key=lambda n: (sign * _value(records[n]), -n), default=None)
        value = None if best is None else _value(records[best])
        finals = self.sweep.finals
        # Nothing completed: as bad as the worst point that could have been chosen.
        regret = max(finals) - min(finals) if value is None else sign * (self.sweep.best - value)
        return OrderOutcome(
            chosen=None if best is None else order[best],
            value=value,
            regret=max(0.0, regret),
            is_hit=value is not None and regret <= tolerance + 1e-12,
            spent_samples=sum(executor.spent_samples.values()),
            spent_s=sum(executor.spent_s.values()),
            makespan_s=makespan_s,
            survivors=tuple(sorted(order[n] for n in completed)),
        )

    def result(
        self, outcomes: Sequence[OrderOutcome], options: ReplayOptions, *, label: str | None = None
    ) -> ReplayResult:
        """Return what outcomes come to, all of them played with the same options.

        Args:
            outcomes: One for each order.
            options: Of the replay.
            label: How the pruner is called; by default as the config calls it.
        """
        points = self.sweep.points
        return ReplayResult(
            sweep=self.sweep.name,
            pruner=label or self.config.pruner.name,
            metric=self.sweep.metric,
            tolerance=_tolerance(self.sweep, options),
            rung_marks=self.rungs.marks,
            rung_unit=self.rungs.unit,
            full_samples=sum(point.budget_samples for point in points),
            full_s=sum(point.seconds for point in points),
            slots=options.slots,
            orders=tuple(outcomes),
        )


def replay(
    sweep: RecordedSweep,
    pruner: str | Mapping[str, Any] | SweepConfig,
    options: ReplayOptions | None = None,
    *,
    judge: Callable[[SweepConfig], Judge] = make_judge,
    label: str | None = None,
) -> ReplayResult:
    """Play a recorded sweep under a pruner over random orders of its points and random speeds.

    Args:
        sweep: What was recorded.
        pruner: Name, section, or a config from `replay_config`.
        options: How often, on how many slots, and what counts as a hit.
        judge: Makes the judge of every order, by default the config's.
        label: How the pruner is called in the result.

    Raises:
        ConfigError: If the pruner or its keys are not known, or judge what was not recorded.
    """
    options = options or ReplayOptions()
    if not isinstance(pruner, SweepConfig):
        pruner = replay_config(sweep, pruner, seed=options.seed)
    ready = Replay(sweep, pruner, judge=judge)
    allowed = _tolerance(sweep, options)
    outcomes = []
    for index in range(options.orders):
        order, speeds = drawn_order(len(sweep.points), seed=options.seed, index=index)
        outcomes.append(ready.play(order, slots=options.slots, speeds=speeds, tolerance=allowed))
    return ready.result(outcomes, options, label=label)


def drawn_order(n: int, *, seed: int, index: int) -> tuple[list[int], dict[int, float]]:
    """Draw in which order n points start, and how many times its recorded seconds each trial takes, by its number.

    A point's draw does not depend on its place in the order.
    """
    rng = np.random.default_rng([seed, index])
    order = [int(point) for point in rng.permutation(n)]
    drawn = np.exp(_JITTER * rng.standard_normal(n))
    return order, {number: float(drawn[point]) for number, point in enumerate(order)}


def _tolerance(sweep: RecordedSweep, options: ReplayOptions) -> float:
    if options.tolerance is not None:
        return options.tolerance
    if sweep.seed_sd is not None:
        return sweep.seed_sd
    return _FALLBACK_TOLERANCE * (max(sweep.finals) - min(sweep.finals))


def _value(record: TrialRecord) -> float:
    assert record.value is not None, "a COMPLETE trial has a value"
    return record.value
