"""The pruners that are played against each other: ours in each mode, Optuna's, Ray's ASHA, the paper's rule, none."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.pruners.judge import Judge, make_judge
from sweeper.records import Decision, TrialRecord
from sweeper.replay import replay_config
from sweeper.study.recorded import RecordedSweep

HALVING = {"rungs": {"fractions": [0.1, 0.3]}}
# Wilcoxon compares a trial's values with the best one's, pair by pair, so it needs several.
DENSE = {"rungs": {"fractions": [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]}}


class AshaJudge:
    """Ray's AsyncHyperBandScheduler under our orchestrator: its own bracket decides, in percent of the budget.

    Args:
        metric: What it is told at every rung.
        sign: 1 where more is better; ASHA keeps the highest.
    """

    def __init__(
        self, *, metric: str, sign: float, grace_period: int = 10, reduction_factor: float = 3
    ) -> None:
        from ray.tune.schedulers.async_hyperband import AsyncHyperBandScheduler

        self._metric, self._sign = metric, sign
        scheduler = AsyncHyperBandScheduler(
            metric="x", mode="max", max_t=100, grace_period=grace_period, reduction_factor=reduction_factor
        )
        self._bracket = scheduler._brackets[0]

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Tell the bracket of the trial that reports, the first; ASHA never looks at the others again."""
        return [
            self._decision(records[number], rung, asked=index == 0) for index, number in enumerate(numbers)
        ]

    def _decision(self, record: TrialRecord, rung: int, *, asked: bool) -> Decision:
        seen = record.rungs[rung]
        value = seen.signals.get(self._metric)
        stop = False
        if asked and value is not None:
            percent = 100 * seen.samples / (record.budget_samples or seen.samples)
            trial = _Named(trial_id=str(record.number))
            stop = self._bracket.on_result(trial, percent, self._sign * value) == "STOP"
        return Decision(
            trial=record.number, stop=stop, rule="asha", reason=f"{self._metric} {value}", rung=rung
        )


@dataclasses.dataclass(frozen=True)
class _Named:
    """All that a bracket looks at of a trial."""

    trial_id: str


def _asha(config: SweepConfig) -> Judge:
    return AshaJudge(metric=config.metric, sign=1.0 if config.direction == "maximize" else -1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """One pruner with its settings; `section` may depend on the sweep."""

    label: str
    section: Callable[[RecordedSweep], Mapping[str, Any]]
    sections: Mapping[str, Any] = dataclasses.field(default_factory=lambda: HALVING)
    judge: Callable[[SweepConfig], Judge] = make_judge

    def config(self, sweep: RecordedSweep) -> SweepConfig:
        return replay_config(sweep, self.section(sweep), sections=self.sections)

    def is_available(self, sweep: RecordedSweep) -> bool:
        """Whether this version of the code knows the mode."""
        try:
            self.config(sweep)
        except ConfigError:
            return False
        return True


def _ranked(keep_frac: float, **directions: str) -> Callable[[RecordedSweep], Mapping[str, Any]]:
    signals = {name: {"direction": direction} for name, direction in directions.items()}
    return lambda sweep: {"name": "early_dynamics", "signals": signals, "keep_frac": keep_frac}


def _metric_ranked(**more: Any) -> Callable[[RecordedSweep], Mapping[str, Any]]:
    def section(sweep: RecordedSweep) -> Mapping[str, Any]:
        signals = {sweep.metric: {"direction": sweep.direction}}
        return {"name": "early_dynamics", "signals": signals, "keep_frac": 1 / 3, **more}

    return section


def _optuna(name: str, **options: Any) -> Callable[[RecordedSweep], Mapping[str, Any]]:
    return lambda sweep: {"name": name, "options": options}


def _halving(name: str) -> Callable[[RecordedSweep], Mapping[str, Any]]:
    """Give Optuna's halving pruners the first rung as their resource; their default waits for a finished trial."""

    def section(sweep: RecordedSweep) -> Mapping[str, Any]:
        budget = min(point.budget_samples for point in sweep.points)
        options: dict[str, Any] = {"min_resource": budget // 10, "reduction_factor": 3}
        if name == "hyperband":
            options["max_resource"] = budget
        return {"name": name, "options": options}

    return section


CONTENDERS = (
    Contender(
        label="learned",
        section=lambda sweep: {"name": "early_dynamics", "directions": "learned", "risk": 0.05},
        sections={},
    ),
    Contender(
        label="learned, slots filled",
        section=lambda sweep: {"name": "early_dynamics", "directions": "learned", "fill_slots": True},
        sections={},
    ),
    Contender(label="eager: metric", section=_metric_ranked()),
    Contender(label="certain: metric", section=_metric_ranked(mode="certain")),
    Contender(label="probe: metric", section=_metric_ranked(mode="probe")),
    Contender(label="eager: low loss, norm", section=_ranked(0.5, loss="minimize", grad_norm="minimize")),
    Contender(label="paper's rule", section=_ranked(0.5, loss="maximize", grad_norm="minimize")),
    Contender(label="Optuna Median", section=_optuna("median")),
    Contender(label="Optuna Percentile", section=_optuna("percentile", percentile=25.0)),
    Contender(label="Optuna Halving", section=_halving("successive_halving")),
    Contender(label="Optuna Hyperband", section=_halving("hyperband")),
    Contender(label="Optuna Wilcoxon", section=_optuna("wilcoxon"), sections=DENSE),
    Contender(label="Ray ASHA", section=_optuna("nop"), judge=_asha),
    Contender(label="none", section=_optuna("nop")),
)
