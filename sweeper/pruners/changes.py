"""Which trials have changed since a judge last looked. Pure."""

from collections.abc import Mapping
from typing import Any

from sweeper.records import LoggedRecords, TrialRecord


class Changes:
    """Reads on in the log of the records, so that a report costs no look at every trial of the study.

    Records without a log, as in plain Optuna, are all new again as soon as anything has changed.
    """

    def __init__(self) -> None:
        self._source: LoggedRecords | None = None
        self._n_seen = 0
        self._content: list[Any] | None = None

    def read(self, records: Mapping[int, TrialRecord]) -> tuple[bool, list[int]]:
        """Return whether everything read before is to be forgotten, and the numbers of the trials to read."""
        if not isinstance(records, LoggedRecords):
            self._source, content = None, [_content(record) for record in records.values()]
            if content == self._content:
                return False, []
            self._content = content
            return True, list(records)
        is_anew = records is not self._source
        if is_anew:
            self._source, self._n_seen, self._content = records, 0, None
        fresh = records.changed[self._n_seen :]
        self._n_seen += len(fresh)
        return is_anew, list(dict.fromkeys(fresh))


def _content(record: TrialRecord) -> tuple[Any, ...]:
    return (
        record.number, record.point_id, record.params, record.state, record.value, record.is_set_aside,
        record.is_held, len(record.rungs), len(record.decisions),
    )  # fmt: skip
