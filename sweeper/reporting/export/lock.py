"""What a trial's result stands on, in a file: versions, seed, and hashes of model and data."""

import json
from pathlib import Path
from typing import Any

from sweeper.checkpoint.manifest import sha256_of
from sweeper.config.dump import config_to_dict
from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.encoding import encode
from sweeper.errors import ConfigError
from sweeper.looking import files_below, is_directory, is_file
from sweeper.plan import DataFacts
from sweeper.plan.points import plan_point
from sweeper.records import TrialRecord
from sweeper.study.versions import versions
from sweeper.study.view import StudyView
from sweeper.training.data_identity import pinned
from sweeper.training.sources import is_local, local_files


def lock_text(view: StudyView, facts: DataFacts | None, record: TrialRecord) -> str:
    """Return the lock file of one trial, as JSON.

    Raises:
        ConfigError: If a file of the model or the data is not there any more.
    """
    config = view.config
    trial = pinned(config.trial, facts.sources if facts is not None else {})
    point = plan_point(config, record.params, facts=facts)
    content = {
        "study": view.name,
        "trial": record.number,
        "point_id": record.point_id or point.point_id,
        "metric": config.metric,
        "value": record.value,
        "params": record.params,
        "seed": point.settings.get("seed", config.seed),
        "settings": point.settings,
        "budget_samples": record.budget_samples or point.budget_samples,
        "total_steps": record.total_steps or point.total_steps,
        "workers_per_trial": config.resources.n_workers,
        "sharding": config.resources.sharding,
        "threads_per_worker": config.resources.threads_per_worker,
        "versions": {"of the study": dict(view.versions), "of this file": versions()},
        "model": _model(config.trial.with_model(point.settings.get("model"))),
        "train_data": [_data(source) for source in trial.sources],
        "eval_data": {name: _data(source) for name, source in trial.eval_data.items()},
    }
    return json.dumps(encode(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def file_hashes(files: list[Path], root: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of files, by their names below `root`."""
    return {
        str(file.relative_to(root)): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in files
    }


def _model(trial: TrialSection) -> dict[str, Any] | None:
    """Describe the base model; its files only where it is a local one, since the hub has hashes of its own."""
    if trial.model is None:
        return None
    path = Path(trial.model)
    described: dict[str, Any] = {"path": trial.model, "revision": trial.revision}
    if is_directory(path):
        described["files"] = file_hashes(files_below(path, skips_closed=True), path)
    elif path.is_absolute():
        raise ConfigError(f"The model `{path}` does not exist any more, so it cannot be locked. Restore it.")
    if trial.chat_template is not None:
        template = Path(trial.chat_template)
        if not is_file(template):
            raise ConfigError(f"The chat template `{template}` does not exist any more. Restore it.")
        described["chat_template"] = {"path": str(template), "sha256": sha256_of(template)}
    return described


def _data(source: DataSource) -> dict[str, Any]:
    described = config_to_dict(source)
    if is_local(source):
        path = Path(source.path)
        described["files"] = file_hashes(local_files(source), path if is_directory(path) else path.parent)
    return described
