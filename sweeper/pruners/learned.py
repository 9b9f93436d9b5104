"""Learned pruning: predicts each trial's final metric and stops it when it will hardly be the best. Pure.

Calibration points, spread over the grid, run to their end. From then on each trial's final metric is predicted from its
place in the grid and its signals so far, by everything that has finished. A trial is stopped when the chance that it
ends better than the best known value by more than the tolerance is small enough for the whole study's `risk`.

The risk is spent like money. A study fails only if some stopped trial would have beaten the best by more than the
tolerance, and that is no likelier than the sum of the chances at which they were stopped. So each stop pays its chance,
and what is left is shared among the trials that are still open. The chances are the model's, so the risk is
model-based: where the predictions stop holding, nobody is stopped.

Where trials can be set aside, hardly anybody needs to be stopped before the end: at each rung a trial gives its slot to
one that is likelier to be the best, and may go on later. Once the chances of all open trials together are no more than
the risk that is left, all of them are stopped. So training goes where it can still change the choice.

Source of going on with the most promising: freeze-thaw, Swersky, Snoek and Adams, arXiv:1406.3896.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from scipy.stats import binom

from sweeper.learning import LEARNED_MIN_POINTS, LearnedOptions, calibration_size
from sweeper.pruners.audit import AUDIT_RULE, audit_decision, is_chosen
from sweeper.pruners.inputs import NO_RUNG
from sweeper.pruners.outlook import Forecaster, Outlook, is_complete
from sweeper.records import Decision, TrialRecord, TrialState

RULE = "learned"
_POOL = 0.1  # of the risk that is left: what one round of stops may take where that is more than equal shares
_SWITCH = 1.25  # times its own chance that another one's must be: a change of trials costs some seconds
_EARLY = (
    0.1  # of the risk that is left: what stops may take that only free the disk, where trials are set aside
)
_MISS_RATE = 0.05  # of results outside their 95 % interval, where predictions hold
_MISS_LEVEL = 1e-3  # how unlikely the misses must be by chance before nobody is stopped any more


class LearnedRule:
    """Judges by prediction. Keeps caches only: the same records give the same decisions.

    Args:
        metric: Name of the study's metric among the signals; None where it is not among them.
        direction: The metric's direction.
        options: How the risk is spent.
        n_points: Points of the whole study, where the records do not hold all of them from the start.
        prior: Completed trials of an earlier study, from which it learns too; their numbers are negative.
    """

    def __init__(
        self,
        *,
        metric: str | None,
        direction: Literal["minimize", "maximize"],
        options: LearnedOptions | None = None,
        n_points: int | None = None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        self._n_prior = len(prior or {})
        self._metric = metric or "the metric"
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._options = options or LearnedOptions()
        self._declared_points = n_points or 0
        self._forecaster = Forecaster(
            metric=metric, sign=self._sign, tolerance=self._options.tolerance, prior=prior
        )
        self._judged_with: tuple[tuple[int, int], ...] | None = None

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at the rung where they stand. One decision each, in order."""
        found = self._decide(numbers, records)
        reporter = numbers[0]
        if self._options.set_aside and not found[reporter].stop:
            found[reporter] = self._or_aside(found[reporter], records)
        return [found[number] for number in numbers]

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows from the trials that ended since: stops and audits, of running and waiting ones."""
        # Only a trial that came to its end changes what others are worth by much; but each rung may settle the choice.
        key = tuple(
            (number, -1 if is_complete(record) or not self._options.set_aside else len(record.rungs))
            for number, record in sorted(records.items())
            if is_complete(record) or (self._options.set_aside and not record.state.is_finished)
        )
        if key == self._judged_with or self._why_nobody(records) is not None:
            return []
        self._judged_with = key
        still_open = [n for n in sorted(records) if not records[n].state.is_finished]
        found = self._decide(still_open, records)
        return [d for d in found.values() if d.stop or (d.rule == AUDIT_RULE and d.details)]

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return the trial to start next: calibration points, then the likeliest to be the best, audits last.

        None where those that run may settle the choice: all others together are hardly worth their training.
        """
        if self._has_too_few(records):
            return waiting[0]
        chosen = self._forecaster.reader.calibration(records, self._n_calibration(records))
        first = next((number for number in chosen if number in waiting), None)
        if first is not None:
            return first
        if not any(is_complete(record) for record in records.values()):
            return waiting[0]
        tolerance = self._forecaster.tolerance(records) if self._options.set_aside else 0.0
        outlooks = self._forecaster.outlooks(records, tolerance=tolerance)

        if self._options.set_aside and self._may_wait(waiting, records, outlooks):
            return None
        return min(waiting, key=lambda number: self._turn(number, records, outlooks))

    def _may_wait(
        self, waiting: Sequence[int], records: Mapping[int, TrialRecord], outlooks: Mapping[int, Outlook]
    ) -> bool:
        judged = [number for number in waiting if audit_decision(records[number]) is None]
        if (
            self._why_nobody(records)
            or _broken_predictions(records)
            or not any(map(_is_training, records.values()))
        ):
            return False
        if not judged or not all(n in outlooks and self._may_stop(outlooks[n], None) for n in judged):
            return False
        return sum(outlooks[number].chance for number in judged) <= self._left(records)

    def _turn(
        self, number: int, records: Mapping[int, TrialRecord], outlooks: Mapping[int, Outlook]
    ) -> tuple[bool, float, float, int]:
        """Return what a trial is ordered by; the least goes first."""
        audited = audit_decision(records[number]) is not None
        if number not in outlooks:
            return audited, 0.0, 0.0, number
        chance = outlooks[number].chance if self._options.set_aside else 0.0
        return audited, -chance, -outlooks[number].high, number

    # -- deciding --------------------------------------------------------------------------------------------

    def _n_points(self, records: Mapping[int, TrialRecord]) -> int:
        return max(len(records), self._declared_points)

    def _n_calibration(self, records: Mapping[int, TrialRecord]) -> int:
        return self._options.n_calibration or calibration_size(self._n_points(records), n_prior=self._n_prior)

    def _has_too_few(self, records: Mapping[int, TrialRecord]) -> bool:
        return self._n_points(records) + self._n_prior < LEARNED_MIN_POINTS

    def _left(self, records: Mapping[int, TrialRecord]) -> float:
        """Return what is left of the risk."""
        return max(0.0, self._options.risk - sum(map(_spent, records.values())))

    def _why_nobody(self, records: Mapping[int, TrialRecord]) -> str | None:
        """Say why nobody can be predicted yet; None where the calibration is done."""
        if self._has_too_few(records):
            return (
                f"{self._n_points(records)} points are too few to learn from: only what diverges is stopped"
            )
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
        left = self._left(records)
        n_open = sum(_is_open(record) for record in records.values())
        n_open += max(0, self._declared_points - len(records))
        pool = _POOL * left
        if self._options.set_aside:
            settled = self._settled(known, records, left) if broken is None else None
            if settled is not None:
                return {**found, **self._stop_all(outlooks, settled, records, best=best, tolerance=tolerance)}
            left, pool = _EARLY * left, 0.0
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
                found[record.number] = _with_reason(dataclasses.replace(decision, stop=False), broken)
        return found

    def _settled(
        self, outlooks: Mapping[int, Outlook], records: Mapping[int, TrialRecord], left: float
    ) -> str | None:
        """Say that the open trials together hardly change the choice any more; None while they may."""
        judged = [one for n, one in outlooks.items() if audit_decision(records[n]) is None]
        n_open = sum(_is_open(record) for record in records.values())
        together = sum(outlook.chance for outlook in judged)
        if len(judged) < n_open or len(records) < self._declared_points or together > left:
            return None
        if not all(self._may_stop(outlook, None) for outlook in judged):
            return None
        return f"all {n_open} open trials together have a chance of {together:.2g} to be it, within the {left:.2g} left"

    def _stop_all(
        self,
        outlooks: Mapping[int, Outlook],
        settled: str,
        records: Mapping[int, TrialRecord],
        *,
        best: float,
        tolerance: float,
    ) -> dict[int, Decision]:
        found = {}
        for number, outlook in outlooks.items():
            record = records[number]
            if audit_decision(record) is not None:
                found[number] = _plain(record, "goes on in the shadow, as an audit", rule=AUDIT_RULE)
                continue
            decision = self._decision(
                record, outlook, stop=True, allowed=outlook.chance, best=best, tolerance=tolerance
            )
            found[number] = self._audited(record, _with_reason(decision, settled))
        return found

    def _or_aside(self, decision: Decision, records: Mapping[int, TrialRecord]) -> Decision:
        """Give the slot of a trial to one that holds none and is likelier to be the best, where there is one."""
        if self._why_nobody(records) is not None:
            return decision
        rivals = [
            n for n, r in records.items()
            if r.state is TrialState.WAITING or (r.state is TrialState.RUNNING and r.is_set_aside)
        ]  # fmt: skip
        if not rivals:
            return decision
        outlooks = self._forecaster.outlooks(records, tolerance=self._forecaster.tolerance(records))
        rival = min(rivals, key=lambda number: self._turn(number, records, outlooks))
        if audit_decision(records[rival]) is not None:
            return decision
        if audit_decision(records[decision.trial]) is not None:
            return dataclasses.replace(
                decision, aside=True, reason="an audit, set aside until all others have ended"
            )
        outlooks = self._forecaster.outlooks(records, tolerance=self._forecaster.tolerance(records))
        own, other = outlooks.get(decision.trial), outlooks.get(rival)
        if own is None or other is None or other.chance <= _SWITCH * own.chance:
            return decision
        why = f"trial {rival} is likelier to be the best ({other.chance:.2g} against {own.chance:.2g})"
        return dataclasses.replace(_with_reason(decision, why), aside=True)

    def _may_stop(self, outlook: Outlook, broken: str | None) -> bool:
        return (
            broken is None and outlook.is_trusted and (outlook.rung != NO_RUNG or self._options.skip_waiting)
        )

    def _audited(self, record: TrialRecord, decision: Decision) -> Decision:
        """Let a condemned trial go on, where the audit chose it; one that has not started would cost it all."""
        if record.state is TrialState.WAITING or not is_chosen(
            record.point_id, frac=self._options.audit_frac, seed=self._options.seed
        ):
            return decision
        reason = f"goes on in the shadow to check the rule, which would stop it: {decision.reason}"
        return dataclasses.replace(decision, stop=False, rule=AUDIT_RULE, reason=reason)

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


def _is_training(record: TrialRecord) -> bool:
    return record.is_training and audit_decision(record) is None


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
    return dataclasses.replace(decision, reason=f"{reason}; {decision.reason}")
