"""Where trials come from that are none of the plan's own points, in words. Pure."""

from sweeper.records import TrialRecord
from sweeper.study.view import StudyView


def origin_text(record: TrialRecord) -> str:
    """Return where a trial comes from; empty for a point of the plan or of the sampler."""
    origin = record.origin
    if origin is None:
        return ""
    parts = []
    if record.is_continued:
        parts.append(f"trains trial {origin.continues} on from step {origin.from_step}")
    elif record.is_warm_started:
        parts.append(f"clone of trial {origin.cloned_from} with its weights of step {origin.from_step}")
    elif origin.cloned_from is not None:
        parts.append(f"clone of trial {origin.cloned_from}")
    if origin.retries is not None:
        parts.append(f"retries trial {origin.retries}")
    return "; ".join(parts) or "added"


def warm_text(record: TrialRecord) -> str:
    """Return whose weights a trial began with; empty where it began from scratch, or trains another one on."""
    origin = record.origin
    if origin is None or not record.is_warm_started:
        return ""
    return f"began with the weights of trial {origin.cloned_from} at its step {origin.from_step}"


def best_label(record: TrialRecord) -> str:
    """Return how a plot names the best trial."""
    return f"best: trial {record.number}{', warm start' if record.is_warm_started else ''}"


def from_scratch_words(view: StudyView) -> str:
    """Return ` from scratch` where some trial with a result was not trained so, else nothing."""
    return " from scratch" if any(record.is_warm_started for record in view.compared) else ""
