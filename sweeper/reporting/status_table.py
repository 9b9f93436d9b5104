"""The table of trials in a terminal: as many columns as its width has room for, none of them squeezed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import clipped, count, labels_apart, one_line, short
from sweeper.reporting.origins import origin_text
from sweeper.reporting.summary import result_of, trained_header, trial_state_text, varying_params
from sweeper.study.view import StudyView

STATE_STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.RUNNING: "cyan",
    TrialState.WAITING: "dim",
}
MAX_PARAM_COLUMNS = 4  # more share one column, in which their values stand side by side
MAX_PARAM_WIDTH = 24  # a list, or a long name, must not push the results out of the table
MIN_VALUE_WIDTH = 4  # of a value that shares its column; of most numbers this is all
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
    names = varying_params(view)
    first = [
        Column(header="trial", cells=[str(record.number) for record in records], justify="right"),
        Column(
            header="state",
            cells=[trial_state_text(view, record) for record in records],
        ),
    ]
    last = _result_columns(view, records, names, is_wide=width >= WIDE)
    reasons = [_reason(record) for record in records]
    reason = [Column(header="reason", cells=reasons, is_fixed=False)] if any(reasons) else []
    if len(names) <= MAX_PARAM_COLUMNS:
        return [*first, *_param_columns(names, records), *last, *reason]
    room = width - sum(column.width + GAP for column in (*first, *last)) - GAP
    if reason and room >= 2 * MIN_TEXT_WIDTH + GAP:
        room -= MIN_TEXT_WIDTH + GAP
    return [
        *first,
        params_column(names, [record.params for record in records], max(MIN_TEXT_WIDTH, room)),
        *last,
        *reason,
    ]


def _result_columns(
    view: StudyView, records: list[TrialRecord], names: list[str], *, is_wide: bool
) -> list[Column]:
    columns = [
        Column(
            header=one_line(view.config.metric).replace("/", "\n"),
            cells=["" if (value := result_of(record)) is None else short(value) for record in records],
            justify="right",
        ),
        Column(
            header=trained_header("samples", names).replace(" ", "\n"),
            cells=[_progress(view, record) for record in records],
            justify="right",
        ),
    ]
    if is_wide:
        columns += [
            Column(
                header=trained_header("steps", names).replace(" ", "\n"),
                cells=[str(record.step) for record in records],
                justify="right",
            ),
            Column(header="attempts", cells=[str(record.attempts) for record in records], justify="right"),
            Column(header="worker", cells=[worker_text(record) for record in records]),
        ]
    return columns


def _reason(record: TrialRecord) -> str:
    """Return why a trial ended as it did, after what sets its value apart from those of the others."""
    apart = origin_text(record) if record.is_continued or record.is_warm_started else ""
    if record.is_continued:
        apart = f"not compared: {apart}"
    return "; ".join(text for text in (apart, one_line(record.reason or "")) if text)


def _param_columns(names: list[str], records: list[TrialRecord]) -> list[Column]:
    return [
        Column(
            header="\n".join(one_line(name).replace(".", "_").split("_")),
            cells=_labels([short(record.params.get(name)) for record in records], MAX_PARAM_WIDTH),
            justify="right",
        )
        for name in names
    ]


def params_column(names: list[str], trials: Sequence[Mapping[str, Any]], room: int) -> Column:
    """Return all params in one column of at most `room`; each name begins above its values if it fits."""
    texts = [[short(params.get(name)) for params in trials] for name in names]
    widths = [min(MAX_PARAM_WIDTH, max(map(len, column))) for column in texts]
    while sum(widths) + len(widths) - 1 > room and max(widths) > MIN_VALUE_WIDTH:
        widths[widths.index(max(widths))] -= 1
    columns = [_labels(column, width) for column, width in zip(texts, widths, strict=True)]
    header, begin = [], 0
    for name, width in zip(names, widths, strict=True):
        told = one_line(name)
        header.append(clipped(" " * max(0, min(begin, room - len(told))) + told, room))
        begin += width + 1
    rows = zip(*columns, strict=True)
    cells = [" ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) for row in rows]
    return Column(header="\n".join(header), cells=[clipped(cell.rstrip(), room) for cell in cells])


def _labels(texts: list[str], width: int) -> list[str]:
    labels = labels_apart(texts, width)
    return [labels[text] for text in texts]


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


def _progress(view: StudyView, record: TrialRecord) -> str:
    if record.state is TrialState.WAITING:
        return ""
    is_told = view.config.trusts_function_with_budget and record.is_off_budget
    if (record.state is TrialState.COMPLETE and not is_told) or not record.budget_samples:
        return count(record.samples)
    return f"{count(record.samples)}/{count(record.budget_samples)}"


def worker_text(record: TrialRecord) -> str:
    """Return where a trial ran: `node:pid`."""
    if not record.worker:
        return ""
    return one_line(f"{record.worker.get('node', '?')}:{record.worker.get('pid', '?')}")
