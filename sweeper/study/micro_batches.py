"""How large a micro-batch fits: learnt from trials that ran out of memory, remembered in the study."""

import json
from collections.abc import Mapping
from typing import Any

from sweeper.batch import MEMORY_SETTINGS, BatchPlan
from sweeper.records import HOST
from sweeper.study.interface import SweepStudy


class MicroBatchLimits:
    """The largest micro-batch that is still to be tried, by device, for trials that take as much memory."""

    def __init__(self, study: SweepStudy) -> None:
        trial = study.config.trial
        self._study = study
        # None where models are swept. Earlier studies named limits by it alone: those hold for all of their trials.
        self._whole = trial.model or trial.function
        self._all = study.micro_batches()

    def by_device(self, settings: Mapping[str, Any]) -> dict[str, int]:
        """Return what is known for a trial with these settings."""
        found: dict[str, int] = {}
        for key in (self._whole, self._key(settings)):
            for device, limit in self._all.get(key or "", {}).items():
                found[device] = min(limit, found.get(device, limit))
        return found

    def lower(self, smaller: BatchPlan, device: str | None, settings: Mapping[str, Any]) -> None:
        """Take note that a batch did not fit, and that this one is tried next by trials with these settings."""
        name = device or HOST
        limits = self._all.setdefault(self._key(settings), {})
        limits[name] = min(limits.get(name, smaller.micro_batch_size), smaller.micro_batch_size)
        self._study.record_micro_batches(self._all)

    def _key(self, settings: Mapping[str, Any]) -> str:
        own = {name: settings[name] for name in MEMORY_SETTINGS if name in settings}
        return json.dumps([settings.get("model") or self._whole, own], sort_keys=True)
