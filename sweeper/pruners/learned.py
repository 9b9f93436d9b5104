"""Learned pruning: predicts each trial's final metric and stops it when it will hardly be the best. Pure.

Calibration points, spread over the grid, run to their end. From then on each trial's final metric is predicted from its
place in the grid and its signals so far, by everything that has finished. A trial is stopped when the chance that it
ends better than the best known value by more than the tolerance is small enough for the whole study's `risk`.

The risk is spent like money. A study fails only if some stopped trial would have beaten the best by more than the
tolerance, and that is no likelier than the sum of the chances at which they were stopped. So each stop pays its chance,
and what is left is shared among the trials that are still open. The chances are the model's, so the risk is
model-based: where the predictions stop holding, nobody is stopped.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from scipy.stats import binom

from sweeper.learning import LEARNED_MIN_POINTS, LearnedOptions, calibration_size
from sweeper.pruners.audit import AUDIT_RULE, audit_decision, is_chosen
from sweeper.pruners.inputs import NO_RUNG
from sweeper.pruners.outlook import Forecaster, Outlook, is_complete
from sweeper.records import Decision, TrialRecord

RULE = "learned"
_POOL = 0.1  # of the risk that is left: what one round of stops may take where that is more than equal shares
_MISS_RATE = 0.05  # of results outside their 95 % interval, where predictions hold
_MISS_LEVEL = 1e-3  # how unlikely the misses must be by chance before nobody is stopped any more


class LearnedRule:
    """Judges by prediction. Keeps caches only: the same records give the same decisions.

    Args:
        metric: Name of the study's metric among the signals; None where it is not among them.
        direction: The metric's direction.
        options: How the risk is spent.
        n_points: Points of the whole study, where the records do not hold all of them from the start.
    """

    def __init__(
        self,
        *,
        metric: str | None,
        direction: Literal["minimize", "maximize"],
        options: LearnedOptions | None = None,
        n_points: int | None = None,
    ) -> None:
        self._metric = metric or "the metric"
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._options = options or LearnedOptions()
        self._declared_points = n_points or 0
        self._forecaster = Forecaster(metric=metric, sign=self._sign, tolerance=self._options.tolerance)
        self._judged_with: tuple[int, ...] | None = None

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at the rung where they stand. One decision each, in order."""
        found = self._decide(numbers, records)
        return [found[number] for number in numbers]

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows from the trials that ended since: stops and audits, of running and waiting ones."""
        key = tuple(number for number in sorted(records) if is_complete(records[number]))
        if key == self._judged_with or self._why_nobody(records) is not None:
            return []
        self._judged_with = key
        still_open = [n for n in sorted(records) if not records[n].state.is_finished]
        found = self._decide(still_open, records)
        return [d for d in found.values() if d.stop or (d.rule == AUDIT_RULE and d.details)]

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int:
        """Return the trial to start next: calibration points, then the likeliest to be good, audits last."""
        if self._n_points(records) < LEARNED_MIN_POINTS:
            return waiting[0]
        chosen = self._forecaster.reader.calibration(records, self._n_calibration(records))
        first = next((number for number in chosen if number in waiting), None)
        if first is not None:
            return first
        if not any(is_complete(record) for record in records.values()):
            return waiting[0]
        outlooks = self._forecaster.outlooks(records, tolerance=0.0)

        def order(number: int) -> tuple[bool, float, int]:
            audited = audit_decision(records[number]) is not None
            return audited, -outlooks[number].high if number in outlooks else 0.0, number

        return min(waiting, key=order)

    # -- deciding --------------------------------------------------------------------------------------------

    def _n_points(self, records: Mapping[int, TrialRecord]) -> int:
        return max(len(records), self._declared_points)

    def _n_calibration(self, records: Mapping[int, TrialRecord]) -> int:
        return self._options.n_calibration or calibration_size(self._n_points(records))

    def _why_nobody(self, records: Mapping[int, TrialRecord]) -> str | None:
        """Say why nobody can be predicted yet; None where the calibration is done."""
        n_points = self._n_points(records)
        if n_points < LEARNED_MIN_POINTS:
            return f"{n_points} points are too few to learn from: only what diverges is stopped"
        n_complete, wanted = sum(map(is_complete, records.values())), self._n_calibration(records)
        if n_complete < wanted:
            return f"calibration: {n_complete} of {wanted} trials have run to their end"
        return None

    def _decide(self, numbers: Sequence[int], records: Mapping[int, TrialRecord]) -> dict[int, Decision]:
        why = self._why_nobody(records)
        if why is not None:
            return {number: _plain(records[number], why) for number in numbers}
        broken = _broken_predictions(records)
        tolerance = self._forecaster.tolerance(records)
        known = self._forecaster.outlooks(records, tolerance=tolerance)
        outlooks = {number: known[number] for number in numbers if number in known}
        best = self._forecaster.scale(records).best
        found = {
            n: _plain(records[n], "too few finished trials to predict") for n in numbers if n not in outlooks
        }
        left = max(0.0, self._options.risk - sum(map(_spent, records.values())))
        n_open = sum(_is_open(record) for record in records.values())
        n_open += max(0, self._declared_points - len(records))
        pool = _POOL * left
        for outlook in sorted(outlooks.values(), key=lambda one: (one.chance, one.number)):
            record = records[outlook.number]
            if audit_decision(record) is not None:
                found[record.number] = _plain(record, "goes on in the shadow, as an audit", rule=AUDIT_RULE)
                continue
            allowed = max(left / max(n_open, 1), pool)
            stop = self._may_stop(outlook, broken) and outlook.chance <= allowed
            decision = self._decision(
                record, outlook, stop=stop, allowed=allowed, best=best, tolerance=tolerance
            )
            found[record.number] = self._audited(record, decision) if stop else decision
            if found[record.number].stop:
                left, pool = left - outlook.chance, pool - outlook.chance
                n_open -= 1
            elif broken is not None:
                found[record.number] = _with_reason(decision, broken)
        return found

    def _may_stop(self, outlook: Outlook, broken: str | None) -> bool:
        return (
            broken is None and outlook.is_trusted and (outlook.rung != NO_RUNG or self._options.skip_waiting)
        )

    def _audited(self, record: TrialRecord, decision: Decision) -> Decision:
        """Let a condemned trial go on, where the audit chose it."""
        if not is_chosen(record.point_id, frac=self._options.audit_frac, seed=self._options.seed):
            return decision
        return Decision(
            trial=decision.trial, stop=False, rule=AUDIT_RULE, rung=decision.rung, samples=decision.samples,
            reason=f"goes on in the shadow to check the rule, which would stop it: {decision.reason}",
            details=decision.details,
        )  # fmt: skip

    def _decision(
        self,
        record: TrialRecord,
        outlook: Outlook,
        *,
        stop: bool,
        allowed: float,
        best: float,
        tolerance: float,
    ) -> Decision:
        is_early = outlook.rung == NO_RUNG
        expected, low, high = (self._sign * value for value in (outlook.expected, outlook.low, outlook.high))
        low, high = min(low, high), max(low, high)
        seen = {} if is_early else dict(record.rungs[outlook.rung].signals)
        place = "by its point alone" if is_early else f"at rung {outlook.rung}"
        relation = "within" if outlook.chance <= allowed else "above"
        return Decision(
            trial=record.number,
            stop=stop,
            rule=RULE,
            reason=f"{place}, {self._metric} is predicted to end at {expected:.4g} ({low:.4g} to {high:.4g}), the "
            f"best so far is {self._sign * best:.4g}: a chance of {outlook.chance:.2g} to beat it by more than "
            f"{tolerance:.2g}, {relation} the allowed {allowed:.2g}",
            rung=None if is_early else outlook.rung,
            samples=record.samples,
            details={
                "mode": RULE, "signals": seen, "prediction": expected, "low": low, "high": high,
                "chance": outlook.chance, "allowed": allowed, "best": self._sign * best, "tolerance": tolerance,
            },
        )  # fmt: skip


def _is_open(record: TrialRecord) -> bool:
    return not record.state.is_finished and audit_decision(record) is None


def _spent(record: TrialRecord) -> float:
    """Return the risk that was paid for a trial's stop. An audited one may still win, so it costs none."""
    stops = (d for d in record.decisions if d.get("stop") and d.get("rule") == RULE)
    return sum(float(decision["details"]["chance"]) for decision in stops)


