"""A study of many finished trials, made without training and without 100,000 synced writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.storages.journal import BaseJournalBackend, JournalStorage
from optuna.trial import FrozenTrial

from sweeper.config import config_from_dict, dump_config
from sweeper.plan import Point, plan_point
from sweeper.records import Decision, RungRecord, TrialRecord, TrialState
from sweeper.study import layout
from sweeper.study import study as study_module
from sweeper.study.study import Study


class ListBackend(BaseJournalBackend):
    """A journal in memory."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Any:
        yield from self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += json.loads(json.dumps(logs))


def large_config(n_trials: int, function_dir: Path) -> Any:
    return config_from_dict(
        {
            "study": "large",
            "metric": "score",
            "direction": "maximize",
            "trial": {
                "function": "chaos_functions:noisy",
                "function_dir": str(function_dir),
                "budget": {"samples": 20},
                "settings": {"effective_batch_size": 10},
            },
            "search_space": {"learning_rate": {"log_uniform": [1e-5, 1e-2]}},
            "sampler": {"name": "random", "n_trials": n_trials + 1},
            "rungs": {"samples": [10]},
            "pruner": {"name": "early_dynamics", "directions": "paper"},
            "resources": {"slots": 1},
        }
    )


def fill(storage: BaseStorage, directory: Path, n_trials: int, function_dir: Path) -> Study:
    """Enter a study with `n_trials` trials, each finished at its rung or at its end."""
    config = large_config(n_trials, function_dir)
    real = study_module.open_storage
    study_module.open_storage = lambda url, place: storage
    try:
        study = Study.create(config, directory=directory)
    finally:
        study_module.open_storage = real
    study.add_points([])
    for number in range(n_trials):
        _finish_one(study, number)
    (directory / "study.json").write_text(json.dumps({"study": study.name, "storage": config.storage}))
    (directory / "sweep.yaml").write_text(dump_config(config))
    return study


def _finish_one(study: Study, index: int) -> None:
    rate = 10 ** (-5 + 3 * index / 10_007)
    point = plan_point(study.config, {"learning_rate": rate})
    drawn = study._storage.create_new_trial(study._id, _template(study, rate, point))
    number = study._storage.get_trial_number_from_id(drawn)
    study._trial_ids[number] = drawn
    attempt = {"worker": {"node": "n", "pid": 1}, "started": "2026-01-01T00:00:00+00:00"}
    ended = {"outcome": "ended", "ended": "2026-01-01T00:00:01+00:00", "train_s": 1.0, "evaluation_s": 0.1}
    signals = {"loss": rate, "grad_norm": 1.0, "score": rate}
    stop, reason = index % 2 == 0, "a reason of usual length, with values"
    decision = Decision(trial=number, stop=stop, rule="early_dynamics", reason=reason, rung=0, samples=10)
    reached = TrialRecord(number=number, state=TrialState.RUNNING, params={}, point_id="", step=2, samples=20)
    study.record_attempt(number, 1, attempt)
    study.record_rung(number, RungRecord(rung=0, mark=10, step=1, samples=10, signals=signals))
    study.record_decision(number, 0, decision.entry())
    study.record_progress(reached)
    study.record_attempt(number, 1, {**attempt, **ended})
    if stop:
        study.finish(number, TrialState.PRUNED, reason=reason)
    else:
        study.finish(number, TrialState.COMPLETE, value=rate, metrics={"score": rate})


def _template(study: Study, rate: float, point: Point) -> Any:
    from optuna.trial import TrialState as OptunaState
    from optuna.trial import create_trial

    from sweeper import encoding
    from sweeper.study import space

    return create_trial(
        state=OptunaState.RUNNING, params={"learning_rate": rate}, distributions=space.distributions(study.config),
        user_attrs={encoding.POINT: {"point_id": point.point_id, "budget_samples": 20, "total_steps": 2}},
    )  # fmt: skip


def write_journal(directory: Path, n_trials: int, function_dir: Path) -> None:
    """Write a large study with its journal into a directory."""
    directory.mkdir(parents=True)
    backend = ListBackend()
    fill(JournalStorage(backend), directory, n_trials, function_dir)
    lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in backend.logs)
    (directory / layout.JOURNAL).write_text("".join(lines))


def copy_to(database: RDBStorage, directory: Path, n_trials: int, function_dir: Path) -> None:
    """Write a large study into a database, many rows at a time: through Optuna's own door it takes many minutes."""
    memory = JournalStorage(ListBackend())
    study = fill(memory, directory, n_trials, function_dir)
    copied = database.create_new_study(memory.get_study_directions(study._id), study.name)
    for key, value in memory.get_study_user_attrs(study._id).items():
        database.set_study_user_attr(copied, key, value)
    trials = memory.get_all_trials(study._id, deepcopy=False)
    with database.engine.begin() as connection:
        rows = [
            {"number": t.number, "study_id": copied, "state": t.state, "datetime_start": t.datetime_start,
             "datetime_complete": t.datetime_complete}
            for t in trials
        ]  # fmt: skip
        connection.execute(sqlalchemy.insert(models.TrialModel.__table__), rows)
        table = models.TrialModel.__table__
        ids = dict(connection.execute(sqlalchemy.select(table.c.number, table.c.trial_id)).all())
        for model, rows in _rows(trials, ids):
            connection.execute(sqlalchemy.insert(model.__table__), rows)


def _rows(trials: list[FrozenTrial], ids: dict[int, int]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Yield the rows of every table that hangs on the trials, as Optuna 5.0 writes them."""
    yield (
        models.TrialUserAttributeModel,
        [
            {"trial_id": ids[t.number], "key": key, "value_json": json.dumps(value)}
            for t in trials
            for key, value in t.user_attrs.items()
        ],
    )
    yield models.TrialParamModel, [
        {"trial_id": ids[t.number], "param_name": name, "distribution_json": distribution_to_json(distribution),
         "param_value": distribution.to_internal_repr(t.params[name])}
        for t in trials
        for name, distribution in t.distributions.items()
    ]  # fmt: skip
    finite = models.TrialValueModel.TrialValueType.FINITE
    yield (
        models.TrialValueModel,
        [
            {"trial_id": ids[t.number], "objective": 0, "value": value, "value_type": finite}
            for t in trials
            for value in t.values or ()
        ],
    )
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    yield models.TrialIntermediateValueModel, [
        {"trial_id": ids[t.number], "step": step, "intermediate_value": value, "intermediate_value_type": finite}
        for t in trials
        for step, value in t.intermediate_values.items()
    ]  # fmt: skip
