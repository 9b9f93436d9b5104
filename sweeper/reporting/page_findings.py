"""The report's sections on what was found beside the result: early signals, params, training spent."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeper.evidence_text import audit_sentence, correlation_text, evidence_sentences, nothing_to_tell
from sweeper.pruners.evidence import Evidence
from sweeper.reporting.figures import Figure
from sweeper.reporting.findings import Findings
from sweeper.reporting.formats import count, one_line, percent, short
from sweeper.reporting.kept import kept_replay
from sweeper.reporting.page_tables import esc, plain_table, prose
from sweeper.reporting.plot_evidence import evidence_figure
from sweeper.reporting.plot_params import importance_figure, parallel_figure
from sweeper.reporting.plot_replay import replay_figure, replay_rows
from sweeper.reporting.plot_spent import spent_figure, spent_parts
from sweeper.reporting.summary import savings_of, training_sentence
from sweeper.study.view import StudyView

Draw = Callable[[Figure], str]  # returns a plot's place on the page


def evidence_section(view: StudyView, findings: Findings, draw: Draw) -> str:
    """Return what the early signals said: in words, as a plot and as a table."""
    found = findings.evidence
    figure = evidence_figure(found, view.config.metric)
    audited = f"<p>{prose(audit)}</p>" if (audit := audit_sentence(view)) else ""
    if figure is None:
        return f"<p>{esc(nothing_to_tell(view))}</p>{audited}"
    items = "".join(f"<li>{prose(sentence)}</li>" for sentence in evidence_sentences(found))
    meant = "Each signal's first number is its rank correlation with the result; its interval of 95 % and the trials "
    meant += "that it stands on follow."
    told = f"<p>{esc(meant)}</p><ul>{items}</ul>{audited}"
    note = "<p>Only complete trials have a result to compare with, so after much pruning this describes the "
    note += "better part of the grid.</p>"
    note = note if view.n_stopped else ""
    return told + note + draw(figure) + _details(_evidence_table(found, view.config.metric))


def _evidence_table(found: Sequence[Evidence], metric: str) -> str:
    header = ["at", "signal", "all trials", "within one batch", "within one rate", "beside rate and batch"]
    rows = [
        [
            one.place,
            one.signal,
            *(correlation_text(c) for c in (one.overall, one.within_batch, one.within_rate, one.partial)),
        ]
        for one in found
    ]
    return plain_table(
        header, rows, f"Rank correlation of early signals with the final {metric}, 95 % intervals"
    )


def spent_section(view: StudyView, draw: Draw) -> str:
    """Return the training spent against the full grid, as a plot and as a table."""
    full = savings_of(view).full
    rows = [[name, count(n), percent(n / full if full else 0.0)] for name, n in spent_parts(view).items()]
    rows.append(["every trial in full", count(full), percent(1.0)])
    figure = spent_figure(view)
    table = plain_table(["", "samples", "share"], rows, "Training samples by what became of them")
    return f"<p>{prose(training_sentence(view))}</p>" + (draw(figure) if figure else "") + table


def params_section(view: StudyView, findings: Findings, draw: Draw) -> str:
    """Return the params' importance and the trials over parallel axes."""
    importance = findings.importance
    figures = [importance_figure(importance), parallel_figure(view)]
    note = "" if importance.shares else f"<p>{prose(importance.note)}</p>"
    if importance.shares:
        rows = [[name, percent(share)] for name, share in importance.shares.items()]
        table = _details(plain_table(["param", "share"], rows, "Importance of the params"))
    else:
        table = ""
    drawn = [draw(figure) for figure in figures if figure is not None]
    return note + (drawn[0] + table + "".join(drawn[1:]) if importance.shares else "".join(drawn))


def replay_section(view: StudyView, draw: Draw) -> str:
    """Return what other pruners would have spent and lost, as far as `sweeper replay` was asked."""
    document = kept_replay(view.directory)
    if document is None or not document["results"]:
        if view.state == "finished" and not view.compared:
            return "<p>Nothing to replay: no trial was trained to its end.</p>"
        return (
            "<p>Not asked yet. Once most trials have been trained to their end, "
            f"<code>sweeper replay {esc(shlex.quote(str(view.directory)))} --pruner early_dynamics --pruner median"
            "</code> says what other pruners would have saved and lost, and the next report shows it here.</p>"
        )
    table = plain_table(
        ["", "pruner", "training spent", "hits", "mean regret", "on the front"],
        replay_rows(document),
        "Pruners replayed on this study",
    )
    return f"<p>{esc(_replay_told(view, document))}</p>" + draw(replay_figure(document)) + table


def _replay_told(view: StudyView, document: Mapping[str, Any]) -> str:
    """Say what was played, by which metric, and what counts as a hit."""
    first = document["results"][0]
    played, own = (
        f"{one_line(str(metric))} ({direction})"
        for metric, direction in (
            (document.get("metric", "?"), document.get("direction", "?")),
            (view.config.metric, view.config.direction),
        )
    )
    other = "" if played == own else f", not by the study's own metric {own}"
    return (
        f"{document.get('points', '?')} recorded trials in {first.get('orders', '?')} random orders on "
        f"{document.get('slots', '?')} slots, judged by {played}{other}. A hit: the final choice is within "
        f"{short(first.get('tolerance', '?'))} of the best."
    )


def _details(table: str) -> str:
    return f"<details><summary>The same as a table</summary>{table}</details>"
