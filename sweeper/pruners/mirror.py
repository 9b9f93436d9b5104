"""An Optuna study in memory that holds one float of every rung, for Optuna's pruners to judge by."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.trial import TrialState as OptunaState

from sweeper.pruners.changes import Changes
from sweeper.records import Direction, TrialRecord, TrialState

ASKED = "asked"  # in a decision's details: what relives the call that it came from
# Hyperband chooses a trial's bracket by the study's name and the trial's number, so both are always the same.
_NAME = "sweeper"
# What these say follows from the reported values alone; others keep in the study, or in themselves, what they said.
_KEEP_NOTHING = (NopPruner, MedianPruner, PercentilePruner, ThresholdPruner, WilcoxonPruner)


class Mirror:
    """Follows the records; its trials have the same numbers. Those that train others on stay blank.

    What a pruner keeps of its own judgements is rebuilt from the recorded decisions: each says who was asked in the
    same call, how many calls came before it, and how many trials with a rung had ended by then.

    Args:
        pruner: Any Optuna pruner.
        signal: Name of the rung signal that it sees.
        direction: Which way that signal is good.
    """

    def __init__(self, pruner: BasePruner, *, signal: str, direction: Direction) -> None:
        self._signal = signal
        self._study = optuna.create_study(study_name=_NAME, direction=direction, pruner=pruner)
        self._keeps_nothing = type(pruner) in _KEEP_NOTHING
        self._trials: list[optuna.Trial] = []  # by number
        self._newest: dict[int, float] = {}  # of each trial that has reported
        self._reported: set[tuple[int, int]] = set()
        self._ended: set[int] = set()
        self._n_ended = 0  # of those that had reported
        self._changes = Changes()
        self._n_calls: int | None = None  # of `ask`, by earlier drivers too; None before the first one

    def ask(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]
    ) -> tuple[dict[int, bool], dict[str, Any] | None]:
        """Ask of trials that stand at a rung whether they are to stop: the first one, then the others by number.

        Returns:
            The answers, and what relives this call; None where nothing needs to be relived.
        """
        if self._n_calls is None:
            self._n_calls = 0 if self._keeps_nothing else self._relive(records)
        asked = [numbers[0], *sorted(numbers[1:])]
        _, changed = self._changes.read(records)
        for number in sorted({*changed, *asked}):
            self._follow(records[number], up_to=rung if number in asked else None)
        order, self._n_calls = self._n_calls, self._n_calls + 1
        answers = self._ask(asked, rung, records)
        call = {"order": order, "trials": asked, "n_ended": self._n_ended}
        return answers, None if self._keeps_nothing else call

    def _ask(self, numbers: Iterable[int], rung: int, records: Mapping[int, TrialRecord]) -> dict[int, bool]:
        shown = [n for n in numbers if records[n].rungs[rung].signals.get(self._signal) is not None]
        with warnings.catch_warnings():
            # Wilcoxon warns at nearly every judgement that trials were measured at different steps (optuna 5.0.0); here
            # they always are, since peers run side by side.
            warnings.simplefilter("ignore", UserWarning)
            # Some pruners answer with numpy's bool (optuna 5.0.0), which JSON does not take.
            return {number: bool(self._trials[number].should_prune()) for number in shown}

    # -- following -------------------------------------------------------------------------------------------

    def _follow(self, record: TrialRecord, *, up_to: int | None = None) -> None:
        """Report what a trial has shown, at most up to a rung, and how it ended."""
        if record.is_continued or record.number in self._ended:
            return
        for index in sorted(record.rungs):
            if record.state.is_finished or up_to is None or index <= up_to:
                self._report(record, index)
        if record.state.is_finished:
            self._ended.add(record.number)
            if record.number in self._newest:
                self._n_ended += 1
                self._end(record)

    def _report(self, record: TrialRecord, index: int) -> None:
        rung, number = record.rungs[index], record.number
        value = rung.signals.get(self._signal)
        if value is None or (number, index) in self._reported:
            return
        self._reported.add((number, index))
        self._newest[number] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            while len(self._trials) <= number:  # those before it may not have begun: they stay blank
                self._trials.append(self._study.ask())
        self._trials[number].report(value, rung.mark)

    def _end(self, record: TrialRecord) -> None:
        trial = self._trials[record.number]
        if record.state is TrialState.COMPLETE:
            # Where the signal has no final value of its own, its last rung stands for it.
            self._study.tell(trial, record.metrics.get(self._signal, self._newest[record.number]))
        else:
            state = OptunaState.PRUNED if record.state is TrialState.PRUNED else OptunaState.FAIL
            self._study.tell(trial, state=state)

    # -- reliving --------------------------------------------------------------------------------------------

    def _relive(self, records: Mapping[int, TrialRecord]) -> int:
        """Ask again what earlier drivers asked, in the same order; return how often they did."""
        ended = [
            n for n, record in records.items() if record.state.is_finished and self._has_reported(record)
        ]
        ended.sort(key=lambda number: (records[number].ended or "", number))
        calls = _calls(records, n_ended=len(ended))
        for call in calls:
            for number in ended[: call["n_ended"]]:
                self._follow(records[number])
            rung, asked = call["rung"], [number for number in call["trials"] if number not in self._ended]
            for number in asked:
                for index in sorted(records[number].rungs):
                    if index <= rung:
                        self._report(records[number], index)
            self._ask(asked, rung, records)
        return calls[-1]["order"] + 1 if calls else 0

    def _has_reported(self, record: TrialRecord) -> bool:
        values = (rung.signals.get(self._signal) for rung in record.rungs.values())
        return not record.is_continued and any(value is not None for value in values)


def _calls(records: Mapping[int, TrialRecord], *, n_ended: int) -> list[dict[str, Any]]:
    """Return the calls that decisions at rungs came from, in order.

    Decisions that do not say how they came about, such as those by another pruner before, come first: each alone, by
    rung and number.
    """
    known: dict[int, dict[str, Any]] = {}
    others: list[tuple[int, int]] = []
    for record in records.values():
        for decision in record.decisions:
            rung, call = decision.get("rung"), (decision.get("details") or {}).get(ASKED)
            if rung not in record.rungs or record.is_continued:
                continue
            if call is None:
                others.append((rung, record.number))
            else:
                known[call["order"]] = {**call, "rung": rung}
    ordered = [known[order] for order in sorted(known)]
    n_before = ordered[0]["n_ended"] if ordered else n_ended
    alone = [
        {"order": -1, "trials": [number], "n_ended": n_before, "rung": rung}
        for rung, number in sorted(dict.fromkeys(others))
    ]
    return alone + ordered
