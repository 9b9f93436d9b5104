"""The report as one HTML file that opens from disk: its sections, in order."""

import dataclasses
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from sweeper.config import dump_config
from sweeper.reporting import report_files
from sweeper.reporting.best import best_yaml, launch_command
from sweeper.reporting.figures import Figure
from sweeper.reporting.findings import Findings
from sweeper.reporting.formats import count, exact, jsonable, moment, percent, short
from sweeper.reporting.origins import warm_text
from sweeper.reporting.page_findings import evidence_section, params_section, replay_section, spent_section
from sweeper.reporting.page_tables import (
    benchmarks_section,
    decisions_table,
    environment_table,
    esc,
    grid_table,
    params_table,
    prose,
    trials_table,
)
from sweeper.reporting.plot_curves import curve_figures
from sweeper.reporting.plot_grid import grid_figure
from sweeper.reporting.plot_timeline import timeline_figure
from sweeper.reporting.summary import answer_sentences, savings_of
from sweeper.study.view import StudyView

SECTIONS = {
    "answer": "The answer",
    "grid": "Results over the search space",
    "curves": "Training curves",
    "evidence": "What early signals said",
    "timeline": "Timeline of slots",
    "spent": "Training spent",
    "replay": "Other pruners on this study",
    "params": "Importance of the params",
    "trials": "Trials",
    "benchmarks": "Benchmarks",
    "decisions": "Decisions",
    "environment": "Environment",
    "launch": "Launch the best config",
}


def report_page(view: StudyView, out: Path, findings: Findings) -> str:
    """Return the whole page. `out` is where best.yaml lies, for the command that launches it."""
    # Imported here: the 5 MB of plotly.js are read for this page alone.
    from plotly.offline import get_plotlyjs

    figures: list[Figure] = []

    def draw(figure: Figure) -> str:
        return _figure(figure, figures)

    bodies = {
        "answer": _answer(view),
        "grid": _grid(view, figures),
        "curves": _curves(view, figures),
        "evidence": evidence_section(view, findings, draw),
        "timeline": _timeline(view, figures),
        "spent": spent_section(view, draw),
        "replay": replay_section(view, draw),
        "params": params_section(view, findings, draw),
        "trials": trials_table(view),
        "benchmarks": benchmarks_section(view),
        "decisions": decisions_table(view),
        "environment": _environment(view),
        "launch": _launch(view, out),
    }
    sections = "\n".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>\n{bodies[key]}\n</section>'
        for key, title in SECTIONS.items()
        if bodies[key]
    )
    content = f"{_header(view, bodies)}\n<main>\n{sections}\n</main>\n{_footer(view)}"
    return _filled(
        {
            "title": esc(f"Study {view.name}"),
            "content": content,
            "figures": _embedded([dataclasses.asdict(figure) for figure in figures]),
            "plotly": get_plotlyjs(),
        }
    )


