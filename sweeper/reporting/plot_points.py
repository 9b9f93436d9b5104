"""Results over params that have too many values for cells, or over a single one: a point per trial."""

from typing import Any

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.figures import (
    NEUTRAL_LINE,
    STATE_COLOURS,
    Figure,
    axis_layout,
    axis_place,
    coloraxis,
    hover_text,
    is_log,
    plot_text,
)
from sweeper.reporting.formats import plural
from sweeper.reporting.grid import Axis, Cell, TrialGrid
from sweeper.reporting.summary import TO_GO_ON, early_metric, is_to_go_on, result_of
from sweeper.study.view import StudyView

# How trials without a result are marked.
_SYMBOLS = {
    TrialState.PRUNED: "x",
    TrialState.FAIL: "triangle-up",
    TrialState.RUNNING: "circle-open",
    TrialState.WAITING: "circle-open-dot",
}
_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned (no result)",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def grid_caption(grid: TrialGrid, shown: str) -> str:
    """Return the caption of a plot over the params: what is shown, how to read it, and what else varies."""
    text = f"{shown} Brighter is better. ✕ marks a trial that was stopped early, which has no result."
    if grid.others:
        text += f" {', '.join(grid.others)} vary too: each place shows the best trial over them."
    return text


def result_scale(view: StudyView) -> dict[str, Any]:
    """Return the colour scale of the results that are compared; of the others where there are none."""
    results = [value for record in view.records if (value := result_of(record)) is not None]
    compared = [record.value for record in view.compared if record.value is not None]
    scale = coloraxis(
        compared or results, title=view.config.metric, is_lower_better=view.config.direction == "minimize"
    )
    return scale | {"showscale": bool(results)}


def trial_marker(records: list[TrialRecord], state: TrialState) -> dict[str, Any]:
    """Return the mark of trials in one state: coloured by result where they have one, never by an early value."""
    if state is TrialState.COMPLETE:
        line = {"width": 1, "color": NEUTRAL_LINE}
        values = [result_of(record) for record in records]
        return {"symbol": "circle", "color": values, "coloraxis": "coloraxis", "line": line}
    colour = NEUTRAL_LINE if state is TrialState.PRUNED else STATE_COLOURS[state]
    return {"symbol": _SYMBOLS[state], "color": colour}


def points_figure(view: StudyView, grid: TrialGrid, rows: Axis) -> Figure:
    """Return every trial as a point over two params, one of which has too many values for cells."""
    rows_listed, columns_listed = not _is_scale(rows), not _is_scale(grid.columns)
    data = []
    for state, cells in _by_state(grid).items():
        records = [cell.record for cell in cells]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": TO_GO_ON if is_to_go_on(view, state) else _NAMES[state],
                "x": [axis_place(grid.columns, cell.column, as_categories=columns_listed) for cell in cells],
                "y": [axis_place(rows, cell.row, as_categories=rows_listed) for cell in cells],
                "hovertext": [hover_text(record, view.config.metric) for record in records],
                "hoverinfo": "text",
                "marker": trial_marker(records, state) | {"size": 11 if state is TrialState.COMPLETE else 7},
            }
        )
    layout = {
        "xaxis": axis_layout(grid.columns, as_categories=columns_listed),
        "yaxis": axis_layout(rows, as_categories=rows_listed),
        "coloraxis": result_scale(view),
        "margin": {"t": 64},  # the colour scale's
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
    }
    return Figure(
        data=data,
        layout=layout,
        label=f"{view.config.metric} of every trial by {rows.name} and {grid.columns.name}",
        caption=grid_caption(grid, "Each point is a trial; a large one has a final value."),
        height=460,
    )


def one_param_figure(view: StudyView, grid: TrialGrid) -> Figure:
    """Return the result over the only param that varies; early values of stopped trials as marks."""
    axis, metric = grid.columns, view.config.metric
    as_categories = not _is_scale(axis) and not (axis.is_numeric and is_log(axis))
    data = []
    for state, cells in _by_state(grid).items():
        placed = [(cell, _height(cell.record, metric)) for cell in cells]
        shown = [(cell, value) for cell, value in placed if value is not None]
        if not shown:
            continue
        marker: dict[str, Any] = {"size": 12, "color": STATE_COLOURS[state]}
        marker["symbol"] = _SYMBOLS.get(state, "circle")
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": TO_GO_ON if is_to_go_on(view, state) else _NAMES[state],
                "x": [axis_place(axis, cell.column, as_categories=as_categories) for cell, _ in shown],
                "y": [value for _, value in shown],
                "hovertext": [hover_text(cell.record, metric) for cell, _ in shown],
                "hoverinfo": "text",
                "marker": marker,
            }
        )
    n_missing = sum(_height(cell.record, metric) is None for cell in grid.cells)
    caption = "Circles are final values. ✕ is a stopped trial's metric at its last rung, which is no result."
    if n_missing:
        caption += f" {plural(n_missing, 'trial')} without any value (waiting, running or failed) not shown."
    layout = {
        "xaxis": axis_layout(axis, as_categories=as_categories),
        "yaxis": {"title": {"text": plot_text(metric, 40)}, "zeroline": False, "exponentformat": "e"},
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
    }
    return Figure(data=data, layout=layout, label=f"{metric} by {axis.name}", caption=caption, height=380)


def _height(record: TrialRecord, metric: str) -> float | None:
    if record.state is TrialState.PRUNED:
        return early_metric(record, metric)
    return result_of(record)


def _by_state(grid: TrialGrid) -> dict[TrialState, list[Cell]]:
    groups = {state: [cell for cell in grid.cells if cell.record.state is state] for state in TrialState}
    return {state: cells for state, cells in groups.items() if cells}


def _is_scale(axis: Axis) -> bool:
    """Whether an axis is a scale of numbers and not a place per value."""
    return axis.is_numeric and len(axis.values) > 8
