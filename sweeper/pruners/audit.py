"""The audit: a share of the condemned trials goes on, so that the rate of wrong kills is measured. Pure."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialRecord

AUDIT_RULE = "audit"
_TAIL = 0.025  # on each side of the interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditReport:
    """How often a stop would have been wrong, measured on the condemned trials that went on.

    A kill is wrong where the trial ended better than the best value known when it was condemned, by more than the
    tolerance: the event whose chance the pruner had put at no more than it allowed.
    """

    n_audited: int  # whose end is known: complete, or diverged
    n_wrong: int
    n_open: int  # chosen, but not ended yet
    n_unknown: int  # chosen, but stopped by somebody or failed before the end: neither right nor wrong
    rate: float | None  # of wrong kills; None where nobody was audited
    low: float  # 95 % interval
    high: float
    expected: float  # wrong kills that the pruner's own chances add up to
    spent_samples: int  # trained after they were condemned


def is_chosen(point_id: str, *, frac: float, seed: int) -> bool:
    """Whether a condemned point goes on. The same point and seed always give the same answer."""
    digest = hashlib.sha256(f"audit:{seed}:{point_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < frac * 2**64


def audit_decision(record: TrialRecord) -> dict[str, Any] | None:
    """Return the decision by which a trial goes on as an audit; None where it is none."""
    return next((decision for decision in record.decisions if decision.get("rule") == AUDIT_RULE), None)


def audit_report(records: Iterable[TrialRecord], *, maximize: bool) -> AuditReport:
    """Measure the wrong kills among the audited trials.

    A trial that diverged after it was condemned was condemned rightly; of one that failed or that somebody stopped
    nobody knows.

    Source of the interval: Clopper and Pearson, Biometrika 26 (1934).
    """
    audited = [(record, decision) for record in records if (decision := audit_decision(record)) is not None]
    known = [(record, decision) for record, decision in audited if record.has_result or has_diverged(record)]
    n_open = sum(not record.state.is_finished for record, _ in audited)
    n_wrong = sum(_is_wrong(record, decision["details"], maximize) for record, decision in known)
    low, high = clopper_pearson(n_wrong, len(known))
    return AuditReport(
        n_audited=len(known),
        n_wrong=n_wrong,
        n_open=n_open,
        n_unknown=len(audited) - len(known) - n_open,
        rate=n_wrong / len(known) if known else None,
        low=low,
        high=high,
        expected=sum(float(decision["details"]["chance"]) for _, decision in known),
        spent_samples=sum(
            max(0, record.samples - (decision["samples"] or 0)) for record, decision in audited
        ),
    )


def clopper_pearson(n_hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate.

    >>> tuple(round(bound, 3) for bound in clopper_pearson(0, 10))
    (0.0, 0.308)
    """
    from scipy.stats import beta  # takes a second to load, and most commands need it not

    low = 0.0 if n_hits == 0 else float(beta.ppf(_TAIL, n_hits, n - n_hits + 1))
    high = 1.0 if n_hits == n else float(beta.ppf(1 - _TAIL, n_hits + 1, n - n_hits))
    return low, high


def _is_wrong(record: TrialRecord, details: dict[str, Any], maximize: bool) -> bool:
    if not record.has_result:
        return False
    gain = (record.value or 0.0) - float(details["best"])
    return (gain if maximize else -gain) > float(details["tolerance"])
