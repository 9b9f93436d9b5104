"""A study as tables: one row per trial, one row per decision."""

import dataclasses
import io
from typing import Any

import pandas as pd
import pyarrow as pa

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.benchmarks import benchmarks_json
from sweeper.reporting.formats import exact, jsonable, one_line
from sweeper.reporting.kept import kept_confirmation
from sweeper.reporting.origins import origin_text
from sweeper.reporting.status import status_json, trial_json
from sweeper.reporting.summary import result_of, savings_of
from sweeper.study.view import StudyView


def trials_frame(view: StudyView) -> pd.DataFrame:
    """Return one row per trial. `value` and final metrics are empty unless the trial is COMPLETE."""
    rows = [_row(record) for record in view.records]
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        values = [row.get(name) for row in rows]
        # One trial without a number turns a column of whole ones into floats: 4000.0.
        if frame[name].dtype.kind == "f" and all(map(_is_whole, values)):
            frame[name] = pd.array(values, dtype="Int64")
    return frame


def _is_whole(value: Any) -> bool:
    return value is None or (isinstance(value, int) and abs(value) < 2**63)


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Return a table as Parquet. A column that holds values of several kinds is text, as a sweep file spells it."""
    frame = frame.copy()
    for name in frame.columns:
        try:
            # A mapping would be a struct, of which Parquet takes no empty one.
            is_plain = not any(isinstance(value, dict) for value in frame[name])
            pa.array(frame[name], from_pandas=True)
        except (pa.ArrowException, OverflowError):
            is_plain = False
        if not is_plain:
            frame[name] = [None if value is None else exact(value) for value in frame[name]]
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    return sink.getvalue()


def _row(record: TrialRecord) -> dict[str, Any]:
    worker = record.worker or {}
    metrics = record.metrics if record.state is TrialState.COMPLETE else {}
    return {
        "number": record.number,
        "state": record.state.value,
        "point_id": record.point_id,
        **{f"params.{name}": value for name, value in record.params.items()},
        "value": result_of(record),
        **{f"metrics.{name}": value for name, value in metrics.items()},
        "steps": record.step,
        "samples": record.samples,
        "tokens": record.tokens,
        "budget_samples": record.budget_samples,
        "reason": None if record.reason is None else one_line(record.reason),
        "origin": origin_text(record) or None,
        "attempts": record.attempts,
        "node": worker.get("node"),
        "pid": worker.get("pid"),
        "started": record.started,
        "ended": record.ended,
        "train_s": record.train_s,
        "evaluation_s": record.evaluation_s,
    }


def decisions_of(view: StudyView) -> list[tuple[TrialRecord, dict[str, Any]]]:
    """Return every decision with its trial, by trial and then in the order they were made."""
    return [(record, decision) for record in view.records for decision in record.decisions]


def report_json(view: StudyView) -> dict[str, Any]:
    """Return everything that the report says, for programs. NaN and Inf are null."""
    savings = savings_of(view)
    status = status_json(view)
    content = status | {
        "created": view.created,
        "savings": dataclasses.asdict(savings)
        | {"saved_frac": savings.saved_frac, "spent_frac": savings.spent_frac},
        "counts": {state.value: view.count(state) for state in TrialState},
        "trials": [
            _full_trial(record) | {name: row[name] for name in ("benchmarks",) if name in row}
            for record, row in zip(view.records, status["trials"], strict=True)
        ],
        "benchmarks": benchmarks_json(view),
        "confirm": kept_confirmation(view.directory),
        "versions": dict(view.versions),
        "environments": [dict(environment) for environment in view.environments],
        "config": view.config.model_dump(mode="json"),
    }
    return {name: jsonable(value) for name, value in content.items()}


def _full_trial(record: TrialRecord) -> dict[str, Any]:
    return trial_json(record) | {
        "settings": record.settings,
        "metrics": record.metrics if record.state is TrialState.COMPLETE else {},
        "rungs": [dataclasses.asdict(record.rungs[rung]) for rung in sorted(record.rungs)],
        "decisions": record.decisions,
        "errors": record.errors,
        "tokens": record.tokens,
        "budget_samples": record.budget_samples,
        "train_s": record.train_s,
        "evaluation_s": record.evaluation_s,
    }
