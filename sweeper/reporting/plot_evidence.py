"""What each early signal said about the final metric, as a point with its interval."""

from collections.abc import Sequence
from typing import Any

from sweeper.pruners.correlation import Correlation
from sweeper.pruners.evidence import Evidence
from sweeper.reporting.figures import NEUTRAL_LINE, OKABE_ITO, Figure, plot_text
from sweeper.reporting.formats import one_line

_Row = tuple[str, Evidence | Correlation]  # with its label
MAX_PER_RUNG = 8  # signals of a rung that are drawn, the strongest; the table has all
_SERIES = {
    "over all trials": (OKABE_ITO[0], "circle", "overall"),
    "beside rate and batch size": (OKABE_ITO[1], "diamond", "partial"),
}


def evidence_figure(found: Sequence[Evidence], metric: str) -> Figure | None:
    """Return the rank correlation of each signal at each rung with the result; None where none is known."""
    if not found:
        return None
    rows = _rows(found)
    traces = []
    for name, (colour, symbol, attribute) in _SERIES.items():
        points = [getattr(one, attribute) if isinstance(one, Evidence) else None for _, one in rows]
        traces.append(_trace(name, colour, symbol, rows, points))
    trivial = [one if isinstance(one, Correlation) else None for _, one in rows]
    traces.append(_trace("known before the first step", NEUTRAL_LINE, "square", rows, trivial))
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "rank correlation<br>with " + plot_text(metric, 30), "standoff": 6},
            "range": [-1.05, 1.05],
            "zeroline": True,
            "zerolinecolor": NEUTRAL_LINE,
        },
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": [plot_text(label, 40) for label, _ in rows],
            "autorange": "reversed",
            "zeroline": False,
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return Figure(
        data=[trace for trace in traces if trace["x"]],
        layout=layout,
        label=f"Rank correlation of each early signal with the final {one_line(metric)}, with 95 % intervals",
        caption="Right of 0: high goes with a better result; left: low does. An interval across 0 says nothing "
        "sure. Bars are 95 % intervals.",
        height=170 + 30 * len(rows),
    )


def _rows(found: Sequence[Evidence]) -> list[_Row]:
    """Return what is drawn, from top to bottom."""
    rows: list[_Row] = []
    for rung in dict.fromkeys(one.rung for one in found):
        there = [one for one in found if one.rung == rung]
        rows += [(f"{one.place}: {one_line(one.signal)}", one) for one in there[:MAX_PER_RUNG]]
    if (rate := found[0].by_rate) is not None:
        rows.append(("a low rate alone", rate))
    if (batch := found[0].by_batch) is not None:
        rows.append(("a large batch alone", batch))
    return rows


def _trace(
    name: str, colour: str, symbol: str, rows: Sequence[_Row], points: Sequence[Correlation | None]
) -> dict[str, Any]:
    shown = [
        (place, label, one)
        for place, ((label, _), one) in enumerate(zip(rows, points, strict=True))
        if one is not None
    ]
    offset = {"circle": -0.12, "diamond": 0.12}.get(symbol, 0.0)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [round(one.rho, 4) for _, _, one in shown],
        "y": [place + offset for place, _, _ in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [round(one.high - one.rho, 4) for _, _, one in shown],
            "arrayminus": [round(one.rho - one.low, 4) for _, _, one in shown],
            "thickness": 1.5,
            "width": 3,
            "color": colour,
        },
        "marker": {"color": colour, "symbol": symbol, "size": 9},
        "hovertext": [
            f"{plot_text(label)}, {name}<br>{one.rho:+.2f} ({one.low:+.2f} to {one.high:+.2f}), {one.n} trials"
            for _, label, one in shown
        ],
        "hoverinfo": "text",
    }
