"""MLflow: the server of MLFLOW_TRACKING_URI, or a SQLite file in the study's directory.

`mlflow ui --backend-store-uri sqlite:///STUDY/mlflow.db` shows the latter.
"""

import os
import posixpath
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient

from sweeper.records import TrialState
from sweeper.reporting.formats import exact
from sweeper.trackers.base import BY_SAMPLES, Point, Run

_BATCH = 900  # metrics of one call; MLflow takes 1,000
_PREFIX = "sweeper."
_REFUSED = re.compile(r"[^/\w.\- :]")  # what MLflow takes in no name of a metric or a param
_MAX_NAME = 230  # characters; MLflow takes 250, of which the prefix of the other axis has some


def allowed_name(name: str) -> str:
    """Return a metric's or a param's name with `_` for what MLflow refuses, which would end the tracker.

    >>> [allowed_name(name) for name in ("acc@5", "held_out/loss", "a//b", "../a")]
    ['acc_5', 'held_out/loss', 'a__b', '___a']
    """
    name = _REFUSED.sub("_", name)[:_MAX_NAME]
    is_path = posixpath.normpath(name) == name and not name.startswith(("/", "..")) and name != "."
    return name if is_path else name.replace("/", "_").replace(".", "_")


class MlflowTracker:
    """An experiment per study's name, a run per trial. The client is told which run it writes; nothing global is set.

    Args:
        study: Its name.
        directory: Its directory.
        created: When it was made; runs of an earlier study of this name are not its own.
    """

    def __init__(self, study: str, directory: Path, created: str) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(study)
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (directory / "mlartifacts").as_uri()
        self._experiment = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(study, artifact_location=artifacts)
        )
        self._of_study = {_PREFIX + "study": study, _PREFIX + "created": created}
        self._ids: dict[int, str] = {}

    def start(self, run: Run) -> bool:
        was_there = self._found(run) is not None
        self._client.update_run(self._id(run), status=RunStatus.to_string(RunStatus.RUNNING))
        return was_there

    def log(self, run: Run, points: Sequence[Point]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            metric
            for point in points
            for name, value in point.values.items()
            for metric in (
                Metric(allowed_name(name), value, now, point.step),
                Metric(BY_SAMPLES + allowed_name(name), value, now, point.samples),
            )
        ]
        for begin in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._id(run), metrics=metrics[begin : begin + _BATCH])

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        self._client.log_batch(
            self._id(run), tags=[RunTag(_PREFIX + name, text[:5000]) for name, text in tags.items()]
        )

    def end(self, run: Run) -> None:
        status = {TrialState.COMPLETE: RunStatus.FINISHED, TrialState.PRUNED: RunStatus.KILLED}
        self._client.set_terminated(
            self._id(run), status=RunStatus.to_string(status.get(run.state, RunStatus.FAILED))
        )

    def close(self) -> None:
        """Nothing is kept open: the client writes at once."""

    def _id(self, run: Run) -> str:
        """Return the run of a trial: that of an earlier driver, or a new one."""
        return self._found(run) or self._new(run)

    def _found(self, run: Run) -> str | None:
        if run.number not in self._ids:
            own = " and ".join(f"tags.`{name}` = '{value}'" for name, value in self._tags(run).items())
            found = self._client.search_runs([self._experiment], filter_string=own, max_results=1)
            if found:
                self._ids[run.number] = found[0].info.run_id
        return self._ids.get(run.number)

    def _tags(self, run: Run) -> dict[str, str]:
        """Return the tags by which a trial's run is found again."""
        return {**self._of_study, _PREFIX + "trial": str(run.number)}

    def _new(self, run: Run) -> str:
        made = self._client.create_run(self._experiment, tags=self._tags(run), run_name=f"trial-{run.number}")
        # By name: MLflow refuses a batch with two values of one, which two names may have become.
        values = {allowed_name(name): exact(value)[:6000] for name, value in run.params.items()}
        self._client.log_batch(made.info.run_id, params=[Param(*pair) for pair in values.items()])
        self._ids[run.number] = str(made.info.run_id)
        return self._ids[run.number]
