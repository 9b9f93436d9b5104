"""Which waiting trial takes longest: started first, so that the slots come to the end together. Pure."""

import collections
import statistics
from collections.abc import Iterable, Mapping

from sweeper.records import TrialRecord

_LEAST_S = 0.05  # less says nothing: a function that reports once, at its end, seems to take no time


class TrialLengths:
    """Estimates what trials take, from the steps they have, and from what was measured in this study so far.

    A sample's time is that of its batch size where a trial of that size has ended. Elsewhere it is taken from the line
    through what was measured: a share of a step's fixed time, and its own. As long as nothing was measured, a trial is
    longer than another if it has more steps, or as many and more samples.
    """

    def __init__(self) -> None:
        self._samples: dict[int, int] = collections.defaultdict(int)
        self._seconds: dict[int, float] = collections.defaultdict(float)

    def learn(self, record: TrialRecord) -> bool:
        """Take note of what a trial took that has ended; return whether that is the first of its batch size."""
        batch = _batch(record)
        if batch is None or not record.samples or record.train_s < _LEAST_S:
            return False
        is_first = batch not in self._samples
        self._samples[batch] += record.samples
        self._seconds[batch] += record.train_s
        return is_first

    def in_order(self, waiting: Iterable[int], records: Mapping[int, TrialRecord]) -> list[int]:
        """Return trials, the longest first; those of equal length as they were."""
        return sorted(waiting, key=lambda number: self._length(records[number]), reverse=True)

    def _length(self, record: TrialRecord) -> tuple[float, int, int]:
        steps, samples = record.total_steps or 0, record.budget_samples or 0
        batch = _batch(record)
        seconds = samples * self._sample_s(batch) if self._samples and batch is not None else 0.0
        return seconds, steps, samples

    def _sample_s(self, batch: int) -> float:
        """Return the seconds of a sample at a batch size."""
        measured = {size: self._seconds[size] / self._samples[size] for size in self._samples}
        if batch in measured:
            return measured[batch]
        if len(measured) == 1:
            ((size, sample_s),) = measured.items()
            return sample_s * size / batch  # as if a step took the same time at every batch size
        own, share = statistics.linear_regression([1 / size for size in measured], list(measured.values()))[
            ::-1
        ]
        return max(0.0, own) + max(0.0, share) / batch


def _batch(record: TrialRecord) -> int | None:
    size = record.settings.get("effective_batch_size")
    return size if isinstance(size, int) and size > 0 else None
