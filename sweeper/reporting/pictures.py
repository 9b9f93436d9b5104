"""The report's main plots as PNGs, for slides.

Drawn by matplotlib: plotly's own way to PNG (kaleido) starts a Chrome, which a cluster's head node has not got.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import ConfigError
from sweeper.extras import install_command
from sweeper.files import write_bytes
from sweeper.records import TrialState
from sweeper.reporting.curve_lines import CurveLine, curve_line, metric_line, trials_drawn
from sweeper.reporting.figures import HIGHLIGHT, colours_for
from sweeper.reporting.formats import clipped, exact, labels_apart, one_line, short
from sweeper.reporting.grid import Axis, TrialGrid, trial_grid
from sweeper.reporting.origins import best_label
from sweeper.reporting.picture_points import draw_points
from sweeper.reporting.summary import result_of
from sweeper.study.view import StudyView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (12.8, 7.2)  # inches; at 125 dots each 1600 x 900 pixels
DPI = 125
POINTS = 600  # of a curve
_GREY = "#808080"


def write_pictures(view: StudyView, out: Path) -> list[Path]:
    """Write grid.png, loss.png, grad_norm.png and metric.png as far as there is something to draw.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(
            f"PNGs are drawn by matplotlib, which is not installed. Install it with `{install_command('png')}`, "
            "or leave `--png` out."
        ) from error
    matplotlib.use("agg", force=False)
    lines = {name: _lines(view, name) for name in ("loss", "grad_norm", "metric")}
    drawings: dict[str, Callable[[Any], None]] = {}
    grid = trial_grid(view)
    if grid is not None and any(cell.record.state is not TrialState.WAITING for cell in grid.cells):
        drawings["grid"] = lambda axes: _draw_results(axes, view, grid)
    for name, found in lines.items():
        if found:
            drawings[name] = _curve_drawing(view, name, found)
    return [_picture(out / f"{name}.png", draw) for name, draw in drawings.items()]


def _picture(path: Path, draw: Callable[[Any], None]) -> Path:
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    draw(figure.add_subplot())
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    write_bytes(path, sink.getvalue())
    return path


def _plain(text: str, width: int = 40) -> str:
    """Return a text that matplotlib shows as it is: a pair of `$` would be read as a formula."""
    return clipped(one_line(text), width).replace("$", r"\$")


def _draw_results(axes: "Axes", view: StudyView, grid: TrialGrid) -> None:
    axes.set_title(_plain(f"{view.name}: {view.config.metric}", 80))
    if grid.rows is not None and grid.is_table:
        _draw_grid(axes, view, grid, grid.rows)
    else:
        draw_points(axes, view, grid, _plain)


def _draw_grid(axes: "Axes", view: StudyView, grid: TrialGrid, rows: Axis) -> None:
    values = [[float("nan")] * len(grid.columns.values) for _ in rows.values]
    for cell in grid.cells:
        value = result_of(cell.record)
        values[cell.row][cell.column] = float("nan") if value is None else value
    colours = "viridis_r" if view.config.direction == "minimize" else "viridis"
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=colours)
    for cell in grid.cells:
        # A box behind the text: it is read on every colour of the scale.
        axes.text(
            cell.column, cell.row, _plain(cell.text), ha="center", va="center", fontsize=11,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 2},
        )  # fmt: skip
        if view.best is not None and cell.record.number == view.best.number:
            axes.add_patch(_frame(cell.column, cell.row))
    for axis, set_ticks in ((grid.columns, axes.set_xticks), (rows, axes.set_yticks)):
        labels = labels_apart(axis.labels, 18)
        set_ticks(range(len(axis.values)), [_plain(labels[label]) for label in axis.labels])
    axes.set_xlabel(_plain(grid.columns.name))
    axes.set_ylabel(_plain(rows.name))
    if axes.figure is not None:
        axes.figure.colorbar(image, label=_plain(view.config.metric))


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=HIGHLIGHT, linewidth=4)


def _lines(view: StudyView, name: str) -> list[CurveLine]:
    drawn = trials_drawn(view)
    if name == "metric":
        lines = [metric_line(record, view.config.metric) for record in drawn]
    else:
        lines = [curve_line(record, view.curve(record.number), name, POINTS) for record in drawn]
    return [line for line in lines if any(value is not None for value in line.values)]


def _curve_drawing(view: StudyView, name: str, lines: list[CurveLine]) -> Callable[[Any], None]:
    title = {"loss": "training loss", "grad_norm": "gradient norm", "metric": view.config.metric}[name]

    def draw(axes: "Axes") -> None:
        colours, axis = _colours(view)
        for line in lines:
            _draw_line(axes, view, line, colours, axis, has_marks=name == "metric")
        if name == "grad_norm":
            axes.set_yscale("log")
        axes.set_xlabel("samples")
        axes.set_ylabel(_plain(title))
        axes.set_title(_plain(f"{view.name}: {title}", 80))
        axes.grid(color=_GREY, alpha=0.25)
        axes.plot([], [], marker="x", linestyle="--", color=_GREY, label="stopped early")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), title=_plain(axis) if axis else None, fontsize=9)

    return draw


def _draw_line(
    axes: "Axes",
    view: StudyView,
    line: CurveLine,
    colours: dict[str, str],
    axis: str | None,
    *,
    has_marks: bool,
) -> None:
    is_best = view.best is not None and line.record.number == view.best.number
    is_stopped = line.record.state is TrialState.PRUNED
    value = line.record.params.get(axis) if axis else None
    values = [float("nan") if number is None else number for number in line.values]
    axes.plot(
        line.samples, values,
        color=HIGHLIGHT if is_best else colours.get(exact(value), _GREY),
        linewidth=3 if is_best else 1.2, linestyle="--" if is_stopped else "-",
        marker="o" if has_marks else None, markersize=3, zorder=3 if is_best else 2,
        label=best_label(line.record) if is_best else _plain(short(value), 18) if axis else None,
    )  # fmt: skip
    if is_stopped:
        axes.plot(
            line.samples[-1:], values[-1:], marker="x", color=colours.get(exact(value), _GREY), zorder=3
        )


def _colours(view: StudyView) -> tuple[dict[str, str], str | None]:
    """Return a colour for each value of the param that groups the curves, and its name."""
    grid = trial_grid(view)
    if grid is None or not grid.is_table:
        return {}, None
    axis = grid.rows or grid.columns
    colours = colours_for(len(axis.values))
    return {exact(value): colour for value, colour in zip(axis.values, colours, strict=True)}, axis.name
