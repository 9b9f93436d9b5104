"""What the learned rule counts of a study, kept up to date as trials report and end. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scipy.stats import binom

from sweeper.encoding import decode_number
from sweeper.pruners.audit import audit_decision
from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialRecord, TrialState

RULE = "learned"
_MISS_RATE = 0.05  # of results outside their 95 % interval, where predictions hold
_MISS_LEVEL = 1e-3  # how unlikely the misses must be by chance before nobody is stopped any more


class _Entry(NamedTuple):
    """What one trial counts for."""

    is_unfinished: bool = False
    is_open: bool = False  # unfinished, and no audit
    is_training: bool = False  # holds a slot, and is no audit
    n_rungs: int = 0  # while it is unfinished


class Ledger:
    """Sums over the trials of a study, but for those that train another one on: they are not compared with the others.

    Args:
        sign: 1 where more of the metric is better, -1 where less is.
    """

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self._forget()

    def _forget(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._paid: dict[int, float] = {}  # risk, by stopped trial
        self._teachers: list[int] = []  # in the order of their ends
        self._ended: set[int] = set()
        self._n_predicted = self._n_missed = 0
        self._broken: tuple[int, int] | None = None  # how many missed of how many, once these were too many
        self.spent = 0.0  # of the risk
        self.n_complete = 0
        self.n_calibrating = 0  # of these, whom others are predicted from
        self.n_unfinished = 0
        self.n_open = 0  # unfinished, audits not counted
        self.n_training = 0  # that hold a slot, audits not counted
        self.n_rungs_of_unfinished = 0
        self.best = -math.inf  # goodness of the best complete trial

    def take_in(self, *, is_anew: bool, numbers: Iterable[int], records: Mapping[int, TrialRecord]) -> None:
        """Count trials again that have changed; with `is_anew` forget what was counted before."""
        if is_anew:
            self._forget()
        for number in sorted(numbers, key=lambda number: (records[number].ended or "", number)):
            record = records[number]
            if record.is_continued:
                continue
            old, new = self._entries.get(number, _Entry()), _entry(record)
            self._entries[number] = new
            self.n_unfinished += new.is_unfinished - old.is_unfinished
            self.n_open += new.is_open - old.is_open
            self.n_training += new.is_training - old.is_training
            self.n_rungs_of_unfinished += new.n_rungs - old.n_rungs
            paid = spent(record)
            if paid != self._paid.get(number, 0.0):
                self._paid[number] = paid
                self.spent = math.fsum(self._paid.values())
            if record.state.is_finished and number not in self._ended:
                self._ended.add(number)
                self._note_end(record)

    def teachers(self, n: int | None = None) -> list[int]:
        """Return the first `n` trials, in the order of their ends, that teach: complete ones and diverged ones."""
        return self._teachers[:n]

    @property
    def n_teachers(self) -> int:
        return len(self._teachers)

    @property
    def broken_predictions(self) -> str | None:
        """Why nobody is to be stopped: too many ended outside their last predicted interval. None where not so.

        Once so, it stays so: later hits, mostly of trials that are easier to predict, do not undo it.
        """
        if self._broken is None:
            return None
        missed, known = self._broken
        return (
            f"the predictions do not hold, so nobody is stopped: {missed} of {known} trials ended outside "
            "their 95 % interval"
        )

    def _note_end(self, record: TrialRecord) -> None:
        if record.has_result:
            value = float(record.value or 0.0)
            self.n_complete += 1
            self.best = max(self.best, self._sign * value)
        if record.is_warm_started:
            return  # it may be the best one, but neither teaches nor shows whether predictions hold
        if record.has_result:
            self.n_calibrating += 1
            predicted = [d["details"] for d in record.decisions if "prediction" in d.get("details", {})]
            if predicted:
                self._n_predicted += 1
                low, high = (decode_number(predicted[-1][side]) for side in ("low", "high"))
                self._n_missed += not low <= value <= high
                by_chance = binom.sf(self._n_missed - 1, self._n_predicted, _MISS_RATE)
                if self._broken is None and self._n_missed and by_chance < _MISS_LEVEL:
                    self._broken = (self._n_missed, self._n_predicted)
        elif not has_diverged(record):
            return
        self._teachers.append(record.number)


def is_at_rest(record: TrialRecord) -> bool:
    """Whether a trial could be given a slot: it waits, and for no longer one to come by, or was set aside."""
    if record.state is TrialState.WAITING:
        return not record.is_held
    return record.state is TrialState.RUNNING and record.is_set_aside


def spent(record: TrialRecord) -> float:
    """Return the risk that was paid for a trial's stop. An audited one may still win, so it costs none."""
    stops = (d for d in record.decisions if d.get("stop") and d.get("rule") == RULE)
    return sum(float(decision["details"]["chance"]) for decision in stops)


def _entry(record: TrialRecord) -> _Entry:
    if record.state.is_finished:
        return _Entry()
    is_judged = audit_decision(record) is None
    return _Entry(
        is_unfinished=True, is_open=is_judged, is_training=is_judged and record.is_training,
        n_rungs=len(record.rungs),
    )  # fmt: skip