def _broken_predictions(records: Mapping[int, TrialRecord]) -> str | None:
    """Say that too many trials ended outside the interval that was last predicted for them; None where not."""
    n_known = n_missed = 0
    for record in records.values():
        predicted = [d["details"] for d in record.decisions if "prediction" in d.get("details", {})]
        if is_complete(record) and predicted:
            n_known += 1
            n_missed += not predicted[-1]["low"] <= float(record.value or 0.0) <= predicted[-1]["high"]
    if n_missed and binom.sf(n_missed - 1, n_known, _MISS_RATE) < _MISS_LEVEL:
        return (
            f"the predictions do not hold, so nobody is stopped: {n_missed} of {n_known} trials ended outside "
            "their 95 % interval"
        )
    return None


def _plain(record: TrialRecord, reason: str, *, rule: str = RULE) -> Decision:
    rung = max(record.rungs, default=None)
    return Decision(
        trial=record.number, stop=False, rule=rule, reason=reason, rung=rung, samples=record.samples
    )


def _with_reason(decision: Decision, reason: str) -> Decision:
    return Decision(
        trial=decision.trial, stop=False, rule=decision.rule, reason=f"{reason}; {decision.reason}",
        rung=decision.rung, samples=decision.samples, details=decision.details,
    )  # fmt: skip
