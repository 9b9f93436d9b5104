"""All params at once: how much each mattered, and the trials as lines over parallel axes.

The lines are drawn here and not by `optuna.visualization.plot_parallel_coordinate`: that one cuts names after 17
characters, shows the worse half in colours that are lost on white, reads names as markup, and draws a trace per
trial, which takes seconds for hundreds.
"""

import math
from typing import Any

from sweeper.params import is_number
from sweeper.records import TrialRecord
from sweeper.reporting.figures import (
    HIGHLIGHT,
    OKABE_ITO,
    VIRIDIS,
    Figure,
    colour_range,
    hover_text,
    plot_text,
    spans_decades,
)
from sweeper.reporting.formats import count, exact, labels_apart, percent, plural, short
from sweeper.reporting.grid import is_even
from sweeper.reporting.importance import Importance
from sweeper.reporting.origins import best_label
from sweeper.reporting.summary import result_of, varying_params
from sweeper.study.view import StudyView

MAX_LINES = 400  # beyond which an even part of the trials, by result, is drawn
MAX_AXES = 8
MAX_LABELS = 6  # values that are named on one axis


def importance_figure(importance: Importance) -> Figure | None:
    """Return a bar per param; None where the importance is not known."""
    shares = importance.shares
    if not shares:
        return None
    names = list(shares)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [round(share, 4) for share in shares.values()],
        "y": list(range(len(names))),
        "text": [percent(share) for share in shares.values()],
        "textposition": "auto",
        "hovertext": [f"{plot_text(name)}: {percent(share)}" for name, share in shares.items()],
        "hoverinfo": "text",
        "marker": {"color": OKABE_ITO[0]},
    }
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "share of importance", "standoff": 6},
            "tickformat": ".0%",
            "zeroline": False,
        },
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(names))),
            "ticktext": [plot_text(name, 28) for name in names],
            "autorange": "reversed",
            "showgrid": False,
        },
        "showlegend": False,
    }
    told = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    return Figure(
        data=[trace], layout=layout, label=f"Importance of the params: {told}", caption=importance.note,
        height=120 + 34 * len(names),
    )  # fmt: skip


def parallel_figure(view: StudyView) -> Figure | None:
    """Return a line per complete trial over an axis per param and one for the result."""
    complete = view.compared
    varying = varying_params(view)[:MAX_AXES]
    if len(complete) < 2 or len(varying) < 2:
        return None
    drawn = _drawn(complete, view.best)
    axes = [
        _axis(name, [record.params.get(name) for record in complete], is_linear=is_even(view, name))
        for name in varying
    ]
    axes.append(_axis(view.config.metric, [result_of(record) for record in complete]))
    places = {record.number: _places(record, axes, varying) for record in drawn}
    data = _lines(view, drawn, places)
    layout: dict[str, Any] = {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(axes))),
            "ticktext": [plot_text(axis["name"], 24).replace("_", "_<br>") for axis in axes],
            "range": [-0.35, len(axes) - 0.4],
            "showgrid": True,
            "zeroline": False,
            "tickangle": 0,
        },
        "yaxis": {"range": [-0.06, 1.06], "visible": False},
        "legend": {"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0},
        "hovermode": "closest",
        "annotations": _labels(axes),
    }
    caption = "Each line is a complete trial, brighter is better; trials without a result are not drawn."
    if len(drawn) < len(complete):
        caption += f" {count(len(drawn))} of {count(len(complete))} are drawn, evenly by result."
    n_continued = sum(record.is_continued and result_of(record) is not None for record in view.records)
    if n_continued:
        caption += f" Not compared, so not drawn: {plural(n_continued, 'trial')} that trained another one on."
    left_out = varying_params(view)[MAX_AXES:]
    if left_out:
        caption += f" Not drawn: {', '.join(left_out)}."
    return Figure(
        data=data, layout=layout, caption=caption, height=440,
        label=f"Parallel coordinates of {count(len(drawn))} trials over {', '.join(varying)} and the result",
    )  # fmt: skip


