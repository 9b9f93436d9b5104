"""Trials that failed, and which of them another trial has taken up. Pure."""

from collections.abc import Collection

from sweeper.params import params_key
from sweeper.plan import Point
from sweeper.records import TrialRecord, TrialState


def failures_left(records: Collection[TrialRecord]) -> list[TrialRecord]:
    """Return the FAIL trials that no other trial retries, in the order given; not draws that cannot be trained."""
    taken = retried(records)
    return [
        one
        for one in records
        if one.state is TrialState.FAIL and one.number not in taken and not one.is_in_vain
    ]


def retried(records: Collection[TrialRecord]) -> set[int]:
    """Return the numbers of the trials that another one retries."""
    return {
        one.origin.retries for one in records if one.origin is not None and one.origin.retries is not None
    }


def trials_of(point: Point, records: Collection[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that train a point, in the order given.

    Its id is another one where the study goes on with other resources, or under other code; its params are not. Those
    that train another trial on have the params of that one, and train something else. A repeated draw trains nothing.
    """
    key = params_key(point.params)
    return [
        one
        for one in records
        if not one.is_repeat
        and (one.point_id == point.point_id or (not one.is_continued and params_key(one.params) == key))
    ]
