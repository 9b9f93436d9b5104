"""How records stand in a study's attributes: JSON in which NaN and infinities survive."""

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sweeper.records import Origin, RungRecord, TrialRecord, TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

POINT = "point"
PROGRESS = "progress"
METRICS = "metrics"
REASON = "reason"
CHECKPOINT = "checkpoint"
ORIGIN = "origin"
CONTINUES = "continues"  # the trial that this one trains on; for whoever looks into the storage
READ_OFF = "read_off"  # {"trial", "at"}: of a trial that is the beginning of a longer one
EXTRA_PARAMS = "extra_params"  # of a point: values that Optuna's search space does not have
RUNG_PREFIX = "rung:"
DECISION_PREFIX = "decision:"
ATTEMPT_PREFIX = "attempt:"
SET_ASIDE = "set aside"  # the outcome of an attempt whose slot went to another trial

# JSON has no NaN, and a browser that reads the study (optuna-dashboard) refuses Python's spelling of it.
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """Return a value with every non-finite float spelled as text, for JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode_number(value: Any) -> float:
    """Return a float that `encode` may have spelled."""
    return _SPELLED[value] if isinstance(value, str) else float(value)


def decode_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers by name, each of which `encode` may have spelled."""
    return {name: decode_number(value) for name, value in values.items()}


def encode_rung(rung: RungRecord) -> dict[str, Any]:
    """Return what a trial showed at a rung, as plain data."""
    encoded: dict[str, Any] = encode(dataclasses.asdict(rung))
    return encoded


def decode_rung(value: Mapping[str, Any]) -> RungRecord:
    """Return what `encode_rung` was given."""
    return RungRecord(**{**value, "signals": decode_numbers(value["signals"])})


def encode_prior(record: TrialRecord) -> dict[str, Any]:
    """Return what pruning learns from a completed trial of another study."""
    return {
        "number": record.number,
        "params": record.params,
        "value": record.value,
        "rungs": [encode_rung(rung) for rung in record.rungs.values()],
    }


def decode_prior(stored: Mapping[str, Any]) -> TrialRecord:
    """Return the trial that `encode_prior` was given, as far as that kept it."""
    rungs = [decode_rung(rung) for rung in stored["rungs"]]
    return TrialRecord(
        number=stored["number"],
        state=TrialState.COMPLETE,
        params=dict(stored["params"]),
        point_id=f"prior{stored['number']}",
        value=float(stored["value"]),
        rungs={rung.rung: rung for rung in rungs},
    )


def record_of(trial: "FrozenTrial", *, settings: dict[str, Any], params: dict[str, Any]) -> TrialRecord:
    """Read one trial of the storage."""
    attributes = trial.user_attrs
    point = attributes.get(POINT, {})
    params = {**params, **point.get(EXTRA_PARAMS, {})}
    origin = attributes.get(ORIGIN)
    record = TrialRecord(
        number=trial.number,
        state=TrialState(trial.state.name),
        params=params,
        settings={**settings, **params},
        point_id=point.get("point_id", ""),
        budget_samples=point.get("budget_samples"),
        total_steps=point.get("total_steps"),
        value=trial.value if trial.state.name == "COMPLETE" else None,
        metrics=decode_numbers(attributes.get(METRICS, {})),
        reason=attributes.get(REASON),
        checkpoint=attributes.get(CHECKPOINT),
        origin=None if origin is None else Origin(**origin),
    )
    _read_numbered(record, attributes)
    _read_progress(record, attributes.get(PROGRESS, {}))
    # Whoever else is stopped before the start has a decision that says so.
    record.is_repeat = (
        record.state is TrialState.PRUNED
        and POINT in attributes
        and not (record.attempts or record.decisions or origin)
    )
    read_off = attributes.get(READ_OFF)
    # One that has this alone was cut off there by its driver's death, and is trained itself.
    if read_off is not None and record.state is TrialState.COMPLETE and not record.attempts:
        record.read_off = read_off["trial"]
        record.started = record.ended = read_off["at"]
    if POINT not in attributes and trial.datetime_complete is not None:  # a trial of plain Optuna
        record.ended = trial.datetime_complete.astimezone(UTC).isoformat(timespec="milliseconds")
    return record


def _read_progress(record: TrialRecord, progress: Mapping[str, Any]) -> None:
    record.step = progress.get("step", 0)
    record.samples = progress.get("samples", 0)
    record.tokens = progress.get("tokens", 0)
    loss, norm = progress.get("loss"), progress.get("grad_norm")
    record.last_loss = None if loss is None else decode_number(loss)
    record.last_grad_norm = None if norm is None else decode_number(norm)
    # Of all attempts: the one whose driver was killed among them, which says no more of itself.
    record.train_s = max(record.train_s, progress.get("train_s", 0.0))
    record.evaluation_s = max(record.evaluation_s, progress.get("evaluation_s", 0.0))


def _read_numbered(record: TrialRecord, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        if key.startswith(RUNG_PREFIX):
            rung = decode_rung(value)
            record.rungs[rung.rung] = rung
    record.decisions = _in_order(attributes, DECISION_PREFIX)
    attempts = _in_order(attributes, ATTEMPT_PREFIX)
    record.attempts = len(attempts)
    record.history = attempts
    record.errors = [attempt for attempt in attempts if attempt.get("error")]
    record.train_s = sum(attempt.get("train_s", 0.0) for attempt in attempts)
    record.evaluation_s = sum(attempt.get("evaluation_s", 0.0) for attempt in attempts)
    if attempts:
        record.worker = attempts[-1].get("worker")
        record.started = attempts[0].get("started")
        record.ended = attempts[-1].get("ended")
        record.is_set_aside = attempts[-1].get("outcome") == SET_ASIDE and not record.state.is_finished


def _in_order(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    found = {int(key[len(prefix) :]): value for key, value in attributes.items() if key.startswith(prefix)}
    return [dict(found[index]) for index in sorted(found)]
