"""What the report's plots share: plotly.js figures as plain dicts, colours, and text that is safe to show.

Figures are dicts in plotly.js's own schema and not `plotly.graph_objects`, which take seconds for thousands
of traces; a test has plotly check them. The page sets the colours of text, grid and background.
"""

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import Any

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import clipped, labels_apart, one_line, params_text, plural, short
from sweeper.reporting.grid import Axis
from sweeper.reporting.origins import warm_text
from sweeper.reporting.summary import early_metric, pruned_text, result_of

# Okabe and Ito's colours for the colour-blind, those that stand out on white and on black.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
HIGHLIGHT = "#D55E00"  # the best trial; its colour is no group's
NEUTRAL = "rgba(128,128,128,0.22)"
NEUTRAL_LINE = "rgb(128,128,128)"
# Viridis from 15 % on: what lies below is lost on a dark page.
VIRIDIS = ("#453781", "#39568C", "#2D708E", "#238A8D", "#20A387", "#3CBB75", "#73D055", "#B8DE29")
STATE_COLOURS = {
    TrialState.COMPLETE: "#009E73",
    TrialState.PRUNED: "#E69F00",
    TrialState.FAIL: "#D55E00",
    TrialState.RUNNING: "#56B4E9",
    TrialState.WAITING: NEUTRAL_LINE,
}
STATE_PATTERNS = {
    TrialState.PRUNED: "/",
    TrialState.FAIL: "x",
    TrialState.RUNNING: ".",
}  # of bars; others have none
MAX_TICKS = 10  # values of a param that are each named on its axis
LOG_SPAN = 20  # positive values that span more than this factor are shown on a log axis


@dataclasses.dataclass(kw_only=True)
class Figure:
    """One plot. `extra` is for the page's own script: texts for narrow cells, x values in steps."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""  # what a screen reader says
    caption: str = ""
    height: int = 420  # pixels


def plot_text(text: str, width: int = 160) -> str:
    """Return a text that plotly shows as it is: it would read `<b>` and `<a>` as markup."""
    return html.escape(clipped(one_line(text), width), quote=False)


def hover_text(record: TrialRecord, metric: str, *, n_trials: int = 1) -> str:
    """Return what a trial's point says: params, state, and its result or that it has none."""
    lines = [f"trial {record.number}: {record.state.value}"]
    lines += [f"{name} = {short(value)}" for name, value in record.params.items()]
    value = result_of(record)
    if value is not None:
        lines.append(f"{metric} = {short(value)}")
    if record.is_warm_started:
        lines.append(warm_text(record))
    if record.state is TrialState.PRUNED:
        lines.append(f"{pruned_text(record)}, {plural(record.samples, 'sample')}: no result")
        early = early_metric(record, metric)
        if early is not None:
            lines.append(f"{metric} there = {short(early)} (early, not a result)")
    if record.reason:
        lines.append(record.reason)
    if n_trials > 1:
        lines.append(f"the best of {n_trials} trials in this cell")
    return "<br>".join(plot_text(line, 90) for line in lines)


def params_label(record: TrialRecord) -> str:
    """Return a trial with its params, for hovering over its curve."""
    return (
        plot_text(f"trial {record.number}: {record.state.value}")
        + "<br>"
        + plot_text(params_text(record.params))
    )


def colours_for(n_groups: int) -> list[str]:
    """Return a colour for each group: distinct hues for a few, a sequence for many."""
    if n_groups <= len(OKABE_ITO):
        return list(OKABE_ITO[:n_groups])
    last = len(VIRIDIS) - 1
    return [VIRIDIS[round(index * last / (n_groups - 1))] for index in range(n_groups)]


def axis_layout(axis: Axis, *, as_categories: bool) -> dict[str, Any]:
    """Return an axis for a param: one place per value, or a scale of numbers."""
    base = {"title": {"text": plot_text(axis.name, 40), "standoff": 8}, "zeroline": False}
    if as_categories or not axis.is_numeric:
        places = list(range(len(axis.values)))
        labels = labels_apart(axis.labels, 18)
        texts = [plot_text(labels[label]) for label in axis.labels]
        return base | {"tickmode": "array", "tickvals": places, "ticktext": texts}
    kind = "log" if is_log(axis) else "linear"
    if len(axis.values) <= MAX_TICKS:
        return base | {"type": kind, "tickmode": "array", "tickvals": axis.values, "ticktext": axis.labels}
    if kind == "linear":
        return base | {"type": kind}
    # One tick per power of ten, spelled as in a sweep file.
    first, last = math.floor(math.log10(min(axis.values))), math.ceil(math.log10(max(axis.values)))
    tens = [10.0**power for power in range(first, last + 1)]
    return base | {
        "type": kind,
        "tickmode": "array",
        "tickvals": tens,
        "ticktext": [short(ten) for ten in tens],
    }


def axis_place(axis: Axis, index: int, *, as_categories: bool) -> float:
    """Return where a value of a param lies on the axis of `axis_layout`."""
    return index if as_categories or not axis.is_numeric else float(axis.values[index])


def is_log(axis: Axis) -> bool:
    """Whether the numbers of a param are better seen on a log scale."""
    return not axis.is_even and spans_decades(axis.values)


def spans_decades(values: Sequence[float]) -> bool:
    """Whether numbers are better seen on a log scale."""
    return min(values) > 0 and max(values) / min(values) > LOG_SPAN


def colour_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a colour scale: the values' own, but for outliers.

    An outlier lies more than three times the middle half's width from it.
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return 0.0, 1.0
    quarter, three_quarters = finite[len(finite) // 4], finite[(3 * len(finite)) // 4]
    reach = 3 * (three_quarters - quarter)
    low, high = finite[0], finite[-1]
    if len(finite) >= 4 and reach > 0:
        low, high = max(low, quarter - reach), min(high, three_quarters + reach)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def text_colour(value: float, scale: dict[str, Any]) -> str:
    """Return the colour of a text on a cell of Viridis: white on its dark half, black on its bright one."""
    place = (value - scale["cmin"]) / (scale["cmax"] - scale["cmin"])
    return "#000000" if (1 - place if scale["reversescale"] else place) > 0.5 else "#ffffff"


def coloraxis(values: Sequence[float], *, title: str, is_lower_better: bool) -> dict[str, Any]:
    """Return a scale whose bright end is the better one, drawn above the plot."""
    low, high = colour_range(values)
    return {
        "colorscale": "Viridis",
        "reversescale": is_lower_better,
        "cmin": low,
        "cmax": high,
        "colorbar": {
            "orientation": "h",
            "title": {"text": plot_text(title, 40), "side": "right"},
            "thickness": 10,
            "len": 0.6,
            "x": 0,
            "xanchor": "left",
            # In the container: beside the plot it moves the axes after their titles were placed.
            "yref": "container",
            "y": 0.99,
            "yanchor": "top",
            "nticks": 5,
            "exponentformat": "e",
        },
    }
