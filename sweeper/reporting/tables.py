"""A study as tables: one row per trial, one row per decision."""

import dataclasses
from typing import Any

import pandas as pd

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import jsonable, one_line, parse_time
from sweeper.reporting.status import status_json, trial_json
from sweeper.reporting.summary import result_of, savings_of
from sweeper.study.view import StudyView


def trials_frame(view: StudyView) -> pd.DataFrame:
    """Return one row per trial. `value` and final metrics are empty unless the trial is COMPLETE."""
    return pd.DataFrame([_row(record) for record in view.records])


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
    content = status_json(view) | {
        "created": view.created,
        "savings": dataclasses.asdict(savings)
        | {"saved_frac": savings.saved_frac, "spent_frac": savings.spent_frac},
        "counts": {state.value: view.count(state) for state in TrialState},
        "trials": [_full_trial(record) for record in view.records],
        "versions": dict(view.versions),
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotUse:
    """When a slot was busy with a trial. Times in seconds since the study's first start."""

    record: TrialRecord
    slot: str
    start_s: float
    end_s: float


def slot_uses(view: StudyView) -> list[SlotUse]:
    """Return who ran when: on each node, a trial takes its process's slot, else the first free one.

    A trial that still runs goes to the last time that the study has recorded.
    """
    started = [record for record in view.records if record.started is not None]
    times = [time for r in started for time in (parse_time(r.started), parse_time(r.ended)) if time]
    if not times:
        return []
    first, last = min(times), max(times)
    lanes: dict[
        str, list[tuple[Any, float]]
    ] = {}  # by node: the process last seen there and when it was free
    uses = []
    for record in sorted(started, key=lambda record: parse_time(record.started) or first):
        start = ((parse_time(record.started) or first) - first).total_seconds()
        end = max(start, ((parse_time(record.ended) or last) - first).total_seconds())
        worker = record.worker or {}
        node = one_line(str(worker.get("node", "unknown node")))
        lane = _free_lane(lanes.setdefault(node, []), worker.get("pid"), start)
        lanes[node][lane] = (worker.get("pid"), end)
        uses.append(SlotUse(record=record, slot=f"{node}, slot {lane + 1}", start_s=start, end_s=end))
    return uses


def _free_lane(lanes: list[tuple[Any, float]], pid: Any, start: float) -> int:
    """Return the lane for a process that starts then, a new one where none is free."""
    slack = 1e-3  # s; records are rounded to milliseconds
    free = [lane for lane, (_, until) in enumerate(lanes) if until <= start + slack]
    own = [lane for lane in free if lanes[lane][0] == pid]
    if own or free:
        return (own or free)[0]
    lanes.append((pid, start))
    return len(lanes) - 1
