"""What training takes, and what stopping trials early saves of it. What several trials share counts once. Pure."""

import dataclasses
from collections.abc import Collection, Sequence

from sweeper.records import TrialRecord, TrialState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """What one training takes, in samples, whether one trial is read off it or several."""

    full: int  # to the end of the longest; more where a shorter one was trained for itself beside it
    saved: int  # of these, what nobody trains since trials were stopped early


def taken_by(group: Sequence[TrialRecord], *, retried: Collection[int]) -> Taken:
    """Return what the trials of one training take.

    Args:
        group: Trials that are beginnings of one training.
        retried: Numbers of failed trials whose points others train: only what they trained in vain counts of them.
    """
    trained = sum(record.own_samples for record in group)
    to_come = sum(_left(record) for record in group if _will_train(record, group))
    longest = max(r.own_samples if r.number in retried else r.own_budget for r in group)
    full = max(longest, trained + to_come)
    stopped = sum(_left(record) for record in group if record.state is TrialState.PRUNED)
    return Taken(full=full, saved=min(stopped, full - trained - to_come))


def _left(record: TrialRecord) -> int:
    return max(0, record.own_budget - record.own_samples)


def _will_train(record: TrialRecord, group: Sequence[TrialRecord]) -> bool:
    """Whether a trial is still to be trained for itself: it has not ended, and no longer one will come by its end."""
    if record.state.is_finished:
        return False
    budget = record.budget_samples or 0
    return record.state is TrialState.RUNNING or not any(
        (other.budget_samples or 0) > budget and not other.state.is_finished and other.samples < budget
        for other in group
    )
