"""Loss, gradient norm and metric of the trials over their training."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.curve_lines import (
    ALL_POINTS,
    MAX_POINTS,
    MIN_POINTS,
    CurveLine,
    curve_line,
    metric_line,
    trials_drawn,
)
from sweeper.reporting.figures import HIGHLIGHT, NEUTRAL_LINE, Figure, colours_for, params_label, plot_text
from sweeper.reporting.formats import count, exact, labels_apart, short
from sweeper.reporting.grid import trial_grid
from sweeper.reporting.origins import best_label
from sweeper.study.view import StudyView

MAX_LISTED = 12  # colours in a legend
MANY_CURVES = 40  # beyond which all but the best are drawn faintly, so that those below show through


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Groups:
    """Which colour a trial has: that of its value of one param."""

    name: str | None
    labels: tuple[str, ...]

    def label(self, record: TrialRecord) -> str:
        return exact(record.params.get(self.name)) if self.name else ""

    def key(self, label: str) -> str:
        """Return what plotly calls the group by; a label could be anything."""
        return f"group {self.labels.index(label)}" if label in self.labels else "group"

    def colour(self, record: TrialRecord) -> str:
        if not self.labels:
            return colours_for(1)[0]
        return colours_for(len(self.labels))[self.labels.index(self.label(record))]


class _Trace(NamedTuple):
    """A trace with its other horizontal axes."""

    data: dict[str, Any]
    steps: list[int]
    step_s: float | list[float | None] | None  # None where no time is known


def step_seconds(record: TrialRecord) -> float | None:
    """Return the seconds of training that a step took in the mean; None before the first attempt has ended."""
    return float(f"{record.train_s / record.step:.4g}") if record.train_s and record.step else None


def curve_figures(view: StudyView) -> tuple[list[Figure], str]:
    """Return loss, gradient norm and metric over samples, and what was left out, in a sentence.

    For the page's switch, each figure's `extra["steps"]` holds the x values in optimiser steps, and
    `extra["step_s"]` the seconds that a step took: of a trace's trial, or of each point of a trace of ends.
    """
    drawn = trials_drawn(view)
    limit = max(MIN_POINTS, min(MAX_POINTS, ALL_POINTS // max(1, len(drawn))))
    tables = {record.number: view.curve(record.number) for record in drawn}
    n_thinned = sum(len(table) > limit for table in tables.values())
    groups = _groups(view)

    def column(name: str) -> list[CurveLine]:
        return [curve_line(record, tables[record.number], name, limit) for record in drawn]

    metric = view.config.metric
    at_rungs = [metric_line(record, metric) for record in drawn]
    figures = [
        _figure(view, groups, column("loss"), title="training loss"),
        _figure(view, groups, column("grad_norm"), title="gradient norm", is_log=True),
        _figure(view, groups, at_rungs, title=metric, has_marks=True),
    ]
    return [figure for figure in figures if figure is not None], _note(view, drawn, n_thinned, limit)


def _note(view: StudyView, drawn: list[TrialRecord], n_thinned: int, limit: int) -> str:
    n_begun = sum(record.step > 0 for record in view.records)
    notes = []
    if len(drawn) < n_begun:
        notes.append(
            f"{count(len(drawn))} of {count(n_begun)} trials are drawn: the best, running and failed ones "
            "and a sample of the pruned."
        )
    if n_thinned:
        points = f"{count(limit)} points each"
        notes.append(f"Curves are thinned to about {points}; the highest loss and the last step are kept.")
    return " ".join(notes)


def _groups(view: StudyView) -> _Groups:
    grid = trial_grid(view)
    axis = None if grid is None else (grid.rows or grid.columns)
    if axis is None:
        return _Groups(name=None, labels=())
    return _Groups(name=axis.name, labels=tuple(exact(value) for value in axis.values))


def _figure(
    view: StudyView,
    groups: _Groups,
    lines: list[CurveLine],
    *,
    title: str,
    is_log: bool = False,
    has_marks: bool = False,
) -> Figure | None:
    lines = [line for line in lines if any(value is not None for value in line.values)]
    if not lines:
        return None
    best = view.best
    ordered = sorted(lines, key=lambda line: best is not None and line.record.number == best.number)
    traces = [
        _Trace(_trace(line, groups, best, title, has_marks=has_marks), line.steps, step_seconds(line.record))
        for line in ordered
    ]
    if len(ordered) > MANY_CURVES:
        for trace in traces:
            trace.data["opacity"] = 1 if trace.data["showlegend"] else 0.4
    traces += _end_traces(ordered, groups)
    traces += _legend_traces(ordered, groups)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "samples", "standoff": 6}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": plot_text(title, 40), "standoff": 8}, "zeroline": False},
        "legend": {"orientation": "h", "y": -0.26, "yanchor": "top", "x": 0},
        "hovermode": "closest",
    }
    if groups.name:
        layout["legend"]["title"] = {"text": plot_text(groups.name, 30), "side": "top"}
    layout["yaxis"] |= {"type": "log", "tickformat": "~g"} if is_log else {"exponentformat": "e"}
    return Figure(
        data=[trace.data for trace in traces],
        layout=layout,
        extra={"steps": [trace.steps for trace in traces], "step_s": [trace.step_s for trace in traces]},
        label=f"{title} of each trial over its training",
        caption=f"{title}{' (log scale)' if is_log else ''}{_listed(ordered, groups)}",
        height=400,
    )


def _trace(
    line: CurveLine, groups: _Groups, best: TrialRecord | None, title: str, *, has_marks: bool
) -> dict[str, Any]:
    record = line.record
    is_best = best is not None and record.number == best.number
    is_complete = record.state is TrialState.COMPLETE
    return {
        "type": "scatter",
        "mode": "lines+markers" if has_marks else "lines",
        "name": best_label(record) if is_best else f"trial {record.number}",
        "x": line.samples,
        "y": line.values,
        "legendgroup": "best" if is_best else groups.key(groups.label(record)),
        "showlegend": is_best,
        "line": {
            "color": HIGHLIGHT if is_best else groups.colour(record),
            "width": 3.5 if is_best else 1.4,
            "dash": "solid" if is_complete or record.state is TrialState.RUNNING else "dash",
        },
        "opacity": 1 if is_best or is_complete else 0.65,
        "meta": params_label(record),
        "hovertemplate": _template(title),
    }


def _template(title: str) -> str:
    """Return what a point of a curve says. In the title plotly must find no `%{...}` to fill in."""
    safe = plot_text(title, 40).replace("%", "&#37;")
    return f"%{{meta}}<br>%{{xaxis.title.text}} %{{x:,}}<br>{safe} %{{y:.4g}}<extra></extra>"


def _end_traces(lines: list[CurveLine], groups: _Groups) -> list[_Trace]:
    """Return the last points of trials that were stopped or failed, one trace for each colour and state."""
    ends: dict[tuple[TrialState, str], list[tuple[CurveLine, int]]] = {}
    for line in lines:
        if line.record.state in (TrialState.PRUNED, TrialState.FAIL):
            last = max(index for index, value in enumerate(line.values) if value is not None)
            ends.setdefault((line.record.state, groups.label(line.record)), []).append((line, last))
    return [
        _Trace(
            _end_trace(state, label, found, groups),
            _at(found, lambda line: line.steps),
            [step_seconds(line.record) for line, _ in found],
        )
        for (state, label), found in ends.items()
    ]


def _at(found: list[tuple[CurveLine, int]], column: Callable[[CurveLine], list[Any]]) -> list[Any]:
    return [column(line)[last] for line, last in found]


def _end_trace(
    state: TrialState, label: str, found: list[tuple[CurveLine, int]], groups: _Groups
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": _at(found, lambda line: line.samples),
        "y": _at(found, lambda line: line.values),
        "legendgroup": groups.key(label),
        "showlegend": False,
        "marker": {
            "symbol": "x" if state is TrialState.PRUNED else "triangle-up",
            "size": 8,
            "color": groups.colour(found[0][0].record),
        },
        "hoverinfo": "text",
        "hovertext": [
            f"{params_label(line.record)}<br>{plot_text(line.record.reason or '', 90)}" for line, _ in found
        ],
    }


def _legend_traces(lines: list[CurveLine], groups: _Groups) -> list[_Trace]:
    """Return one legend entry per colour, which switches its trials, and one for each kind of ending."""
    present = {groups.label(line.record): line.record for line in lines}
    colours = [(label, present[label]) for label in groups.labels if label in present]
    shown = colours[:: _legend_stride(len(colours))]
    texts = {label: short(record.params.get(groups.name or "")) for label, record in colours}
    names = labels_apart(texts.values(), 24)
    entries = [
        _entry(
            names[texts[label]],
            groups.key(label),
            _stroke(groups.colour(record)),
        )
        for label, record in shown
    ]
    states = {line.record.state for line in lines}
    if TrialState.PRUNED in states:
        entries.append(_entry("pruned here", "pruned", _mark("x")))
    if TrialState.FAIL in states:
        entries.append(_entry("failed here", "failed", _mark("triangle-up")))
    return [_Trace(entry, [], None) for entry in entries]


def _listed(lines: list[CurveLine], groups: _Groups) -> str:
    """Return which values the legend lists where it does not list all of them."""
    n_values = len({groups.label(line.record) for line in lines})
    stride = _legend_stride(n_values)
    return "" if stride == 1 else f"; the legend lists one in {stride} of {n_values} values of {groups.name}"


def _legend_stride(n_colours: int) -> int:
    """Return which part of the colours the legend lists: a long list would be longer than the plot."""
    return max(1, math.ceil(n_colours / MAX_LISTED))


def _stroke(colour: str) -> dict[str, Any]:
    return {"mode": "lines", "line": {"color": colour}}


def _mark(symbol: str) -> dict[str, Any]:
    return {"mode": "markers", "marker": {"symbol": symbol, "size": 8, "color": NEUTRAL_LINE}}


def _entry(name: str, group: str, look: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "name": plot_text(name),
        "legendgroup": group,
        "showlegend": True,
        "hoverinfo": "skip",
        **look,
    }
