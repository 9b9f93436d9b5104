"""What `sweeper status` says: a dict for programs, a table for a terminal."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from sweeper.records import Origin, TrialRecord, goodness_sign
from sweeper.reporting.benchmarks import trial_benchmarks
from sweeper.reporting.driver import driver_json, silence
from sweeper.reporting.formats import count, jsonable, one_line, params_text, percent, plural, short
from sweeper.reporting.origins import warm_text
from sweeper.reporting.status_table import trial_table
from sweeper.reporting.summary import counts_text, off_budget_sentences, result_of, savings_of
from sweeper.study.clock import wall_clock
from sweeper.study.failed import failures_left
from sweeper.study.view import StudyView

MAX_ROWS = 60  # a table that still can be scrolled through; `--json` has every trial


def status_json(view: StudyView) -> dict[str, Any]:
    """Return the study's status as strict JSON. The value of a trial that is not COMPLETE is null."""
    best, measured = view.best, trial_benchmarks(view)
    return {
        "study": view.name,
        "state": view.state,
        "driver": driver_json(view),
        "metric": view.config.metric,
        "direction": view.config.direction,
        "trials": [trial_json(record, measured.get(record.number)) for record in view.records],
        "best": None if best is None else trial_json(best, measured.get(best.number)),
        "controls": [jsonable(event.as_dict()) for event in view.controls],
        "paused_by": view.paused_by,
        "max_concurrent": view.max_concurrent,
    }


def trial_json(record: TrialRecord, measured: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return one trial as `status --json` lists it; `measured` is what benchmarks gave."""
    row = {
        "number": record.number,
        "state": record.state.value,
        "is_set_aside": record.is_set_aside,
        "point_id": record.point_id,
        "params": record.params,
        "value": result_of(record),
        "steps": record.step,
        "samples": record.samples,
        "reason": record.reason,
        "attempts": record.attempts,
        "worker": record.worker,
        "started": record.started,
        "ended": record.ended,
        **({} if measured is None else {"benchmarks": measured}),
        **({} if record.origin is None else {"origin": origin_json(record.origin)}),
    }
    return {name: jsonable(value) for name, value in row.items()}


def origin_json(origin: Origin) -> dict[str, Any]:
    """Return where a trial comes from that somebody added, as far as it is set."""
    defaults = {field.name: field.default for field in dataclasses.fields(origin)}
    return {name: value for name, value in dataclasses.asdict(origin).items() if value != defaults[name]}


def status_text(view: StudyView) -> "StatusText":
    """Return the study's status for a rich console of any width."""
    return StatusText(view)


class StatusText:
    """A header, the best trial, the training spent and a table of trials, cut to the console's width."""

    def __init__(self, view: StudyView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self._view
        yield header_text(view)
        yield best_text(view)
        yield training_text(view)
        if (failed := failures_left(view.records)) and view.state != "running":
            yield failed_text(len(failed))
        for sentence in off_budget_sentences(view):
            yield Text(sentence, style="yellow")
        shown = rows_shown(view)
        yield Text()
        yield trial_table(view, shown, options.max_width)
        if len(shown) < len(view.records):
            yield Text(
                f"{plural(len(view.records) - len(shown), 'more trial')} not shown; "
                "`sweeper status --json` and the report list all.",
                style="dim",
            )


def state_text(view: StudyView) -> str:
    """Return the study's state, with what keeps trials of it from being started."""
    held = [f"paused by {one_line(view.paused_by)}"] if view.paused_by is not None else []
    if view.max_concurrent is not None:
        held.append(f"at most {view.max_concurrent} at a time")
    return view.state if view.state == "finished" else ", ".join([view.state, *held])


def header_text(view: StudyView, now: datetime.datetime | None = None) -> Text:
    """Return the study's name, its state, its trials by state, and a driver that seems to be gone."""
    header = Text.assemble((view.name, "bold"), f": {state_text(view)}; {counts_text(view)}")
    silent = silence(view, now or wall_clock())
    if silent is not None and view.driver is not None:
        who = one_line(f"process {view.driver.pid} on {view.driver.host}")
        header.append(f"; no sign of life from its driver, {who}, for {silent}", style="yellow")
    return header


def best_text(view: StudyView) -> Text:
    """Return the best trial with its value and params."""
    best = view.best
    if best is None:
        return Text("best: none, since no trial is complete")
    text = f"best: trial {best.number}, {one_line(view.config.metric)} = {short(best.value)}"
    text += f", {warm_text(best)}" if best.is_warm_started else ""
    return Text(f"{text} ({params_text(best.params)})")


def training_text(view: StudyView) -> Text:
    """Return the training spent and saved so far."""
    savings = savings_of(view)
    return Text(
        f"trained: {count(savings.spent)} of {count(savings.full)} samples ({percent(savings.spent_frac)}); "
        f"saved by pruning: {count(savings.saved)} ({percent(savings.saved_frac)})"
    )


def failed_text(n_failed: int) -> Text:
    """Return how trials that failed are trained after all."""
    return Text(
        f"failed: {plural(n_failed, 'trial')}; with its cause mended, `sweeper resume --retry-failed` trains them again"
    )


def rows_shown(view: StudyView) -> list[TrialRecord]:
    """Return the trials to list: all, or in a large study the ones that matter now, by number.

    These are the running ones, the best ten, and then those that ended last.
    """
    records = list(view.records)
    if len(records) <= MAX_ROWS:
        return records
    sign = -goodness_sign(view.config.direction)
    complete = [record for record in records if result_of(record) is not None]
    chosen = [record for record in records if record.is_training]
    chosen += sorted(complete, key=lambda record: sign * (record.value or 0.0))[:10]
    chosen += sorted(records, key=lambda record: record.ended or "", reverse=True)
    unique = {record.number: record for record in chosen}
    return sorted(list(unique.values())[:MAX_ROWS], key=lambda record: record.number)
