"""Decisions by prediction, and how they say it."""

import dataclasses

from sweeper.pruners.fit import Scale
from sweeper.pruners.inputs import NO_RUNG
from sweeper.pruners.ledger import RULE
from sweeper.pruners.outlook import Outlook
from sweeper.records import Decision, TrialRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stakes:
    """What all trials of a study are held against, as it stands now."""

    best: float  # goodness of the best complete trial
    sign: float  # 1 where more of the metric is better, -1 where less is
    metric: str
    scale: Scale  # that outlooks are on
    tolerance: float  # what counts as better, in units of the metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Expected:
    """An outlook in units of the metric."""

    value: float
    low: float
    high: float
    best: float

    @classmethod
    def of(cls, outlook: Outlook, stakes: Stakes) -> "_Expected":
        scale, expected, reach = stakes.scale, outlook.expected, outlook.reach
        goodness = (
            scale.unwarp(expected), scale.unwarp(expected - reach), scale.unwarp(expected + reach), stakes.best
        )  # fmt: skip
        value, low, high, best = (stakes.sign * one for one in goodness)
        return cls(value=value, low=min(low, high), high=max(low, high), best=best)


def predicted_decision(
    record: TrialRecord, outlook: Outlook, stakes: Stakes, *, stop: bool, allowed: float
) -> Decision:
    """Return the decision that follows from what is expected of a trial.

    Args:
        record: The trial.
        outlook: What is expected of it.
        stakes: What it is held against.
        stop: Whether it is stopped.
        allowed: The largest chance at which it may be.
    """
    is_early = outlook.rung == NO_RUNG
    expected = _Expected.of(outlook, stakes)
    seen = {} if is_early else dict(record.rungs[outlook.rung].signals)
    return Decision(
        trial=record.number,
        stop=stop,
        rule=RULE,
        reason=_reason(outlook, expected, stakes, allowed=allowed),
        rung=None if is_early else outlook.rung,
        samples=record.samples,
        details={
            "mode": RULE, "signals": seen, "prediction": expected.value, "low": expected.low, "high": expected.high,
            "chance": outlook.chance, "allowed": allowed, "best": expected.best, "tolerance": stakes.tolerance,
        },
    )  # fmt: skip


def _reason(outlook: Outlook, expected: _Expected, stakes: Stakes, *, allowed: float) -> str:
    place = "by its point alone" if outlook.rung == NO_RUNG else f"at rung {outlook.rung}"
    relation = "within" if outlook.chance <= allowed else "above"
    return (
        f"{place}, {stakes.metric} is predicted to end at {expected.value:.4g} ({expected.low:.4g} to "
        f"{expected.high:.4g}), the best so far is {expected.best:.4g}: a chance of {outlook.chance:.2g} to end as "
        f"the best of all, more than {stakes.tolerance:.2g} ahead of it, {relation} the allowed {allowed:.2g}"
    )


def plain_decision(record: TrialRecord, reason: str, *, rule: str = RULE) -> Decision:
    """Return a decision to go on that no prediction led to."""
    rung = max(record.rungs, default=None)
    return Decision(
        trial=record.number, stop=False, rule=rule, reason=reason, rung=rung, samples=record.samples
    )


def with_reason(decision: Decision, reason: str) -> Decision:
    """Return the decision with one more reason before its own."""
    return dataclasses.replace(decision, reason=f"{reason}; {decision.reason}")
