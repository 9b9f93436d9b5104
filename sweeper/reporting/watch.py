"""What `status --watch` shows in a terminal, from the study alone: the driver does not notice who looks."""

import datetime
import math
from collections.abc import Callable

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from sweeper.records import TrialRecord, TrialState, goodness_sign
from sweeper.reporting.formats import (
    clipped,
    count,
    duration,
    labels_apart,
    one_line,
    params_text,
    parse_time,
    plural,
    short,
    verb,
)
from sweeper.reporting.grid import TrialGrid, trial_grid
from sweeper.reporting.slots import slot_uses
from sweeper.reporting.status import best_text, header_text, training_text
from sweeper.reporting.status_table import STATE_STYLES
from sweeper.reporting.summary import result_of, varying_params
from sweeper.reporting.watch_bits import bar, sparkline
from sweeper.study.clock import wall_clock
from sweeper.study.view import StudyView

N_DECISIONS = 5
N_STANDING = 3  # trials named at a rung
MIN_RUNNING, MAX_RUNNING = 12, 60  # running trials that are listed: as many as the terminal has room for
WIDE = 120  # columns from which curves and params have room
_CELL = 8  # columns of a cell of the map, at least


class WatchView:
    """Slots with bars and curves, rung standings, the map of results, the newest decisions."""

    def __init__(self, view: StudyView, *, now: Callable[[], datetime.datetime] = wall_clock) -> None:
        self._view = view
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, width = self._view, options.max_width
        for line in (header_text(view, self._now()), best_text(view), training_text(view)):
            yield _fitted(line)
        running = [record for record in view.records if record.is_training]
        parts = {
            "rungs": rung_lines(view),
            "results": map_lines(view, width),
            "decisions": decision_lines(view, width),
        }
        # Above the parts stand three lines, and of the running trials a blank line, a header and a note.
        taken = 6 + sum(2 + len(lines) for lines in parts.values() if lines)
        room = min(MAX_RUNNING, max(MIN_RUNNING, options.max_height - taken))
        if running:
            yield Text()
            yield _running_table(view, running[:room], self._now(), width)
        if len(running) > room:
            yield _fitted(Text(f"and {plural(len(running) - room, 'more running trial')}", "dim"))
        for title, lines in parts.items():
            if lines:
                yield Text()
                yield Text(title, style="bold")
                yield from (_fitted(line) for line in lines)


