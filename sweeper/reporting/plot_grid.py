"""Results over the params: a heat map where they have few values."""

from typing import Any

from sweeper.records import TrialState
from sweeper.reporting.figures import (
    HIGHLIGHT,
    NEUTRAL,
    Figure,
    axis_layout,
    hover_text,
    text_colour,
)
from sweeper.reporting.formats import short
from sweeper.reporting.grid import Axis, Cell, TrialGrid, trial_grid
from sweeper.reporting.plot_points import (
    grid_caption,
    one_param_figure,
    points_figure,
    result_scale,
    trial_marker,
)
from sweeper.reporting.summary import result_of
from sweeper.study.view import StudyView

N_CELL_TRACES = 3  # of the heat map: cells without a result, those with one, their values


def grid_figure(view: StudyView) -> Figure | None:
    """Return the results over batch and rate, or over the first params that vary; None where none does."""
    grid = trial_grid(view)
    if grid is None:
        return None
    if grid.rows is None:
        return one_param_figure(view, grid)
    return _heat_map(view, grid, grid.rows) if grid.is_table else points_figure(view, grid, grid.rows)


def _heat_map(view: StudyView, grid: TrialGrid, rows: Axis) -> Figure:
    metric, best = view.config.metric, view.best
    shape = (len(rows.values), len(grid.columns.values))
    results, hovers = _matrix(shape), _matrix(shape)
    blanks, blank_hovers = _matrix(shape), _matrix(shape)
    for cell in grid.cells:
        hover = hover_text(cell.record, metric, n_trials=cell.n_trials)
        value = result_of(cell.record)
        if value is not None:
            results[cell.row][cell.column] = value
            hovers[cell.row][cell.column] = hover
        else:
            blanks[cell.row][cell.column] = 0
            blank_hovers[cell.row][cell.column] = hover
    scale = result_scale(view)
    common = {"type": "heatmap", "hoverinfo": "text", "xgap": 2, "ygap": 2}
    data = [
        common | {"z": blanks, "hovertext": blank_hovers, "showscale": False, "colorscale": _flat(NEUTRAL)},
        common | {"z": results, "hovertext": hovers, "coloraxis": "coloraxis"},
        _cell_values(grid, scale),
    ]
    marks, extra = _cell_marks(grid)
    layout: dict[str, Any] = {
        "xaxis": axis_layout(grid.columns, as_categories=True) | {"showgrid": False},
        "yaxis": axis_layout(rows, as_categories=True) | {"showgrid": False},
        "coloraxis": scale,
        "margin": {"t": 64},  # the colour scale's
        "showlegend": False,
        "shapes": [_outline(cell) for cell in grid.cells if best and cell.record.number == best.number],
    }
    return Figure(
        data=data + marks,
        layout=layout,
        extra={"n_columns": shape[1], "short_text": extra},
        label=f"Heat map of {metric} by {rows.name} and {grid.columns.name}",
        caption=grid_caption(grid, "Each cell is a trial's final value; the best one is framed."),
        height=150 + max(3, shape[0]) * 68,
    )


def _cell_values(grid: TrialGrid, scale: dict[str, Any]) -> dict[str, Any]:
    """Return the results as text on their cells."""
    shown = [(cell, value) for cell in grid.cells if (value := result_of(cell.record)) is not None]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [cell.column for cell, _ in shown],
        "y": [cell.row for cell, _ in shown],
        "text": [cell.text.replace(" ", "<br>", 1) for cell, _ in shown],
        "textfont": {"color": [text_colour(value, scale) for _, value in shown]},
        "hoverinfo": "skip",  # the cell below says it
    }


def _cell_marks(grid: TrialGrid) -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """Return a mark for each cell without a result, and by trace index shorter texts for these and the results."""
    traces: list[dict[str, Any]] = []
    shown = [value for cell in grid.cells if (value := result_of(cell.record)) is not None]
    short_texts = {N_CELL_TRACES - 1: [short(value) for value in shown]}
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING):
        cells = [cell for cell in grid.cells if cell.record.state is state]
        if not cells:
            continue
        texts = [cell.text for cell in cells]
        short_texts[N_CELL_TRACES + len(traces)] = [
            "" if state is not TrialState.PRUNED else text.split()[-1] for text in texts
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [cell.column for cell in cells],
                "y": [cell.row + 0.2 for cell in cells],  # leaves room for the text
                "text": [text.replace(" ", "<br>", 1) for text in texts],
                "textposition": "bottom center",
                "textfont": {"size": 10},
                "hoverinfo": "skip",  # the cell below says it
                "marker": trial_marker([cell.record for cell in cells], state) | {"size": 11},
            }
        )
    return traces, short_texts


def _matrix(shape: tuple[int, int]) -> list[list[Any]]:
    return [[None] * shape[1] for _ in range(shape[0])]


def _flat(colour: str) -> list[list[Any]]:
    return [[0, colour], [1, colour]]


def _outline(cell: Cell) -> dict[str, Any]:
    box = {"x0": cell.column - 0.49, "x1": cell.column + 0.49, "y0": cell.row - 0.49, "y1": cell.row + 0.49}
    return {"type": "rect", "line": {"color": HIGHLIGHT, "width": 3}, **box}