def _filled(parts: dict[str, str]) -> str:
    """Return the template with its parts, in one pass: what a part holds is never taken for a place."""
    template = resources.files("sweeper.reporting").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _embedded(content: object) -> str:
    """Return JSON that can stand in a script element: no `<` in it can end the element or open a comment."""
    text = json.dumps(jsonable(content), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _header(view: StudyView, bodies: Mapping[str, str]) -> str:
    links = "".join(
        f'<li><a href="#{key}">{title}</a></li>' for key, title in SECTIONS.items() if bodies[key]
    )
    created = f", created {esc(moment(view.created))}" if view.created else ""
    return (
        f"<header><h1>Study {esc(view.name)}</h1>"
        f'<p class="quiet">{esc(view.state)}{created}; {esc(view.config.direction)} '
        f"{esc(view.config.metric)}</p>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    )


def _footer(view: StudyView) -> str:
    version = view.versions.get("sweeper")
    written = f"sweeper {esc(version)}" if version else "sweeper"
    files = [
        report_files.MARKDOWN,
        report_files.TRIALS_CSV,
        report_files.TRIALS_PARQUET,
        report_files.JSON,
        *([report_files.BEST] if view.best else []),
    ]
    return f"<footer>Written by {written}. Beside this file: {', '.join(files)}.</footer>"


def _answer(view: StudyView) -> str:
    sentences = "".join(f"<p>{prose(sentence)}</p>" for sentence in answer_sentences(view))
    return f'<div class="answer">{sentences}</div>{_cards(view)}{params_table(view)}'


def _cards(view: StudyView) -> str:
    savings, best = savings_of(view), view.best
    warm = ", warm start" if best is not None and best.is_warm_started else ""
    n_ended = sum(record.state.is_finished for record in view.records)
    none = "none" if view.state == "finished" else "none yet"
    cards = {
        f"best {view.config.metric}{warm}": none if best is None else short(best.value),
        "saved by stopping early": percent(savings.saved_frac),
        "samples trained": count(savings.spent),
        "trials ended": f"{count(n_ended)} of {count(view.n_trials)}",
        "stopped early": count(view.n_stopped),
    }
    items = "".join(
        f"<div><dt>{esc(name)}</dt><dd>{prose(value)}</dd></div>" for name, value in cards.items()
    )
    return f'<dl class="cards">{items}</dl>'


def _figure(figure: Figure, figures: list[Figure]) -> str:
    """Return a plot's place on the page and remember the plot."""
    figures.append(figure)
    return (
        f'<figure><figcaption>{prose(figure.caption)}</figcaption><div class="plot" role="img" '
        f'data-figure="{len(figures) - 1}" style="min-height:{figure.height}px" '
        f'aria-label="{esc(figure.label)}"></div></figure>'
    )


def _grid(view: StudyView, figures: list[Figure]) -> str:
    figure = grid_figure(view)
    if figure is None:
        return "<p>No param varies between the trials.</p>"
    return _figure(figure, figures) + grid_table(view)


def _curves(view: StudyView, figures: list[Figure]) -> str:
    found, note = curve_figures(view)
    if not found:
        return "<p>No trial has reported yet.</p>"
    switch = (
        '<div class="switch" role="group" aria-label="Horizontal axis of the curves">'
        '<button type="button" value="samples" aria-pressed="true">by samples</button>'
        '<button type="button" value="steps" aria-pressed="false">by steps</button>'
        '<button type="button" value="times" aria-pressed="false">by time</button></div>'
    )
    text = "Dashed curves that end in ✕ were stopped early; ▲ marks a failure."
    text += " Click a legend entry to hide its trials. By time: seconds of training, spread evenly over a trial's "
    text += "steps; known of trials that have ended."
    notes = f"<p>{text}</p>" + (f"<p>{esc(note)}</p>" if note else "")
    return notes + switch + "".join(_figure(figure, figures) for figure in found)


def _timeline(view: StudyView, figures: list[Figure]) -> str:
    figure = timeline_figure(view)
    return "<p>No trial has started yet.</p>" if figure is None else _figure(figure, figures)


def _environment(view: StudyView) -> str:
    config = esc(dump_config(view.config))
    file = f"<details><summary>The resolved sweep file</summary><pre><code>{config}</code></pre></details>"
    return environment_table(view) + file


def _launch(view: StudyView, out: Path) -> str:
    best = view.best
    if best is None:
        return "<p>No trial is complete, so there is no best config to launch and no best.yaml.</p>"
    keeping = ", and keeps its model" if view.config.trial.function is None else ""
    result = f"{esc(view.config.metric)} was {esc(exact(best.value))}"
    warm = ""
    if best.is_warm_started:
        result += " after a warm start"
        warm = f"<p>Trial {best.number} {warm_text(best)}. "
        warm += "The command trains from scratch, which need not give that value.</p>"
    return (
        f"{warm}<p>This trains trial {best.number}'s config in full, without pruning{keeping} ({result}):</p>"
        f"<pre><code>{esc(launch_command(out))}</code></pre>"
        f"<details><summary>best.yaml</summary><pre><code>{esc(best_yaml(view, best))}</code></pre></details>"
    )
