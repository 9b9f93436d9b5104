"""A trial by its number. Pure."""

from collections.abc import Mapping

from sweeper.errors import StudyMismatchError
from sweeper.records import TrialRecord


def numbered(records: Mapping[int, TrialRecord], number: int | None, *, study: str) -> TrialRecord:
    """Return the trial of a study that has a number.

    Raises:
        StudyMismatchError: If none has.
    """
    if number is None or number not in records:
        has = f"its trials are {min(records)} to {max(records)}" if records else "it has no trial yet"
        raise StudyMismatchError(
            f"Study `{study}` has no trial {number}: {has}. `sweeper status` lists them."
        )
    return records[number]
