"""Decisions by prediction, and how they say it."""

import dataclasses

from sweeper.pruners.fit import Scale
from sweeper.pruners.inputs import NO_RUNG
from sweeper.pruners.ledger import RULE
from sweeper.pruners.outlook import Outlook
from sweeper.records import Decision, TrialRecord


def predicted_decision(
    record: TrialRecord,
    outlook: Outlook,
    *,
    stop: bool,
    allowed: float,
    best: float,
    sign: float,
    metric: str,
    scale: Scale,
    tolerance: float,
) -> Decision:
    """Return the decision that follows from what is expected of a trial.

    Args:
        record: The trial.
        outlook: What is expected of it.
        stop: Whether it is stopped.
        allowed: The largest chance at which it may be.
        best: Goodness of the best complete trial.
        sign: 1 where more of the metric is better, -1 where less is.
        metric: The metric's name.
        scale: That the outlook is on.
        tolerance: What counts as better, in units of the metric.
    """
    is_early = outlook.rung == NO_RUNG
    expected, low, high, best_value = (
        sign * value
        for value in (
            scale.unwarp(outlook.expected), scale.unwarp(outlook.expected - outlook.reach),
            scale.unwarp(outlook.expected + outlook.reach), best,
        )
    )  # fmt: skip
    low, high = min(low, high), max(low, high)
    seen = {} if is_early else dict(record.rungs[outlook.rung].signals)
    place = "by its point alone" if is_early else f"at rung {outlook.rung}"
    relation = "within" if outlook.chance <= allowed else "above"
    return Decision(
        trial=record.number,
        stop=stop,
        rule=RULE,
        reason=f"{place}, {metric} is predicted to end at {expected:.4g} ({low:.4g} to {high:.4g}), the "
        f"best so far is {best_value:.4g}: a chance of {outlook.chance:.2g} to beat it by more than "
        f"{tolerance:.2g}, {relation} the allowed {allowed:.2g}",
        rung=None if is_early else outlook.rung,
        samples=record.samples,
        details={
            "mode": RULE, "signals": seen, "prediction": expected, "low": low, "high": high,
            "chance": outlook.chance, "allowed": allowed, "best": best_value, "tolerance": tolerance,
        },
    )  # fmt: skip


def plain_decision(record: TrialRecord, reason: str, *, rule: str = RULE) -> Decision:
    """Return a decision to go on that no prediction led to."""
    rung = max(record.rungs, default=None)
    return Decision(
        trial=record.number, stop=False, rule=rule, reason=reason, rung=rung, samples=record.samples
    )


def with_reason(decision: Decision, reason: str) -> Decision:
    """Return the decision with one more reason before its own."""
    return dataclasses.replace(decision, reason=f"{reason}; {decision.reason}")
