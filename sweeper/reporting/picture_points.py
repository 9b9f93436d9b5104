"""The results over params that have too many values for cells, or over a single one, drawn by matplotlib."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sweeper.records import TrialState
from sweeper.reporting.figures import HIGHLIGHT, colour_range, is_log
from sweeper.reporting.formats import labels_apart
from sweeper.reporting.grid import Axis, Cell, TrialGrid
from sweeper.reporting.summary import early_metric, result_of
from sweeper.study.view import StudyView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#808080"
# Of trials without a result, by how they are marked: name and size in points.
_MARKS = {"x": ("stopped early", 6), "o": ("no result", 5)}


def draw_points(axes: "Axes", view: StudyView, grid: TrialGrid, plain: Callable[[str], str]) -> None:
    """Draw every trial as a point: over both params, coloured by its result, or its result over the only param.

    Args:
        axes: To draw in.
        view: The study.
        grid: Its trials by their params.
        plain: Returns a text that matplotlib shows as it is.
    """
    metric = view.config.metric
    places = _heights(view, grid)
    shown = [cell for cell in grid.cells if cell.record.number in places]
    results = [cell for cell in shown if result_of(cell.record) is not None]
    values = [cell.record.value or 0.0 for cell in results]
    low, high = colour_range(values)
    drawn = axes.scatter(
        [_place(grid.columns, cell.column) for cell in results],
        [places[cell.record.number] for cell in results],
        c=values, cmap="viridis_r" if view.config.direction == "minimize" else "viridis", vmin=low, vmax=high,
        s=90, zorder=3, linewidths=[3.0 if _is_best(view, cell) else 0.5 for cell in results],
        edgecolors=[HIGHLIGHT if _is_best(view, cell) else _GREY for cell in results],
    )  # fmt: skip
    others: dict[str, list[Cell]] = {"x": [], "o": []}
    for cell in shown:
        if result_of(cell.record) is None:
            others["x" if cell.record.state is TrialState.PRUNED else "o"].append(cell)
    for marker, cells in others.items():
        name, size = _MARKS[marker]
        if cells:
            across = [_place(grid.columns, cell.column) for cell in cells]
            up = [places[cell.record.number] for cell in cells]
            axes.plot(
                across, up, linestyle="", marker=marker, markersize=size, fillstyle="none", color=_GREY, label=name
            )  # fmt: skip
    _spell(axes, grid, plain, metric)
    if any(others.values()):
        axes.legend(fontsize=9)
    if grid.rows is not None and axes.figure is not None:
        axes.figure.colorbar(drawn, label=plain(metric))


def _heights(view: StudyView, grid: TrialGrid) -> dict[int, float]:
    """Return where each trial lies on the vertical axis, by number; of one param, those that have a value."""
    if grid.rows is not None:
        return {cell.record.number: _place(grid.rows, cell.row) for cell in grid.cells}
    found = {}
    for record in (cell.record for cell in grid.cells):
        is_pruned = record.state is TrialState.PRUNED
        value = early_metric(record, view.config.metric) if is_pruned else result_of(record)
        if value is not None:
            found[record.number] = value
    return found


def _place(axis: Axis, index: int) -> float:
    return float(axis.values[index]) if axis.is_numeric else float(index)


def _is_best(view: StudyView, cell: Cell) -> bool:
    return view.best is not None and cell.record.number == view.best.number


def _spell(axes: "Axes", grid: TrialGrid, plain: Callable[[str], str], metric: str) -> None:
    """Name the axes, and the values of a param that are no numbers."""
    axes.set_xlabel(plain(grid.columns.name))
    axes.set_ylabel(plain(metric if grid.rows is None else grid.rows.name))
    for axis, set_scale, set_ticks in (
        (grid.columns, axes.set_xscale, axes.set_xticks),
        (grid.rows, axes.set_yscale, axes.set_yticks),
    ):
        if axis is None:
            continue
        if not axis.is_numeric:
            labels = labels_apart(axis.labels, 18)
            set_ticks(range(len(axis.values)), [plain(labels[label]) for label in axis.labels])
        elif is_log(axis):
            set_scale("log")
