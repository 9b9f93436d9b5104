"""What a study's early signals were worth, for people and for programs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.pruners.audit import audit_report
from sweeper.pruners.correlation import MIN_TRIALS, Correlation
from sweeper.pruners.evidence import Evidence, evidence_of, in_words
from sweeper.records import GRAD_NORM, LOSS
from sweeper.reporting.formats import one_line, percent, short
from sweeper.study.view import StudyView

_STRONGEST = 2  # signals of a rung that are put in words, beside the paper's two
_ALWAYS_TOLD = (LOSS, GRAD_NORM)


def evidence_of_view(view: StudyView) -> list[Evidence]:
    """Return what the study holds, or measure it where the sweep has not ended, as one that was extended."""
    if view.evidence and view.state == "finished":
        return [Evidence.from_dict(entry) for entry in view.evidence]
    return evidence_of(view.records, direction=view.config.direction, seed=view.config.seed)


def evidence_json(view: StudyView, found: Sequence[Evidence] | None = None) -> dict[str, Any]:
    """Return everything as JSON-able data; `found` where it was measured before."""
    audit = audit_report(view.records, maximize=view.config.direction == "maximize")
    found = evidence_of_view(view) if found is None else found
    return {
        "study": view.name,
        "metric": view.config.metric,
        "direction": view.config.direction,
        "evidence": [{**one.as_dict(), "in_words": in_words(one)} for one in found],
        "audit": {
            "n_audited": audit.n_audited, "n_wrong": audit.n_wrong, "n_open": audit.n_open,
            "n_unknown": audit.n_unknown, "rate": audit.rate, "low": audit.low, "high": audit.high,
            "expected": audit.expected, "spent_samples": audit.spent_samples,
        },
    }  # fmt: skip


def format_evidence(view: StudyView) -> RenderableType:
    """Return a table of every signal at every rung, then the strongest of each rung in words."""
    found = evidence_of_view(view)
    parts: list[RenderableType]
    if not found:
        parts = [Text(nothing_to_tell(view))]
    else:
        metric = one_line(view.config.metric)
        parts = [
            Text(f"Rank correlation with the final {metric}; positive: high goes with a better result."),
            Text(),
            _table(found),
            Text(),
            *(Text(f"- {one_line(sentence)}") for sentence in evidence_sentences(found)),
        ]
    if audit := audit_sentence(view):
        parts += [Text(), Text(audit)]
    return Group(*parts)


def nothing_to_tell(view: StudyView) -> str:
    """Say why there is no evidence."""
    ended = view.compared
    if len(ended) < MIN_TRIALS:
        return (
            f"Too few trials have finished to say what an early signal is worth: {len(ended)} of the {MIN_TRIALS} "
            "that it takes."
        )
    trials = f"the {len(ended)} complete trials"
    n_together = max(Counter(rung for record in ended for rung in record.rungs).values(), default=0)
    if n_together < MIN_TRIALS:
        came = f"no more than {n_together}" if n_together else "none"
        why = f"{came} of {trials} came to the same rung before their end, and it takes {MIN_TRIALS}"
    elif len({record.value for record in ended}) == 1:
        why = f"{trials} all ended with {one_line(view.config.metric)} = {short(ended[0].value)}"
    else:
        why = f"at no rung do a signal and the result both differ among {MIN_TRIALS} or more of {trials}"
    return f"What an early signal is worth cannot be said: {why}."


def evidence_sentences(found: Sequence[Evidence]) -> list[str]:
    """Return at each rung the strongest signals and the paper's two in words, then the trivial predictors."""
    sentences = []
    for rung in dict.fromkeys(one.rung for one in found):
        there = [one for one in found if one.rung == rung]
        told = [one for index, one in enumerate(there) if index < _STRONGEST or one.signal in _ALWAYS_TOLD]
        sentences += [in_words(one) for one in told]
        sentences += [f"for comparison there: {trivial}"] if (trivial := _trivial(there[0])) else []
    return sentences


def audit_sentence(view: StudyView) -> str | None:
    """Say how often the audited stops were wrong; None where no audited trial has ended."""
    audit = audit_report(view.records, maximize=view.config.direction == "maximize")
    if not audit.n_audited and not audit.n_unknown:
        return None
    rest = f" {_were(audit.n_unknown)} stopped or failed before the end, which tells nothing of the stop."
    return (
        f"Audit: {audit.n_wrong} of {audit.n_audited} condemned trials that went on proved the stop wrong "
        f"({percent(audit.low)} to {percent(audit.high)}), at {audit.spent_samples:,} samples."
        f"{rest if audit.n_unknown else ''}"
    )


def _were(number: int) -> str:
    return "1 more was" if number == 1 else f"{number} more were"


def _table(found: Sequence[Evidence]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("at", justify="right")
    table.add_column("signal", overflow="fold")
    for header in ("all trials", "one batch", "one rate", "beside both"):
        table.add_column(header, justify="right")
    for one in found:
        others = (
            "-" if c is None else f"{c.rho:+.2f}" for c in (one.within_batch, one.within_rate, one.partial)
        )
        table.add_row(one.place, Text(one_line(one.signal)), correlation_text(one.overall), *others)
    return table


def correlation_text(correlation: Correlation | None) -> str:
    """Return a correlation with its interval; `-` where there is none."""
    if correlation is None:
        return "-"
    return f"{correlation.rho:+.2f} ({correlation.low:+.2f} to {correlation.high:+.2f})"


def _trivial(evidence: Evidence) -> str:
    named = {"a low rate alone": evidence.by_rate, "a large batch alone": evidence.by_batch}
    return ", ".join(f"{name} {correlation_text(one)}" for name, one in named.items() if one is not None)
