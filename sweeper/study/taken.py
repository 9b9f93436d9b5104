"""What training takes, and what stopping trials early saves of it. What several trials share counts once. Pure."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sweeper.records import TrialRecord, TrialState


class Taken(NamedTuple):
    """What one training takes, in samples, whether one trial is read off it or several."""

    full: int  # to the end of the longest; more where a shorter one was trained for itself beside it
    saved: int  # of these, what nobody trains since trials were stopped early


def taken_by(group: Sequence[TrialRecord], *, retried: Collection[int]) -> Taken:
    """Return what the trials of one training take.

    Args:
        group: Trials that are beginnings of one training.
        retried: Numbers of failed trials whose points others train: only what they trained in vain counts of them.
    """
    trained = to_come = longest = stopped = 0
    for record in group:
        own, budget = record.own_samples, record.own_budget
        left = max(0, budget - own)
        trained += own
        longest = max(longest, own if record.number in retried else budget)
        if record.state is TrialState.PRUNED:
            stopped += left
        elif _will_train(record, group):
            to_come += left
    full = max(longest, trained + to_come)
    return Taken(full=full, saved=min(stopped, full - trained - to_come))


def _will_train(record: TrialRecord, group: Sequence[TrialRecord]) -> bool:
    """Whether a trial is still to be trained for itself: it has not ended, and no longer one will come by its end."""
    if record.state.is_finished:
        return False
    budget = record.budget_samples or 0
    return record.state is TrialState.RUNNING or not any(
        (other.budget_samples or 0) > budget and not other.state.is_finished and other.samples < budget
        for other in group
    )
