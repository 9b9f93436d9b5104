"""Trials as cells over two params: what the heat map and the Markdown table show. Pure."""

import dataclasses
import functools
from typing import Any

from sweeper.params import is_number
from sweeper.records import Direction, TrialRecord, TrialState, goodness_sign
from sweeper.reporting.formats import exact, short
from sweeper.reporting.summary import TO_GO_ON, is_to_go_on, pruned_text, result_of, varying_params
from sweeper.study.view import StudyView

PREFERRED = ("effective_batch_size", "learning_rate")  # rows, columns
MAX_CATEGORIES = 24  # values of one param beyond which a table of cells is not readable

# Which trial a cell shows when several share it: a result, then what came closest to one.
_SHOWN_FIRST = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.RUNNING,
    TrialState.FAIL,
    TrialState.WAITING,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """One param with the values that trials had, ascending where they are numbers."""

    name: str
    values: tuple[Any, ...]
    is_even: bool = False  # drawn evenly between its bounds

    @property
    def labels(self) -> list[str]:
        return [short(value) for value in self.values]

    @functools.cached_property  # asked for every point of a plot
    def is_numeric(self) -> bool:
        return all(is_number(value) for value in self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of the two params' values."""

    row: int
    column: int
    record: TrialRecord  # the one that is shown
    n_trials: int  # how many share the cell; a warm-started one counts only among its like
    is_to_go_on: bool = False  # it had begun when the study was interrupted

    @property
    def text(self) -> str:
        """What the cell says of its trial: its result and whether its params alone gave that, or why it has none."""
        record = self.record
        match record.state:
            case TrialState.COMPLETE:
                value = result_of(record)
                warm = " (warm start)" if record.is_warm_started else ""
                return "no value" if value is None else f"{short(value)}{warm}"
            case TrialState.PRUNED:
                return pruned_text(record)
            case TrialState.FAIL:
                return "failed"
            case TrialState.RUNNING:
                return TO_GO_ON if self.is_to_go_on else "running"
            case _:
                return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialGrid:
    """All cells that have a trial. `rows` is None where only one param varies."""

    rows: Axis | None
    columns: Axis
    cells: tuple[Cell, ...]
    others: tuple[str, ...]  # params that vary beside the two; a cell shows the best over them

    @property
    def is_table(self) -> bool:
        """Whether each axis has few enough values to be a table's."""
        n_rows = len(self.rows.values) if self.rows else 1
        return max(n_rows, len(self.columns.values)) <= MAX_CATEGORIES


def trial_grid(view: StudyView) -> TrialGrid | None:
    """Return the trials over batch and rate where both vary, else over the first params that do.

    None where no param varies.
    """
    varying = varying_params(view)
    if not varying:
        return None
    names = list(PREFERRED) if set(PREFERRED) <= set(varying) else varying[:2]
    columns = _axis(view, names[-1])
    rows = _axis(view, names[0]) if len(names) == 2 else None
    groups: dict[tuple[int, int], list[TrialRecord]] = {}
    places = [_places(axis) for axis in (rows, columns)]
    for record in view.records:
        row = places[0].get(exact(record.params.get(names[0])), 0)
        column = places[1][exact(record.params.get(names[-1]))]
        groups.setdefault((row, column), []).append(record)
    cells = tuple(_cell(row, column, records, view) for (row, column), records in sorted(groups.items()))
    others = tuple(name for name in varying if name not in names)
    return TrialGrid(rows=rows, columns=columns, cells=cells, others=others)


def _axis(view: StudyView, name: str) -> Axis:
    values = list({exact(r.params.get(name)): r.params.get(name) for r in view.records}.values())
    if all(is_number(value) for value in values):
        values.sort()
    return Axis(name=name, values=tuple(values), is_even=is_even(view, name))


def is_even(view: StudyView, name: str) -> bool:
    """Whether a param is drawn evenly between its bounds: how its values lie is not seen on a scale of powers."""
    dimension = view.config.search_space.get(name)
    return dimension is not None and dimension.kind in ("uniform", "int") and not dimension.log


def _places(axis: Axis | None) -> dict[str, int]:
    return {} if axis is None else {exact(value): place for place, value in enumerate(axis.values)}


def _cell(row: int, column: int, records: list[TrialRecord], view: StudyView) -> Cell:
    shown = _shown(records, view.config.direction)
    n_trials = sum(record.is_warm_started == shown.is_warm_started for record in records)
    return Cell(
        row=row, column=column, record=shown, n_trials=n_trials, is_to_go_on=is_to_go_on(view, shown.state)
    )


def _shown(records: list[TrialRecord], direction: Direction) -> TrialRecord:
    sign = -goodness_sign(direction)

    def key(record: TrialRecord) -> tuple[int, bool, bool, float, int, int]:
        value = result_of(record)
        worst = float("inf")
        return (
            _SHOWN_FIRST.index(record.state),
            record.is_continued,  # one that is compared first
            record.is_warm_started,  # what the params of the cell gave, and no others before them
            worst if value is None else sign * value,
            -record.samples,
            record.number,
        )

    return min(records, key=key)