def _fitted(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _running_table(view: StudyView, running: list[TrialRecord], now: datetime.datetime, width: int) -> Table:
    is_wide = width >= WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    names = ["slot", "trial", *(["params"] if is_wide else []), "samples", "", "left"]
    names += ["loss", "gradient norm"] if is_wide else ["loss"]
    for name in names:
        table.add_column(name, no_wrap=True)
    varying, earlier = varying_params(view), _earlier_s(view, running)
    for record in running:
        curve = view.curve(record.number)
        worker = record.worker or {}
        told = params_text({name: record.params.get(name) for name in varying})
        cells = [
            clipped(one_line(f"{worker.get('node', '?')}:{worker.get('pid', '?')}"), 20),
            str(record.number),
            *([clipped(told, width // 4)] if is_wide else []),
            _progress(record),
            bar(_frac(record), 20 if is_wide else 8),
            _left(record, earlier[record.number], now) if view.state == "running" else "",
            _signal(curve["loss"], record.last_loss, 24 if is_wide else 10),
        ]
        if is_wide:
            cells.append(_signal(curve["grad_norm"], record.last_grad_norm, 24))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _progress(record: TrialRecord) -> str:
    budget = f"/{count(record.budget_samples)}" if record.budget_samples else ""
    return f"{count(record.samples)}{budget}"


def _frac(record: TrialRecord) -> float:
    return min(1.0, record.samples / record.budget_samples) if record.budget_samples else 0.0


def _left(record: TrialRecord, earlier_s: float, now: datetime.datetime) -> str:
    """Return the time left at the trial's own pace so far, evaluations included, time between attempts not.

    Args:
        record: The trial.
        earlier_s: What its earlier attempts took.
        now: Until when the newest one has run, unless it has ended.
    """
    newest = record.history[-1] if record.history else {"started": record.started}
    started, frac = parse_time(newest.get("started")), record.own_frac
    if started is None or not frac:
        return ""
    spent = (parse_time(newest.get("ended")) or now) - started
    return duration((earlier_s + spent.total_seconds()) * (1 - frac) / frac)


def _earlier_s(view: StudyView, running: list[TrialRecord]) -> dict[int, float]:
    """Return the seconds that the attempts before the newest one took, by trial."""
    seconds = dict.fromkeys((record.number for record in running), 0.0)
    if any(len(record.history) > 1 for record in running):
        for use in slot_uses(view):
            if use.record.number in seconds and not use.is_last:
                seconds[use.record.number] += use.seconds
    return seconds


def _signal(values: pd.Series, last: float | None, width: int) -> str:
    """Return a signal's curve and its last value; nothing where the trial does not report it."""
    return "" if last is None else f"{sparkline(values, width)} {short(last)}".strip()


def rung_lines(view: StudyView) -> list[Text]:
    """Return for each rung who got there, who was stopped there, and who leads by the metric."""
    lines = []
    for rung in sorted({index for record in view.records for index in record.rungs}):
        there = [record for record in view.records if rung in record.rungs]
        n_stopped = sum(
            any(d.get("stop") and d.get("rung") == rung for d in record.decisions) for record in there
        )
        text = f"rung {rung} ({count(there[0].rungs[rung].mark)}): {plural(len(there), 'trial')}"
        text += f", {n_stopped} stopped"
        if standing := _standing(view, there, rung):
            text += f"; {one_line(view.config.metric)}: {standing}"
        lines.append(Text(text))
    return lines


def _standing(view: StudyView, there: list[TrialRecord], rung: int) -> str:
    sign = -goodness_sign(view.config.direction)
    metric = view.config.metric
    shown = ((sign * r.rungs[rung].signals.get(metric, math.nan), r) for r in there)
    known = [
        (value, record) for value, record in shown if math.isfinite(value)
    ]  # NaN has no place in an order
    first = sorted(known, key=lambda pair: (pair[0], pair[1].number))[:N_STANDING]
    return ", ".join(f"{short(sign * value)} (trial {record.number})" for value, record in first)


def map_lines(view: StudyView, width: int) -> list[Text]:
    """Return the heat map in characters; nothing where no two params vary or it would not fit.

    No number is cut; words are where they do not fit, but not so that two of them look alike.
    """
    grid = trial_grid(view)
    if grid is None or grid.rows is None or not grid.is_table:
        return []
    labels = [short(value) for value in grid.rows.values]
    left = max(len(label) for label in labels)
    cells = {(cell.row, cell.column): _map_cell(cell.record, view.best) for cell in grid.cells}
    heads, room = grid.columns.labels, (width - left - 2) // len(grid.columns.values)
    if not grid.columns.is_numeric:
        labels_of = labels_apart(heads, max(_CELL, room) - 1)
        heads = [labels_of[head] for head in heads]
    cell_width = 1 + max(_CELL - 1, *map(len, heads), *map(len, cells.values()))
    if cell_width > room or len(set(heads)) < len(set(grid.columns.labels)):
        return []
    lines = [Text(f"{one_line(grid.rows.name)} (down) by {one_line(grid.columns.name)}", style="dim")]
    lines.append(Text(" " * (left + 2) + "".join(f"{head:>{cell_width}}" for head in heads), "dim"))
    for row in reversed(range(len(labels))):
        line = Text(f"{labels[row]:>{left}}  ", style="dim")
        for column in range(len(heads)):
            cell = cells.get((row, column), Text())
            line.append(" " * (cell_width - len(cell))).append_text(cell)
        lines.append(line)
    return [*lines, *_others(grid)]


def _others(grid: TrialGrid) -> list[Text]:
    return [Text(f"best over {one_line(', '.join(grid.others))}", style="dim")] if grid.others else []


def _map_cell(record: TrialRecord, best: TrialRecord | None) -> Text:
    value = result_of(record)
    words = {
        TrialState.PRUNED: f"✕{max(record.rungs)}" if record.rungs else "✕",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "‖" if record.is_set_aside else "▶",
        TrialState.WAITING: "·",
    }
    text = short(value) if value is not None else words.get(record.state, "")
    is_best = best is not None and record.number == best.number
    style = f"{STATE_STYLES[record.state]}{' bold reverse' if is_best else ''}"
    return Text.assemble((f"{'*' if is_best else ''}{text}", f"not dim {style}"))


def decision_lines(view: StudyView, width: int) -> list[Text]:
    """Return the newest decisions with their reasons, the newest last."""
    decisions = [(str(d.get("at", "")), r.number, d) for r in view.records for d in r.decisions]
    newest = sorted(decisions, key=lambda entry: (entry[0], entry[1]))[-N_DECISIONS:]
    lines = []
    for _, number, decision in newest:
        place = f" at rung {decision['rung']}" if decision.get("rung") is not None else ""
        reason = one_line(str(decision.get("reason", "")))
        text = clipped(f"trial {number} {verb(decision)}{place}: {reason}", width)
        lines.append(Text(text, style="yellow" if decision.get("stop") else ""))
    return lines
