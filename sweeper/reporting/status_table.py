"""The table of trials in a terminal: as many columns as its width has room for, none of them squeezed."""

import dataclasses
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import clipped, count, one_line, params_text, short
from sweeper.reporting.summary import result_of, varying_params
from sweeper.study.view import StudyView

STATE_STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.RUNNING: "cyan",
    TrialState.WAITING: "dim",
}
MAX_PARAM_COLUMNS = 4  # more are told in one column, as `name=value`
MAX_PARAM_WIDTH = 24  # a list, or a long name, must not push the results out of the table
MIN_TEXT_WIDTH = 14  # below this a reason says nothing
WIDE = 110  # columns from which steps, attempts and the worker have room
GAP = 2  # between two columns: one of padding and one that the box draws


@dataclasses.dataclass(kw_only=True)
class Column:
    """One column with its cells as text. A column without `is_fixed` is cut to the room that is left."""

    header: str  # may have several lines
    cells: list[str]
    justify: Literal["left", "right"] = "left"
    is_fixed: bool = True

    @property
    def width(self) -> int:
        return max(len(line) for line in [*self.header.split("\n"), *self.cells])


def trial_table(view: StudyView, records: list[TrialRecord], width: int) -> Table:
    """Return the trials as a table of at most `width` columns."""
    columns = _fitted(_columns(view, records, width), width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(
            Text(column.header),
            justify=column.justify,
            width=column.width,
            no_wrap=True,
            vertical="bottom",
        )
    for row, record in enumerate(records):
        cells = [Text(column.cells[row]) for column in columns]
        cells[1].stylize(STATE_STYLES[record.state])
        table.add_row(*cells)
    return table


def _columns(view: StudyView, records: list[TrialRecord], width: int) -> list[Column]:
    columns = [
        Column(header="trial", cells=[str(record.number) for record in records], justify="right"),
        Column(
            header="state",
            cells=["set aside" if record.is_set_aside else record.state.value for record in records],
        ),
        *_param_columns(varying_params(view), records),
        Column(
            header=one_line(view.config.metric).replace("/", "\n"),
            cells=["" if (value := result_of(record)) is None else short(value) for record in records],
            justify="right",
        ),
        Column(header="samples", cells=[_progress(record) for record in records], justify="right"),
    ]
    if width >= WIDE:
        columns += [
            Column(header="steps", cells=[str(record.step) for record in records], justify="right"),
            Column(header="attempts", cells=[str(record.attempts) for record in records], justify="right"),
            Column(header="worker", cells=[worker_text(record) for record in records]),
        ]
    reasons = [one_line(record.reason or "") for record in records]
    if any(reasons):
        columns.append(Column(header="reason", cells=reasons, is_fixed=False))
    return columns


def _param_columns(names: list[str], records: list[TrialRecord]) -> list[Column]:
    if len(names) > MAX_PARAM_COLUMNS:
        told = [params_text({name: record.params.get(name) for name in names}) for record in records]
        return [Column(header="params", cells=told, is_fixed=False)]
    return [
        Column(
            header="\n".join(one_line(name).replace(".", "_").split("_")),
            cells=[clipped(short(record.params.get(name)), MAX_PARAM_WIDTH) for record in records],
            justify="right",
        )
        for name in names
    ]


def _fitted(columns: list[Column], width: int) -> list[Column]:
    """Cut the texts to the room that the fixed columns leave; drop what then says nothing, from the right."""
    columns = list(columns)
    while len(columns) > 2:
        taken = sum(column.width + GAP for column in columns if column.is_fixed)
        flexible = [column for column in columns if not column.is_fixed]
        room = (width - taken) // max(1, len(flexible)) - GAP
        if (flexible and room >= MIN_TEXT_WIDTH) or (not flexible and taken <= width):
            for column in flexible:
                column.cells = [clipped(cell, room) for cell in column.cells]
            return columns
        columns.pop()
    return columns


def _progress(record: TrialRecord) -> str:
    if record.state is TrialState.WAITING:
        return ""
    if record.state is TrialState.COMPLETE or not record.budget_samples:
        return count(record.samples)
    return f"{count(record.samples)}/{count(record.budget_samples)}"


def worker_text(record: TrialRecord) -> str:
    """Return where a trial ran: `node:pid`."""
    if not record.worker:
        return ""
    return one_line(f"{record.worker.get('node', '?')}:{record.worker.get('pid', '?')}")
