"""Where benchmark results lie: attributes of the study, one each, so that no writer meets another."""

import json
import logging

from optuna.storages import BaseStorage

from sweeper.study.benchmark_records import BenchmarkRun, run_from

logger = logging.getLogger(__name__)

_PREFIX = "sweeper:bench:"


class BenchmarkBox:
    """The benchmark results of one study. Anyone may write one, whether or not the sweep runs."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def write(self, run: BenchmarkRun) -> None:
        """Keep a result, in place of an earlier one of the same trial, checkpoint and benchmark."""
        place = f"{run.trial}:{'' if run.step is None else run.step}:{run.benchmark}"
        # One text: some storages are slow with deep values.
        self._storage.set_study_user_attr(self._study_id, f"{_PREFIX}{place}", json.dumps(run.as_dict()))

    def read(self) -> tuple[BenchmarkRun, ...]:
        """Return all results by trial, checkpoint and benchmark; the final model comes last."""
        found = []
        for key, text in self._storage.get_study_user_attrs(self._study_id).items():
            if not key.startswith(_PREFIX):
                continue
            try:
                found.append(run_from(json.loads(text)))
            except (ValueError, KeyError, TypeError) as error:
                logger.warning(
                    "A benchmark result of the study cannot be read and is left alone (%s: %s).", key, error
                )
        return tuple(
            sorted(found, key=lambda run: (run.trial, run.step is None, run.step or 0, run.benchmark))
        )
