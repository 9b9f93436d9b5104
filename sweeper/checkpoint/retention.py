"""Which checkpoints of a sweep are kept: those of the best trials, and as many as fit a budget of bytes."""

import logging
from collections.abc import Callable, Mapping

from sweeper.checkpoint.manifest import Saved
from sweeper.checkpoint.store import KeptCheckpoints
from sweeper.records import TrialRecord, TrialState

logger = logging.getLogger(__name__)


class Retention:
    """Removes checkpoints that the policy does not keep. A running trial's newest one always stays.

    Args:
        open_store: Returns the checkpoints of a trial.
        keep_best: Completed trials whose checkpoints are kept; None keeps all.
        max_bytes: For all checkpoints of the sweep together; None sets no bound.
        maximize: Whether a high value is the better one.
    """

    def __init__(
        self,
        open_store: Callable[[int], KeptCheckpoints],
        *,
        keep_best: int | None,
        max_bytes: int | None,
        maximize: bool,
    ) -> None:
        self._open = open_store
        self._keep_best = keep_best
        self._max_bytes = max_bytes
        self._sign = -1.0 if maximize else 1.0
        self._known: dict[int, list[Saved]] | None = None  # what every trial has; only counted under a bound
        self._told = False

    def after_save(self, number: int, records: Mapping[int, TrialRecord]) -> None:
        """Make room after a trial has saved one."""
        if self._max_bytes is None:
            return
        known = self._all(records)
        known[number] = self._open(number).saved()
        self._fit(records)

    def after_end(self, number: int, records: Mapping[int, TrialRecord]) -> None:
        """Remove what is not kept after a trial has ended."""
        if self._keep_best is not None:
            complete = self._by_value(records)
            worse = complete[self._keep_best :] if records[number].state is TrialState.COMPLETE else []
            failed = [number] if records[number].state is TrialState.FAIL else []
            for other in [*worse, *failed]:
                self._clear(other)
        if self._max_bytes is not None and records[number].state is not TrialState.PRUNED:
            self._all(records)[number] = self._open(number).saved()
            self._fit(records)

    def forget(self, number: int) -> None:
        """Take note that a trial's checkpoints were removed."""
        if self._known is not None:
            self._known.pop(number, None)

    def _by_value(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return the completed trials, best first."""
        complete = [r for r in records.values() if r.state is TrialState.COMPLETE and r.value is not None]
        return [r.number for r in sorted(complete, key=lambda r: (self._sign * (r.value or 0.0), r.number))]

    def _all(self, records: Mapping[int, TrialRecord]) -> dict[int, list[Saved]]:
        if self._known is None:
            begun = (number for number, record in records.items() if record.attempts)
            self._known = {number: self._open(number).saved() for number in begun}
        return self._known

    def _fit(self, records: Mapping[int, TrialRecord]) -> None:
        """Remove until the bound holds: of failed trials, of complete ones from the worst, then spare ones."""
        known = self._all(records)
        failed = [number for number in known if records[number].state is TrialState.FAIL]
        for number in [*failed, *reversed(self._by_value(records))]:
            if self._total() <= (self._max_bytes or 0):
                return
            if known.get(number):
                self._clear(number)
        for number, saved in known.items():
            for spare in saved[:-1]:
                if self._total() <= (self._max_bytes or 0):
                    return
                self._open(number).remove(spare.name)
            known[number] = saved[-1:]
        if self._total() > (self._max_bytes or 0) and not self._told:
            self._told = True
            logger.warning(
                "The newest checkpoints of the running trials alone take %.2f GB, more than "
                "`trial.checkpoint.max_gb`. Raise it, or save at fewer marks.",
                self._total() / 1e9,
            )

    def _total(self) -> int:
        return sum(saved.n_bytes for all_saved in (self._known or {}).values() for saved in all_saved)

    def _clear(self, number: int) -> None:
        self._open(number).clear()
        self.forget(number)
