"""What other pruners would have spent on this study and lost: a Pareto plot."""

from collections.abc import Sequence
from typing import Any

from sweeper.reporting.figures import HIGHLIGHT, NEUTRAL_LINE, OKABE_ITO, Figure, plot_text
from sweeper.reporting.formats import percent, short


def pareto_front(results: Sequence[dict[str, Any]]) -> list[int]:
    """Return the indices of those that no other beats in both cost and hit rate, by ascending cost."""
    front: list[int] = []
    for index in sorted(range(len(results)), key=lambda i: (results[i]["cost"], -results[i]["hit"])):
        if not front or results[index]["hit"] > results[front[-1]]["hit"]:
            front.append(index)
    return front


def replay_rows(document: dict[str, Any]) -> list[list[str]]:
    """Return a table's rows: number in the plot, pruner, spent, hits, mean regret, whether on the front."""
    results = document["results"]
    front = set(pareto_front(results))
    return [
        [
            str(index + 1),
            str(one["pruner"]),
            percent(one["cost"]),
            percent(one["hit"]),
            short(one["regret"]),
            "yes" if index in front else "",
        ]
        for index, one in enumerate(results)
    ]


def replay_figure(document: dict[str, Any]) -> Figure:
    """Return share of training against hit rate, one point per pruner, with the front as a line."""
    results = document["results"]
    front = pareto_front(results)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [results[i]["cost"] for i in front],
        "y": [results[i]["hit"] for i in front],
        "line": {"shape": "hv", "width": 1, "dash": "dot", "color": NEUTRAL_LINE},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    points = [_point(index + 1, one, on_front=index in front) for index, one in enumerate(results)]
    best = "; ".join(
        f"{results[i]['pruner']}: {percent(results[i]['cost'])} spent, {percent(results[i]['hit'])} hits"
        for i in front
    )
    return Figure(
        data=[line, *points],
        layout={
            "xaxis": {
                "title": {"text": "share of training spent", "standoff": 8},
                "tickformat": ".0%",
                "rangemode": "tozero",
                "zeroline": False,
            },
            "yaxis": {
                "title": {"text": "hit rate", "standoff": 8},
                "tickformat": ".0%",
                "range": [-0.05, 1.15],
                "zeroline": False,
            },
        },
        label=f"What pruners would have spent and found. On the front: {best}.",
        caption="Each pruner on the recorded trials: share of training spent against how often its choice is as good "
        "as the best, numbered as in the table. The upper left is better; filled circles no other beats in both.",
        height=380,
    )


def _point(number: int, one: dict[str, Any], *, on_front: bool) -> dict[str, Any]:
    text = (
        f"{plot_text(str(one['pruner']), 60)}<br>{percent(one['cost'])} of the training spent<br>"
        f"{percent(one['hit'])} of {one.get('orders', '?')} orders within the tolerance<br>"
        f"mean regret {short(one['regret'])}"
    )
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": plot_text(str(one["pruner"]), 40),
        "text": [str(number)],
        "textposition": "top center",
        "showlegend": False,
        "x": [one["cost"]],
        "y": [one["hit"]],
        "hovertext": [text],
        "hoverinfo": "text",
        "marker": {
            "size": 12,
            "symbol": "circle" if on_front else "circle-open",
            "color": HIGHLIGHT if on_front else OKABE_ITO[0],
        },
    }
