"""Plain Optuna's trials: what they keep of a rung, and how they are read as records."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from sweeper import encoding
from sweeper.records import RungRecord, TrialRecord


def report_rung(
    trial: "optuna.Trial",
    *,
    rung: int,
    mark: int,
    step: int,
    samples: int,
    signals: Mapping[str, float],
    metric: float | None = None,
) -> None:
    """Record a rung's signals on a plain Optuna trial, for `EarlyDynamicsPruner`.

    Args:
        trial: That came to the rung.
        rung: Index of the rung, from 0.
        mark: Where it lies, in samples; the step of Optuna's intermediate value.
        step: The optimiser step at which it came there, from 1.
        samples: Training sequences that it had seen then.
        signals: Windowed `loss` and `grad_norm`, and whatever else the pruner was told to rank.
        metric: The study's metric here, if it was evaluated; becomes Optuna's intermediate value.

    Numbers may be numpy's or torch's, each of one element.

    Raises:
        ValueError: If one is no number, or no whole number where one is due.
    """
    place = {"rung": rung, "mark": mark, "step": step, "samples": samples}
    record = RungRecord(
        **{name: _whole(name, value) for name, value in place.items()},
        signals={name: _number(f"signals[{name!r}]", value) for name, value in signals.items()},
    )
    given = None if metric is None else _number("metric", metric)
    trial.set_user_attr(f"{encoding.RUNG_PREFIX}{record.rung}", encoding.encode_rung(record))
    if given is not None:
        trial.report(given, record.mark)


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if isinstance(value, str) or not number.is_integer():
        raise ValueError(f"`{name}` must be a whole number, but got {value!r}. Round it.")
    return int(value)


def _number(name: str, value: Any) -> float:
    """Return a number as the storages take it: they write JSON, which knows neither numpy's nor torch's."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is torch's, of more elements than one
        raise ValueError(
            f"`{name}` must be a number, but got {value!r}. Leave out what has no value."
        ) from error


def rungs_of(trial: FrozenTrial) -> list[int]:
    """Return the rungs that were reported of a trial."""
    prefix = encoding.RUNG_PREFIX
    return [int(key[len(prefix) :]) for key in trial.user_attrs if key.startswith(prefix)]


def plain_record(trial: FrozenTrial, *, metric: str, decisions: Sequence[Mapping[str, Any]]) -> TrialRecord:
    """Return a plain Optuna trial as a record.

    Args:
        trial: As Optuna has it.
        metric: What the study's metric is called among the signals.
        decisions: What was decided on the trial; a pruner writes nothing into the study.
    """
    # A point that was enqueued and has not started has its params here only (optuna 5.0.0).
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    record = encoding.record_of(trial, settings={}, params=params)
    record.decisions = record.decisions or [dict(decision) for decision in decisions]
    record.point_id = record.point_id or str(trial.number)
    if record.rungs:  # all that is known of how far it came
        newest = record.rungs[max(record.rungs)]
        record.step, record.samples = newest.step, newest.samples
    for index, rung in record.rungs.items():
        value = trial.intermediate_values.get(rung.mark)
        if value is not None and metric not in rung.signals:
            record.rungs[index] = dataclasses.replace(rung, signals={**rung.signals, metric: value})
    return record
