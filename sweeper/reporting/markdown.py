"""The report as Markdown, to paste into a pull request."""

import re
from collections import Counter
from collections.abc import Sequence

from sweeper.records import TrialRecord, goodness_sign
from sweeper.reporting.benchmarks import benchmark_cells, benchmark_table
from sweeper.reporting.formats import count, duration, moment, one_line, percent, plural, short, spelled, verb
from sweeper.reporting.grid import Cell, TrialGrid, trial_grid
from sweeper.reporting.origins import origin_text
from sweeper.reporting.summary import (
    answer_sentences,
    result_of,
    savings_of,
    trained_header,
    trial_state_text,
    untrained_text,
    varying_params,
)
from sweeper.reporting.tables import decisions_of
from sweeper.study.view import StudyView

MAX_ROWS = 20

_SPECIAL = re.compile(r"([\\`*\[\]|~])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def report_markdown(view: StudyView) -> str:
    """Return the answer, the grid, the best trials, the decisions by rule and the training spent."""
    parts = [
        f"# Study {escaped(view.name)}",
        _answer(view),
        _grid_section(view),
        _trials_section(view),
        _benchmarks_section(view),
        _decisions_section(view),
        _spent_section(view),
        _versions(view),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in a table's cell too."""
    text = "".join(_ENTITIES.get(character, character) for character in one_line(text))
    return _SPECIAL.sub(r"\\\1", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a Markdown table of texts, which it escapes. `right` lists the right-aligned columns."""
    rule = ["---:" if index in right else "---" for index in range(len(header))]
    lines = [[escaped(text) for text in header], rule, *([escaped(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _answer(view: StudyView) -> str:
    sentences = "\n\n".join(escaped(sentence) for sentence in answer_sentences(view))
    best = view.best
    if best is None:
        return sentences
    rows = [[name, spelled(value)] for name, value in best.params.items()]
    return f"{sentences}\n\n{table(['best params', 'value'], rows, right=[1])}"


def _grid_section(view: StudyView) -> str:
    grid = trial_grid(view)
    if grid is None or not grid.is_table:
        return ""
    title = f"{grid.rows.name} x {grid.columns.name}" if grid.rows else grid.columns.name
    text = f"## {escaped(view.config.metric)} by {escaped(title)}\n\n{_grid_table(grid, view.best)}"
    if grid.others:
        text += "\n\n" + escaped(f"Each cell is the best over {', '.join(grid.others)}.")
    return text


def _grid_table(grid: TrialGrid, best: TrialRecord | None) -> str:
    row_labels = grid.rows.labels if grid.rows else ["all trials"]
    cells = {(cell.row, cell.column): _cell(cell, best) for cell in grid.cells}
    corner = f"{grid.rows.name} / {grid.columns.name}" if grid.rows else grid.columns.name
    rows = [
        [label, *(cells.get((row, column), "") for column in range(len(grid.columns.values)))]
        for row, label in enumerate(row_labels)
    ]
    return table([corner, *grid.columns.labels], rows, right=range(1, len(grid.columns.values) + 1))


def _cell(cell: Cell, best: TrialRecord | None) -> str:
    text = cell.text or "waiting"
    if best is None or cell.record.number != best.number:
        return text
    return text.replace(" (warm", " (best, warm") if best.is_warm_started else f"{text} (best)"


def _trials_section(view: StudyView) -> str:
    records = ranked(view)[:MAX_ROWS]
    names = varying_params(view) or list(view.config.search_space)
    has_origins = any(record.origin is not None for record in view.records)
    header = ["trial", "state", *names, view.config.metric, trained_header("samples", names)]
    header += [*(["origin"] if has_origins else []), "reason"]
    rows = [
        [
            str(record.number),
            trial_state_text(view, record),
            *(short(record.params.get(name)) for name in names),
            "" if (value := result_of(record)) is None else short(value),
            count(record.samples),
            *([origin_text(record)] if has_origins else []),
            record.reason or "",
        ]
        for record in records
    ]
    title = "## Trials, best first"
    if len(records) < len(view.records):
        title += f" ({len(records)} of {count(len(view.records))})"
    n_params = len(names)
    return f"{title}\n\n{table(header, rows, right=[0, *range(2, 4 + n_params)])}"


def _benchmarks_section(view: StudyView) -> str:
    found = benchmark_table(view)
    if found is None:
        return ""
    header, rows = benchmark_cells(found)
    return f"## Benchmarks\n\n{table(header, rows, right=range(1, len(header)))}\n\n{escaped(found.note)}"


def ranked(view: StudyView) -> list[TrialRecord]:
    """Return the trials with the best result first, then those without one by how far they came.

    Those that train another one on have results that are held against none, and come between the two.
    """
    sign = -goodness_sign(view.config.direction)

    def key(record: TrialRecord) -> tuple[bool, bool, float, int, int]:
        value = result_of(record)
        return (value is None, not record.is_compared, sign * (value or 0.0), -record.samples, record.number)

    return sorted(view.records, key=key)


def _decisions_section(view: StudyView) -> str:
    decisions = [decision for _, decision in decisions_of(view)]
    controls = _controls_table(view)
    if not decisions:
        return f"## Decisions\n\n{controls}" if controls else ""
    found = Counter((str(decision.get("rule")), verb(decision)) for decision in decisions)
    rules = sorted({rule for rule, _ in found})
    verbs = {"pruned": "stopped a trial", "set aside": "set it aside", "goes on": "let it go on"}
    rows = [[rule, *(count(found[rule, done]) for done in verbs)] for rule in rules]
    text = f"## Decisions\n\n{table(['rule', *verbs.values()], rows, right=[1, 2, 3])}"
    return f"{text}\n\n{controls}" if controls else text


def _controls_table(view: StudyView) -> str:
    """Return what people asked of the sweep; empty where nobody did."""
    if not view.controls:
        return ""
    events = [event.as_dict() for event in view.controls]
    rows = [
        [str(event[name] or "") for name in ("request", "by", "at", "outcome", "message")] for event in events
    ]
    return table(["asked from outside", "by", "when", "outcome", "what it did"], rows, right=[])


def _spent_section(view: StudyView) -> str:
    savings = savings_of(view)
    rows = [
        ["trained", count(savings.spent), percent(savings.spent_frac)],
        ["saved by stopping early", count(savings.saved), percent(savings.saved_frac)],
        [untrained_text(view), count(savings.not_trained), percent(savings.not_trained_frac)],
        ["every trial in full", count(savings.full), "100 %"],
    ]
    train_s = sum(record.train_s for record in view.records)
    evaluation_s = sum(record.evaluation_s for record in view.records)
    n_retried = sum(record.attempts > 1 for record in view.records)
    text = f"Training took {duration(train_s)} and evaluation {duration(evaluation_s)}, all slots together."
    if n_retried:
        text += f" {plural(n_retried, 'trial')} had more than one attempt."
    return f"## Training spent\n\n{table(['', 'samples', 'share'], rows, right=[1, 2])}\n\n{text}"


def _versions(view: StudyView) -> str:
    pairs = [f"{name} {version}" for name, version in view.versions.items()]
    made = [] if view.created is None else [f"study of {moment(view.created)}"]
    states = [] if view.state == "finished" else [f"the study is {view.state}"]
    return escaped("; ".join([*states, *made, *([", ".join(pairs)] if pairs else [])]))
