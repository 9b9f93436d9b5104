"""The running trials of the live view, as a table with a bar for each."""

import dataclasses
from typing import Any, Literal, Self

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.records import TrialRecord
from sweeper.reporting.formats import clipped, count, labels_apart, one_line, short
from sweeper.reporting.status_table import MAX_PARAM_WIDTH, params_column
from sweeper.reporting.summary import trained_header

MAX_PARAM_COLUMNS = 3  # more share one column, with a line of header each
MIN_BAR, MAX_BAR = 8, 30  # columns
GAP = 2
# What is left out first in a narrow terminal.
DROP_ORDER = ("steps", "samples", "rung", "grad norm", "loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """The few values of a running trial that the view shows; a copy, since records change."""

    number: int
    params: dict[str, Any]
    step: int
    samples: int
    budget_samples: int | None
    loss: float | None
    grad_norm: float | None
    rung: int | None  # the last one that was reached

    @classmethod
    def of(cls, record: TrialRecord) -> Self:
        return cls(
            number=record.number,
            params=dict(record.params),
            step=record.step,
            samples=record.samples,
            budget_samples=record.budget_samples,
            loss=record.last_loss,
            grad_norm=record.last_grad_norm,
            rung=max(record.rungs, default=None),
        )

    @property
    def done_frac(self) -> float:
        return min(1.0, self.samples / self.budget_samples) if self.budget_samples else 0.0


_OWN_HEADERS = ("trial", "loss", "rung")  # a function's params may be called as these are


def running_table(trials: list[RunningTrial], names: list[str], width: int) -> RenderableType:
    """Return the running trials with as many columns as the width has room for. `names` are the params."""
    limit = max(6, width // 2)
    columns = _columns(trials, names, min(limit, max(40, width // 3)))
    together = list(columns)[1] if len(names) > MAX_PARAM_COLUMNS else None
    heads = _trained_headers(names)
    for dropped in (heads.get(name, name) for name in DROP_ORDER):
        if _taken(columns, limit) + MIN_BAR <= width:
            break
        del columns[dropped]
    room = width - _taken(columns, limit)
    bar_width = max(4, min(MAX_BAR, room))
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for header, cells in columns.items():
        cell_width = _width(header, cells, limit)
        justify: Literal["left", "right"] = "left" if header == together else "right"
        table.add_column(Text(header), justify=justify, no_wrap=True, width=cell_width, vertical="bottom")
        if header == "trial":
            table.add_column("", width=bar_width, no_wrap=True, vertical="middle")
    for row, trial in enumerate(trials):
        number, *others = (Text(clipped(column[row], limit)) for column in columns.values())
        table.add_row(number, ProgressBar(total=1.0, completed=trial.done_frac), *others)
    return table


def _columns(trials: list[RunningTrial], names: list[str], room: int) -> dict[str, list[str]]:
    columns = {"trial": [str(trial.number) for trial in trials]}
    if len(names) <= MAX_PARAM_COLUMNS:
        for name in names:
            header = "\n".join(one_line(name).replace(".", "_").split("_"))
            header += "\n(param)" if header in _OWN_HEADERS else ""
            values = [short(trial.params.get(name)) for trial in trials]
            labels = labels_apart(values, MAX_PARAM_WIDTH)
            columns[header] = [labels[value] for value in values]
    else:
        column = params_column(names, [trial.params for trial in trials], room)
        columns[column.header] = column.cells
    heads = _trained_headers(names)
    return columns | {
        heads["samples"]: [_of_budget(trial) for trial in trials],
        heads["steps"]: [str(trial.step) for trial in trials],
        "loss": ["" if trial.loss is None else short(trial.loss) for trial in trials],
        "grad norm": ["" if trial.grad_norm is None else short(trial.grad_norm) for trial in trials],
        "rung": ["" if trial.rung is None else str(trial.rung) for trial in trials],
    }


def _trained_headers(names: list[str]) -> dict[str, str]:
    return {amount: trained_header(amount, names).replace(" ", "\n") for amount in ("samples", "steps")}


def _of_budget(trial: RunningTrial) -> str:
    if not trial.budget_samples:
        return count(trial.samples)
    return f"{count(trial.samples)}/{count(trial.budget_samples)}"


def _width(header: str, cells: list[str], limit: int) -> int:
    return min(limit, max(len(line) for line in [*header.split("\n"), *cells]))


def _taken(columns: dict[str, list[str]], limit: int) -> int:
    """Return the width of all columns, each of at most `limit`, with their gaps, the bar's gap included."""
    return sum(_width(header, cells, limit) + GAP for header, cells in columns.items()) + GAP
