"""Which trials train a point, which of them failed, and which of these another one has taken up. Pure."""

from collections.abc import Collection, Mapping

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


def warm_start_of(record: TrialRecord, records: Mapping[int, TrialRecord]) -> TrialRecord | None:
    """Return the warm-started trial that a trial is, or trains on; None of one whose training began from scratch.

    Such a training is not its point's: it has the params and the point's id, but does not give what these give.
    """
    while record.origin is not None and record.origin.continues is not None:
        record = records[record.origin.continues]
    return record if record.is_warm_started or _is_to_inherit(record) else None


def _is_to_inherit(record: TrialRecord) -> bool:
    """Whether it is to begin with another one's weights, which have not been copied yet: they are when it starts."""
    origin = record.origin
    return origin is not None and origin.warm_start and not record.attempts and not record.state.is_finished


def from_scratch(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Return the trials whose training began from scratch, in the order given: where their points are trained."""
    return [record for record in records.values() if warm_start_of(record, records) is None]


def trials_of(
    point: Point, records: Mapping[int, TrialRecord], *, warm_from: int | None = None
) -> list[TrialRecord]:
    """Return the trials that train a point, in the order given.

    Its id is another one where the study goes on with other resources, or under other code; its params are not. Those
    that train another trial on have the params of that one, and train something else. A repeated draw trains nothing.

    Args:
        point: The point.
        records: All trials of the study.
        warm_from: The trial with whose weights they began; None: from scratch, which is another training.
    """
    key = params_key(point.params)

    def began_so(one: TrialRecord) -> bool:
        warm = warm_start_of(one, records)
        return warm_from == (None if warm is None or warm.origin is None else warm.origin.cloned_from)

    return [
        one
        for one in records.values()
        if not one.is_repeat
        and (one.point_id == point.point_id or (not one.is_continued and params_key(one.params) == key))
        and began_so(one)
    ]
