"""How large a micro-batch fits: learnt from trials that ran out of memory, remembered in the study."""

from sweeper.batch import BatchPlan
from sweeper.records import HOST
from sweeper.study.interface import SweepStudy


class MicroBatchLimits:
    """The largest micro-batch that is still to be tried, by device, for the model of one study."""

    def __init__(self, study: SweepStudy) -> None:
        trial = study.config.trial
        self._study = study
        self._model = trial.model or trial.function or "function"
        self._all = study.micro_batches()

    def by_device(self) -> dict[str, int]:
        return dict(self._all.get(self._model, {}))

    def lower(self, smaller: BatchPlan, device: str | None) -> None:
        """Take note that a batch did not fit, and that this one is tried next."""
        name = device or HOST
        limits = self._all.setdefault(self._model, {})
        limits[name] = min(limits.get(name, smaller.micro_batch_size), smaller.micro_batch_size)
        self._study.record_micro_batches(self._all)