def _drawn(complete: list[TrialRecord], best: TrialRecord | None) -> list[TrialRecord]:
    ordered = sorted(complete, key=lambda record: record.value or 0.0)
    stride = max(1, math.ceil(len(ordered) / MAX_LINES))
    kept = ordered[::stride]
    return kept if best is None or best in kept else [*kept, best]


def _axis(name: str, values: list[Any], *, is_linear: bool = False) -> dict[str, Any]:
    """Return an axis: its values in order, and where each lies in [0, 1]."""
    distinct = list({exact(value): value for value in values}.values())
    if not all(is_number(value) and math.isfinite(value) for value in distinct):
        step = 1 / max(1, len(distinct) - 1)
        return {
            "name": name,
            "at": {exact(value): i * step for i, value in enumerate(distinct)},
            "values": distinct,
        }
    distinct.sort()
    is_log = not is_linear and spans_decades(distinct)
    scaled = [math.log(value) if is_log else value for value in distinct]
    low, width = scaled[0], (scaled[-1] - scaled[0]) or 1.0
    at = {exact(value): (place - low) / width for value, place in zip(distinct, scaled, strict=True)}
    return {"name": name, "at": at, "values": distinct}


def _places(record: TrialRecord, axes: list[dict[str, Any]], varying: list[str]) -> list[float]:
    values = [*(record.params.get(name) for name in varying), result_of(record)]
    return [round(axis["at"].get(exact(value), 0.0), 4) for axis, value in zip(axes, values, strict=True)]


def _lines(view: StudyView, drawn: list[TrialRecord], places: dict[int, list[float]]) -> list[dict[str, Any]]:
    """Return one trace per colour, its trials separated by gaps, and the best trial on top."""
    best = view.best
    low, high = colour_range([record.value or 0.0 for record in drawn])
    groups: dict[int, list[TrialRecord]] = {}
    for record in drawn:
        share = min(1.0, max(0.0, ((record.value or 0.0) - low) / (high - low)))
        share = 1 - share if view.config.direction == "minimize" else share
        groups.setdefault(round(share * (len(VIRIDIS) - 1)), []).append(record)
    traces = [
        _trace(records, places, view.config.metric, VIRIDIS[group], width=1.4)
        for group, records in sorted(groups.items())
    ]
    if best is not None:
        name = best_label(best)
        traces.append(
            _trace([best], places, view.config.metric, HIGHLIGHT, width=3.5)
            | {"name": name, "showlegend": True}
        )
    return traces


def _trace(
    records: list[TrialRecord], places: dict[int, list[float]], metric: str, colour: str, *, width: float
) -> dict[str, Any]:
    x: list[int | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for record in records:
        line = places[record.number]
        x += [*range(len(line)), None]
        y += [*line, None]
        hover += [*[hover_text(record, metric)] * len(line), ""]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "connectgaps": False,
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 4 if width < 2 else 7},
        "opacity": 1 if width > 2 or len(records) < 60 else 0.6,
        "hovertext": hover,
        "hoverinfo": "text",
        "showlegend": False,
    }


def _labels(axes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the values that are named beside each axis; the page gives them its colours."""
    x: list[int] = []
    y: list[float] = []
    text: list[str] = []
    for place, axis in enumerate(axes):
        values = axis["values"]
        labels = labels_apart(map(short, values), 12)
        stride = max(1, math.ceil((len(values) - 1) / (MAX_LABELS - 1)))
        for value in dict.fromkeys([exact(v) for v in [*values[::stride], values[-1]]]):
            shown = next(v for v in values if exact(v) == value)
            if y and x[-1] == place and abs(axis["at"][value] - y[-1]) < 0.06:
                continue
            x.append(place)
            y.append(axis["at"][value])
            text.append(plot_text(labels[short(shown)]))
    return [
        {
            "x": place, "y": height, "text": label, "showarrow": False, "xanchor": "right", "xshift": -5,
            "borderpad": 1,
        }
        for place, height, label in zip(x, y, text, strict=True)
    ]  # fmt: skip
