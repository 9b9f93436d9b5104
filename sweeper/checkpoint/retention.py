"""Which checkpoints of a sweep are kept: those of the best trials, and as many as fit a budget of bytes."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from sweeper.checkpoint.manifest import Saved
from sweeper.checkpoint.store import KeptCheckpoints
from sweeper.errors import SweeperError, named_line
from sweeper.records import TrialRecord, TrialState

logger = logging.getLogger(__name__)


class Retention:
    """Removes checkpoints that the policy does not keep. A running trial's newest one always stays.

    Args:
        open_store: Returns the checkpoints of a trial.
        with_any: Returns which of some trials may have checkpoints; asked where all are looked at.
        keep_best: Completed trials whose checkpoints are kept, beside those that train another one on, which are not
            compared; None keeps all.
        max_bytes: For all checkpoints of the sweep together; None sets no bound.
        maximize: Whether a high value is the better one.
    """

    def __init__(
        self,
        open_store: Callable[[int], KeptCheckpoints],
        *,
        with_any: Callable[[Iterable[int]], Iterable[int]] = lambda numbers: numbers,
        keep_best: int | None,
        max_bytes: int | None,
        maximize: bool,
    ) -> None:
        self._open = open_store
        self._with_any = with_any
        self._keep_best = keep_best
        self._max_bytes = max_bytes
        self._sign = -1.0 if maximize else 1.0
        self._known: dict[int, list[Saved]] | None = (
            None  # of trials that have any; only counted under a bound
        )
        self._n_bytes = 0  # of all these
        self._largest: int | None = None  # bytes of the largest one so far; None: not known yet
        self._cleared: set[int] = set()  # ended trials: they save none any more
        self._told = False
        self._is_behind = False  # whether the last try to keep to the bound failed

    def after_save(self, number: int, records: Mapping[int, TrialRecord]) -> None:
        """Make room after a trial has saved one."""
        if self._max_bytes is not None:
            with self._left_to_a_later_save():
                self._count(number, records)
                self._fit(records, self._max_bytes)

    def after_end(self, number: int, records: Mapping[int, TrialRecord]) -> None:
        """Remove what is not kept after a trial has ended.

        The first time that is whatever earlier drivers did not come to; from then on what ends.
        """
        if self._keep_best is not None:
            complete = self._by_value(records.values())
            worse = complete[self._keep_best :] if records[number].state is TrialState.COMPLETE else []
            failed = [number] if records[number].state is TrialState.FAIL else []
            new = [other for other in [*worse, *failed] if other not in self._cleared]
            for other in self._with_any(new) if len(new) > 1 else new:
                self._clear(other)
            self._cleared.update(new)
        if self._max_bytes is not None and records[number].state is not TrialState.PRUNED:
            with self._left_to_a_later_save():
                self._count(number, records)
                self._fit(records, self._max_bytes)

    def may_wait(self, number: int, records: Mapping[int, TrialRecord], *, n_told: int) -> bool:
        """Whether a trial may be set aside: the bound holds even if every trial that has begun keeps its newest one.

        Another trial begins on its slot. Until the first one was saved, which tells their size, one at a time may.

        Args:
            number: The trial.
            records: Of all trials.
            n_told: Other trials that were told so and still hold their slots.
        """
        if self._max_bytes is None:
            return True
        if self._known is None:
            with self._left_to_a_later_save():
                self._count(number, records)
        if self._largest is None:
            return n_told == 0
        n_begun = sum(record.state is TrialState.RUNNING for record in records.values())
        return (n_begun + n_told + 1) * self._largest <= self._max_bytes

    def forget(self, number: int) -> None:
        """Take note that a trial's checkpoints were removed."""
        if self._known is not None:
            self._note(number, [])

    def _by_value(self, records: Iterable[TrialRecord]) -> list[int]:
        """Return the completed trials that are compared, best first."""
        complete = [r for r in records if r.is_compared]
        return [r.number for r in sorted(complete, key=lambda r: (self._sign * (r.value or 0.0), r.number))]

    @contextlib.contextmanager
    def _left_to_a_later_save(self) -> Iterator[None]:
        """Go on where checkpoints cannot be counted or removed in the block: that costs room, not results."""
        try:
            yield
        except SweeperError as error:
            if not self._is_behind:
                logger.warning(
                    "`trial.checkpoint.max_gb` is kept to again with a later save: checkpoints could not be counted or "
                    "removed now (%s).",
                    named_line(error.__cause__ or error),  # its own words are those of a sweep that ends
                )
            self._is_behind = True
        else:
            self._is_behind = False

    def _count(self, number: int, records: Mapping[int, TrialRecord]) -> None:
        """Look what a trial has now; the first time, what every trial has."""
        if self._known is None:
            begun = [number for number, record in records.items() if record.attempts]
            found = {number: self._open(number).saved() for number in self._with_any(begun)}
            self._known = {}
            for each, saved in found.items():
                self._note(each, saved)
        else:
            self._note(number, self._open(number).saved())

    def _note(self, number: int, saved: list[Saved]) -> None:
        assert self._known is not None
        before = self._known.pop(number, [])
        self._n_bytes += sum(one.n_bytes for one in saved) - sum(one.n_bytes for one in before)
        if saved:
            self._known[number] = saved
            self._largest = max(self._largest or 0, *(one.n_bytes for one in saved))

    def _fit(self, records: Mapping[int, TrialRecord], max_bytes: int) -> None:
        """Remove until the bound holds: of stopped and failed trials, of complete ones from the worst, then spare ones.

        Of the complete ones those that train another one on come last: somebody has asked for each of them.
        """
        known = self._known
        if known is None or self._n_bytes <= max_bytes:
            return
        lost = [n for n in known if records[n].state in (TrialState.PRUNED, TrialState.FAIL)]
        complete = self._by_value(records[n] for n in known)[::-1]
        continued = [n for n in known if records[n].state is TrialState.COMPLETE and records[n].is_continued]
        for number in [*lost, *complete, *continued]:
            if self._n_bytes <= max_bytes:
                return
            self._clear(number)
        for number, saved in list(known.items()):
            while len(saved) > 1:
                if self._n_bytes <= max_bytes:
                    return
                self._open(number).remove(saved[0].name)
                saved = saved[1:]
                self._note(number, saved)
        if self._n_bytes > max_bytes and not self._told:
            self._told = True
            logger.warning(
                "The newest checkpoints of the running trials alone take %.2f GB, more than "
                "`trial.checkpoint.max_gb`. Raise it, or save at fewer marks.",
                self._n_bytes / 1e9,
            )

    def _clear(self, number: int) -> None:
        self._open(number).clear()
        self._cleared.add(number)
        self.forget(number)
