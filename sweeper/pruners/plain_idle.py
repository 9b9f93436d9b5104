"""Why the pruner stops nobody in plain Optuna, said once: there nobody prints a plan that would have said it."""

import warnings
from collections.abc import Collection, Mapping

import optuna
from optuna.trial import FrozenTrial

from sweeper.learning import LEARNED_MIN_POINTS
from sweeper.pruners.plain import rungs_of
from sweeper.records import TrialRecord, TrialState

_AT_THE_OBJECTIVE = 4  # frames up: these methods, `prune`, Optuna's `should_prune`, then the user's code


class IdleWarnings:
    """What one study was warned of."""

    def __init__(self) -> None:
        self._rungless: set[int] = set()  # trials that asked before they had come to a rung
        self._is_settled = False  # rungs are reported, or the warning that none are was given
        self._told_too_few = False
        self._signals_are_settled = (
            False  # all ranked ones are reported, or it was warned of those that are not
        )

    def note_rung(self) -> None:
        """Take note that rungs are reported."""
        self._is_settled = True

    def note_no_rung(self, study: "optuna.study.Study", trial: FrozenTrial) -> None:
        """Warn where another trial has asked too and has come to its end, and none was judged at any rung.

        A trial may well ask before its first rung, so one that still runs tells nothing.
        """
        if self._is_settled or trial.number in self._rungless:
            return
        asked, self._rungless = self._rungless, self._rungless | {trial.number}
        if not asked:
            return
        complete = (optuna.trial.TrialState.COMPLETE,)
        for other in study.get_trials(deepcopy=False, states=complete):
            if other.number in asked and not rungs_of(other):
                self._is_settled = True
                warnings.warn(
                    f"`EarlyDynamicsPruner` stops nobody in study `{study.study_name}`: trial {other.number} asked "
                    "`should_prune` and came to its end, but no rung of it was reported. It judges what "
                    "`sweeper.pruners.report_rung` records, not the values of `trial.report`. Call `report_rung` at "
                    "each rung, before `should_prune`.",
                    stacklevel=_AT_THE_OBJECTIVE,
                )
                return

    def note_signals(
        self,
        study: "optuna.study.Study",
        ranked: Collection[str],
        records: Mapping[int, TrialRecord],
        number: int,
    ) -> None:
        """Warn where a trial came to its end and reported a ranked signal at none of its rungs.

        One may be evaluated at later rungs only, so a trial that still runs tells nothing but that all are reported.
        """
        if self._signals_are_settled:
            return
        ended = (one for one in records.values() if one.state is TrialState.COMPLETE and one.rungs)
        record = next(ended, records[number])
        reported = {name for rung in record.rungs.values() for name in rung.signals}
        missing = [name for name in ranked if name not in reported]
        self._signals_are_settled = not missing or record.number != number
        if missing and self._signals_are_settled:
            warnings.warn(
                f"`EarlyDynamicsPruner` ranks {_named(missing)} in study `{study.study_name}`, but trial "
                f"{record.number} came to its end and no rung of it has that: what is reported is "
                f"{_named(sorted(reported)) or 'nothing'}. Correct the name in `signals`, or report it by "
                "`report_rung`.",
                stacklevel=_AT_THE_OBJECTIVE,
            )

    def note_too_few(self, study: "optuna.study.Study", n_points: int) -> None:
        """Warn that there are too few points to learn from."""
        if self._told_too_few:
            return
        self._told_too_few = True
        warnings.warn(
            f"`EarlyDynamicsPruner` stops nobody in study `{study.study_name}` yet: it learns from "
            f"{LEARNED_MIN_POINTS} points on and knows of {n_points}. Where there are more, pass `n_points` or enqueue "
            "them all before the start (`study.enqueue_trial`). With so few judge by rank, for example "
            '`EarlyDynamicsPruner(signals={"loss": RankedSignal(direction="minimize")})`.',
            stacklevel=_AT_THE_OBJECTIVE,
        )


def _named(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
