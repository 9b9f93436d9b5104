"""Who judges: the one interface that the orchestrator knows, and the judge that a config names."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sweeper.config.models import SweepConfig
from sweeper.pruners.divergence import DivergenceRules
from sweeper.pruners.early_dynamics import EarlyDynamicsPruner, RankedSignal
from sweeper.pruners.optuna_judge import OptunaJudge, make_pruner
from sweeper.records import Decision, TrialRecord


class Judge(Protocol):
    """Judges trials at a rung. Keeps nothing that cannot be rebuilt from the records."""

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return one decision for each of the trials, in order. Each of them has reached the rung."""


def make_judge(config: SweepConfig) -> Judge:
    """Return the judge that a config names.

    Raises:
        ConfigError: If the pruner does not import or does not take its options.
    """
    section = config.pruner
    if section.name != "early_dynamics":
        return OptunaJudge(
            make_pruner(section.name, section.options),
            name=section.name,
            signal=section.signal or config.metric,
            direction=section.direction or config.direction,
        )
    signals = (
        {
            name: RankedSignal(direction=item.direction, weight=item.weight)
            for name, item in section.signals.items()
        }
        if section.signals is not None
        else None
    )
    return EarlyDynamicsPruner(signals=signals, keep_frac=section.keep_frac, min_peers=section.min_peers)


def divergence_rules(config: SweepConfig) -> DivergenceRules:
    return DivergenceRules(**config.divergence.model_dump())
