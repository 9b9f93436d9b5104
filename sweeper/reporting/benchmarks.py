"""Benchmarks side by side, one row per model, and their one number."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from sweeper.benchmarks.one_number import mean_score, rank_means
from sweeper.config.benchmark_models import BenchmarkSection, TaskBenchmark
from sweeper.reporting.formats import jsonable, short_float
from sweeper.study import layout
from sweeper.study.benchmark_records import Score, scores_of_trial
from sweeper.study.view import StudyView

_WAYS = {
    "mean": "The number is the mean of the benchmarks",
    "weighted": "The number is the weighted mean of the benchmarks",
    "rank_mean": "The number is the mean of a trial's ranks among the trials that have every benchmark; 1 is best",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One model's scores."""

    trial: int
    step: int | None  # of the checkpoint; None: the final model
    scores: Mapping[str, Score]
    together: Score | None  # None where a benchmark is missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkTable:
    """All that was measured."""

    names: tuple[str, ...]
    rows: tuple[BenchmarkRow, ...]  # by trial, its checkpoints before its final model
    section: BenchmarkSection

    @property
    def note(self) -> str:
        """Say how the one number is made."""
        words = _WAYS[self.section.score]
        if self.section.score == "weighted":
            words += f" ({', '.join(f'{name} {self.section.weight(name):g}' for name in self.section.names)})"
        if self.section.score != "rank_mean" and self.section.judged:
            words += ", with a judge's ratings divided by 10"
        return f"{words}. ± is a standard error."


def benchmark_table(view: StudyView) -> BenchmarkTable | None:
    """Return what was measured, in the trials and after them; None where nothing was."""
    scores = _scores(view)
    measured = dict.fromkeys(name for found in scores.values() for name in found)
    if not measured:
        return None
    section = view.config.benchmarks
    if section is None or not section.names:
        section = BenchmarkSection(tasks={name: TaskBenchmark() for name in measured})
    ranks = {}
    if section.score == "rank_mean":
        ranks = rank_means(
            section, {number: found for (number, step), found in scores.items() if step is None}
        )
    rows = []
    for (number, step), found in sorted(
        scores.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1] or 0)
    ):
        together = mean_score(section, found)
        if section.score == "rank_mean":
            together = ranks.get(number) if step is None else None
        rows.append(BenchmarkRow(trial=number, step=step, scores=found, together=together))
    names = tuple(dict.fromkeys([*(name for name in section.names if name in measured), *measured]))
    return BenchmarkTable(names=names, rows=tuple(rows), section=section)


def trial_benchmarks(view: StudyView) -> dict[int, dict[str, Any]]:
    """Return each measured trial's scores as JSON-able data, the number `score` among them."""
    table = benchmark_table(view)
    return {} if table is None else {row.trial: _row_json(row) for row in table.rows if row.step is None}


def benchmarks_json(view: StudyView) -> dict[str, Any]:
    """Return everything that was measured as JSON-able data, with how it was."""
    table = benchmark_table(view)
    if table is None:
        return {"way": None, "note": None, "models": []}
    return {
        "way": table.section.score,
        "note": table.note,
        "models": [
            {
                "trial": row.trial,
                "checkpoint": row.step,
                "benchmarks": {
                    name: _score_json(score) | {"facts": jsonable(score.facts)}
                    for name, score in row.scores.items()
                },
                "score": None if row.together is None else _score_json(row.together),
            }
            for row in table.rows
        ],
    }


def benchmark_cells(table: BenchmarkTable) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows as text."""
    header = ["trial", *table.names, "number"]
    rows = []
    for row in table.rows:
        name = str(row.trial) if row.step is None else f"{row.trial} at step {row.step}"
        rows.append(
            [name, *(score_text(row.scores.get(one)) for one in table.names), score_text(row.together)]
        )
    return header, rows


def benchmarks_text(table: BenchmarkTable) -> RenderableType:
    """Return the table for a terminal, with how its number is made."""
    header, rows = benchmark_cells(table)
    shown = Table(*header, box=box.SIMPLE)
    for row in rows:
        shown.add_row(*row)
    return Group(shown, table.note)


def score_text(score: Score | None) -> str:
    """Return a score with its standard error; empty where there is none."""
    if score is None:
        return ""
    error = f" ± {short_float(score.stderr)}" if math.isfinite(score.stderr) else ""
    return f"{short_float(score.value)}{error}"


def _scores(view: StudyView) -> dict[tuple[int, int | None], dict[str, Score]]:
    """Return scores by trial and checkpoint; what was measured later counts."""
    found: dict[tuple[int, int | None], dict[str, Score]] = {}
    for record in view.records:
        if own := scores_of_trial(record, layout.trial_dir(view.directory, record.number)):
            found[record.number, None] = own
    for run in view.benchmarks:
        found.setdefault((run.trial, run.step), {})[run.benchmark] = run.score
    return found


def _row_json(row: BenchmarkRow) -> dict[str, Any]:
    content = {name: _score_json(score) for name, score in row.scores.items()}
    return content if row.together is None else content | {"score": _score_json(row.together)}


def _score_json(score: Score) -> dict[str, Any]:
    facts = {"value": score.value, "stderr": score.stderr, "higher_is_better": score.higher_is_better}
    return {name: jsonable(value) for name, value in facts.items()}
