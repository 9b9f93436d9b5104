"""Which curves are drawn, and with which points. A large study's are too many for a screen and a browser."""

import dataclasses
import math
from typing import Any

import pandas as pd

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.markdown import ranked
from sweeper.reporting.summary import result_of
from sweeper.study.view import StudyView

LARGE_STUDY = 200  # trials beyond which not every curve is drawn
MAX_CURVES = 150
MIN_POINTS, MAX_POINTS = 200, 2000  # per curve
ALL_POINTS = (
    30_000  # of all curves of one plot: what a browser draws in a fraction of a second, and about 1 MB
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveLine:
    """Where one trial's curve goes, in both units of progress."""

    record: TrialRecord
    samples: list[int]
    steps: list[int]
    values: list[float | None]


def trials_drawn(view: StudyView) -> list[TrialRecord]:
    """Return the trials with a curve; of a large study the best, running and failed ones and some pruned."""
    begun = [record for record in ranked(view) if record.step > 0]
    if len(view.records) <= LARGE_STUDY or len(begun) <= MAX_CURVES:
        return begun
    chosen = [record for record in begun if result_of(record) is not None][: MAX_CURVES // 2]
    others = [r for r in begun if r.state in (TrialState.RUNNING, TrialState.FAIL)][: MAX_CURVES // 6]
    pruned = sorted((r for r in begun if r.state is TrialState.PRUNED), key=lambda record: record.number)
    room = MAX_CURVES - len(chosen) - len(others)
    stride = max(1, math.ceil(len(pruned) / room))
    return chosen + others + pruned[::stride][:room]


def thinned(table: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return at most `limit` rows of a curve: evenly spaced ones, the last, and that of the highest loss."""
    if len(table) <= limit:
        return table
    stride = len(table) / (limit - 2)
    kept = {int(index * stride) for index in range(limit - 2)} | {len(table) - 1}
    if table["loss"].notna().any():
        kept.add(int(table["loss"].astype(float).to_numpy(na_value=float("-inf")).argmax()))
    return table.iloc[sorted(kept)]


def curve_line(record: TrialRecord, table: pd.DataFrame, column: str, limit: int) -> CurveLine:
    """Return one column of a trial's curve, in at most `limit` points."""
    rows = thinned(table, limit)
    return CurveLine(
        record=record,
        samples=[int(value) for value in rows["samples"]],
        steps=[int(value) for value in rows["step"]],
        values=[_rounded(value) for value in rows[column]],
    )


def metric_line(record: TrialRecord, metric: str) -> CurveLine:
    """Return the metric at the rungs, and at the end where the trial got there."""
    rungs = [record.rungs[rung] for rung in sorted(record.rungs) if metric in record.rungs[rung].signals]
    points = [(rung.samples, rung.step, _rounded(rung.signals[metric])) for rung in rungs]
    value = result_of(record)
    if value is not None:
        points = [point for point in points if point[0] < record.samples]
        points.append((record.samples, record.step, _rounded(value)))
    return CurveLine(
        record=record,
        samples=[samples for samples, _, _ in points],
        steps=[step for _, step, _ in points],
        values=[value for _, _, value in points],
    )


def _rounded(value: Any) -> float | None:
    """Return a value with 5 digits, which no screen tells from the whole; None for NaN, Inf and None."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")
