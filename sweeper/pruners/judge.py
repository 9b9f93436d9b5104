"""Who judges: the one interface that the orchestrator knows, and the judge that a config names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.learning import LearnedOptions
from sweeper.pruners.divergence import DivergenceRules
from sweeper.pruners.early_dynamics import EarlyDynamicsPruner
from sweeper.pruners.optuna_judge import OptunaJudge, make_pruner
from sweeper.pruners.ranked import PAPER_SIGNALS, RankedSignal
from sweeper.records import Decision, TrialRecord


class Judge(Protocol):
    """Judges trials at a rung. Keeps nothing that cannot be rebuilt from the records."""

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return the decision on the first of the trials, and those on others that stop them, in order.

        Each of them has reached the rung. Others that go on may be left out.
        """


@runtime_checkable
class LearningJudge(Judge, Protocol):
    """A judge that changes its mind as others report or end, and says which point to start next."""

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows for running and waiting trials from what is known now; empty where nothing does.

        A stop of a WAITING trial means that it is not to be started.
        """

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return one of the waiting trials, to be started next. None: nobody of them now.

        Thousands may wait, and each look walks along them anew: look no further than needed, or make a list of them.


        Whoever asked then lets the sampler draw a new point, or waits for what the running ones show. Where there is
        neither, one of them is started all the same.
        """


def make_judge(config: SweepConfig, prior: Mapping[int, TrialRecord] | None = None) -> Judge:
    """Return the judge that a config names.

    Args:
        config: Of the sweep.
        prior: Completed trials of an earlier study that a learning judge starts from; their numbers are negative.

    Raises:
        ConfigError: If the pruner does not import or does not take its options.
    """
    section = config.pruner
    if section.name != EARLY_DYNAMICS:
        place = config.trial.function_dir
        return OptunaJudge(
            make_pruner(section.name, section.options, directory=Path(place) if place else None),
            name=section.name,
            signal=section.signal or config.metric,
            direction=section.direction or config.direction,
        )
    if section.directions == "learned":
        return EarlyDynamicsPruner(
            directions="learned",
            metric=config.metric,
            direction=config.direction,
            n_points=config.sampler.n_trials,
            prior=prior,
            learned=LearnedOptions(
                risk=section.risk, tolerance=section.tolerance, n_calibration=section.n_calibration,
                skip_waiting=section.skip_waiting, audit_frac=section.audit_frac, seed=config.seed,
                set_aside=config.sets_aside, fill_slots=section.fill_slots,
            ),
        )  # fmt: skip
    signals = {
        name: RankedSignal(direction=item.direction, weight=item.weight)
        for name, item in (section.signals or {}).items()
    }
    return EarlyDynamicsPruner(
        signals=signals or PAPER_SIGNALS, keep_frac=section.keep_frac, min_peers=section.min_peers,
        mode=section.mode, n_points=config.sampler.n_trials,
    )  # fmt: skip


def divergence_rules(config: SweepConfig) -> DivergenceRules:
    """Return which divergence rules a sweep has on, and how strict they are."""
    return DivergenceRules(**config.divergence.model_dump())
