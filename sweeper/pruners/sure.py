"""The certain and the probe mode of the rank rule as judges: who surely does not survive is stopped."""

import dataclasses
from collections.abc import Mapping, Sequence

from sweeper.pruners.certain import CertainRank
from sweeper.pruners.ranked import LISTED_PEERS, RULE, RankedSignal, shares, shown_signals, values_text
from sweeper.records import Decision, TrialRecord, goodness_sign
from sweeper.rungs import best_go_on


class CertainRule:
    """Stops nobody before it is sure whoever is still to come. Keeps caches only.

    Args:
        signals: Signals to rank.
        keep_frac: Fraction that goes on.
        n_points: Points of the whole grid; None: as many as there are records.
    """

    _mode = "certain"  # as the config and the decisions name it

    def __init__(
        self, signals: Mapping[str, RankedSignal], *, keep_frac: float, n_points: int | None
    ) -> None:
        self._signals = signals
        self._rank = CertainRank(
            directions={n: goodness_sign(s.direction) for n, s in signals.items()},
            weights=shares(signals), keep_frac=keep_frac, n_points=n_points,
        )  # fmt: skip

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge at every rung that the trials passed: what was not sure there may have become so."""
        self._rank.read(records)
        condemned = set(self._rank.open_condemned)
        first, *others = numbers
        return [
            self._decision(first, records, rung),
            *(self._decision(number, records) for number in others if number in condemned),
        ]

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return the stops that are sure now."""
        self._rank.read(records)
        return [self._decision(number, records) for number in self._rank.open_condemned]

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return the first."""
        return waiting[0]

    def survivors(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return who survives: the same under any order, once every trial has ended."""
        return self._rank.survivors(records)

    def _decision(self, number: int, records: Mapping[int, TrialRecord], rung: int | None = None) -> Decision:
        record, verdict = records[number], self._rank.verdict(number)
        at = max(record.rungs) if rung is None else rung
        if verdict is not None:
            at = min((index for index in record.rungs if index >= verdict.rung), default=at)
        if verdict is not None:
            kept = (
                f"surely {verdict.n_better} are better of the at most {verdict.n_entering} that enter, of which "
                f"{best_go_on(verdict.n_kept)}"
            )
        elif self._rank.is_safe(record.number, at):
            kept = "surely among the kept"
        else:
            kept = "not sure yet to be outside the kept"
        shown = record.rungs[at]
        return Decision(
            trial=record.number, stop=verdict is not None, rule=RULE,
            reason=f"{values_text(self._signals, shown)}: at rung {at} {kept}", rung=at, samples=record.samples,
            details={
                "signals": shown_signals(self._signals, shown), "mode": self._mode,
                **({} if verdict is None else dataclasses.asdict(verdict) | _peers(at, records)),
            },
        )  # fmt: skip


def _peers(rung: int, records: Mapping[int, TrialRecord]) -> dict[str, list[int]]:
    """Return the trials that have come to a rung, by whose signals one is stopped there; of a small study alone."""
    if len(records) > LISTED_PEERS:
        return {}
    return {"peers": [number for number in sorted(records) if rung in records[number].rungs]}


class ProbeRule(CertainRule):
    """The same for trials that wait at a rung until all that enter it have come there."""

    _mode = "probe"

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge, and set the first aside while others have to come."""
        first, *others = super().judge(numbers, rung, records)
        waits = not first.stop and bool(self._rank.waiting([first.trial], records))
        return [dataclasses.replace(first, aside=waits), *others]

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return one that need not wait, new ones first; None while others have still to come to their rung.

        Where nobody is left who could come, since those others failed without a word, that is for the caller to see.
        """
        waiting = list(waiting)
        at_a_rung = self._rank.waiting(waiting, records)
        free = [number for number in waiting if number not in at_a_rung]
        return min(free, key=lambda number: bool(records[number].rungs), default=None)
