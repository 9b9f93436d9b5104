"""The report's tables as HTML. Everything that comes from a study goes through `esc`."""

import html
import math
from collections.abc import Sequence
from typing import Any

from sweeper.params import is_number
from sweeper.records import TrialRecord
from sweeper.reporting.benchmarks import benchmark_cells, benchmark_table
from sweeper.reporting.formats import count, plural, short, spelled, verb
from sweeper.reporting.grid import trial_grid
from sweeper.reporting.origins import origin_text, warm_text
from sweeper.reporting.slots import slot_uses
from sweeper.reporting.status_table import worker_text
from sweeper.reporting.summary import result_of, trained_header, trial_state_text, varying_params
from sweeper.reporting.tables import decisions_of
from sweeper.storage_url import mask_url
from sweeper.study.control_records import ControlEvent
from sweeper.study.view import StudyView


def esc(value: object) -> str:
    """Return a value as text that HTML shows as it is, in attributes too."""
    return html.escape(str(value))


def prose(text: object) -> str:
    """Return what people read as HTML, in which no line ends between a number and its percent sign."""
    return esc(text).replace(" %", "&nbsp;%")


def params_table(view: StudyView) -> str:
    """Return the best trial's params; nothing where no trial is complete."""
    best = view.best
    if best is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td class="number">{esc(spelled(value))}</td></tr>'
        for name, value in best.params.items()
    )
    warm = f", which {warm_text(best)}" if best.is_warm_started else ""
    caption = f"Best config: the params of trial {best.number}{warm}"
    table = f"<table><caption><span>{caption}</span></caption><tbody>{rows}</tbody></table>"
    return _scroll(table, caption, kind="scroll params")


def grid_table(view: StudyView) -> str:
    """Return the heat map's cells as a table, for whoever cannot see the plot."""
    grid = trial_grid(view)
    if grid is None or not grid.is_table:
        return ""
    cells = {(cell.row, cell.column): cell.text or "waiting" for cell in grid.cells}
    corner = f"{grid.rows.name} / {grid.columns.name}" if grid.rows else grid.columns.name
    head = "".join(f'<th scope="col" class="number">{esc(label)}</th>' for label in grid.columns.labels)
    body = ""
    for row, label in enumerate(grid.rows.labels if grid.rows else [view.config.metric]):
        texts = [cells.get((row, column), "") for column in range(len(grid.columns.values))]
        body += f'<tr><th scope="row">{esc(label)}</th>'
        body += "".join(f'<td class="number">{esc(text)}</td>' for text in texts) + "</tr>"
    caption = f"{view.config.metric} by {corner}"
    head = f'<thead><tr><th scope="col">{esc(corner)}</th>{head}</tr></thead>'
    table = f"<table><caption><span>{esc(caption)}</span></caption>{head}<tbody>{body}</tbody></table>"
    return f"<details><summary>The same as a table</summary>{_scroll(table, caption)}</details>"


def benchmarks_section(view: StudyView) -> str:
    """Return what benchmarks gave, a row per model; empty where nothing was measured."""
    found = benchmark_table(view)
    if found is None:
        return ""
    header, rows = benchmark_cells(found)
    head = "".join(f'<th scope="col" class="number">{esc(name)}</th>' for name in header)
    body = ""
    for name, *texts in rows:
        cells = "".join(f'<td class="number">{esc(text)}</td>' for text in texts)
        body += f'<tr><th scope="row" class="number">{esc(name)}</th>{cells}</tr>'
    caption = "Benchmarks by trial"
    head = f"<caption><span>{caption}</span></caption><thead><tr>{head}</tr></thead>"
    return f"{_scroll(f'<table>{head}<tbody>{body}</tbody></table>', caption)}<p>{esc(found.note)}</p>"


def trials_table(view: StudyView) -> str:
    """Return all trials, sortable. A trial that is not COMPLETE has no value."""
    varying = varying_params(view)
    names = varying or list(dict.fromkeys(name for record in view.records for name in record.params))
    header = [("trial", True), ("state", False), *((name, _is_numeric(view, name)) for name in names)]
    header += [(view.config.metric, True)]
    header += [(trained_header(amount, names), True) for amount in ("steps", "samples")]
    has_origins = any(record.origin is not None for record in view.records)
    header += [*([("origin", False)] if has_origins else []), ("reason", False)]
    header += [("attempts", True), ("worker", False)]
    best = view.best
    rows = "".join(
        _trial_row(
            view,
            record,
            names,
            is_best=best is not None and record.number == best.number,
            has_origins=has_origins,
        )
        for record in view.records
    )
    told = "The only trial" if len(view.records) == 1 else f"All {count(len(view.records))} trials"
    caption = f"{told}. Click a heading to sort. Only complete trials have a value."
    return _sortable(header, rows, caption)


def _trial_row(
    view: StudyView, record: TrialRecord, names: list[str], *, is_best: bool, has_origins: bool
) -> str:
    cells = [
        _cell(record.number),
        f'<td class="state {record.state.value}">{trial_state_text(view, record)}</td>',
        *(_cell(record.params.get(name)) for name in names),
        _cell(result_of(record), blank=True),
        _cell(record.step),
        _cell(record.samples),
        *([f'<td class="origin">{esc(origin_text(record))}</td>'] if has_origins else []),
        f'<td class="long">{prose(record.reason or "")}</td>',
        _cell(record.attempts),
        f'<td class="worker">{esc(worker_text(record))}</td>',
    ]
    return f"<tr{' class=best' if is_best else ''}>{''.join(cells)}</tr>\n"


def decisions_table(view: StudyView) -> str:
    """Return every decision with its reason, sortable."""
    rows = [_decision_row(record, decision) for record, decision in decisions_of(view)]
    if not rows:
        return "<p>No decision was taken yet.</p>" + controls_table(view)
    header = [("trial", True), ("decision", False), ("rule", False), ("rung", True), ("samples", True)]
    header += [("trained s", True), ("samples saved", True)]
    caption = "The only decision with its reason"
    if len(rows) > 1:
        caption = f"All {count(len(rows))} decisions with their reasons, by trial"
    caption += ". Click a heading to sort."
    return _sortable([*header, ("reason", False)], "".join(rows), caption) + controls_table(view)


def controls_table(view: StudyView) -> str:
    """Return what people asked of the sweep while it ran, sortable; nothing where nobody did."""
    if not view.controls:
        return ""
    rows = "".join(_control_row(event) for event in view.controls)
    caption = (
        f"{plural(len(view.controls), 'request')} from outside, in the order in which they were acted on."
    )
    header = [("request", False), ("by", False), ("asked", False), ("outcome", False), ("what it did", False)]
    return _sortable(header, rows, caption)


def _control_row(event: ControlEvent) -> str:
    facts = event.as_dict()
    who = f"{facts['by']}, process {facts['pid']}"
    texts = [
        facts["request"],
        who,
        facts["at"],
        facts["outcome"] or "waits for a driver",
        facts["message"] or "",
    ]
    return f"<tr>{''.join(f'<td>{esc(text)}</td>' for text in texts)}</tr>\n"


def _decision_row(record: TrialRecord, decision: dict[str, Any]) -> str:
    cells = [
        _cell(record.number),
        f"<td>{verb(decision)}</td>",
        f"<td>{esc(decision.get('rule', ''))}</td>",
        _cell(decision.get("rung"), blank=True),
        _cell(decision.get("samples"), blank=True),
        _cell(decision.get("train_s"), blank=True),
        _cell(decision.get("saved_samples"), blank=True),
        f'<td class="long">{prose(decision.get("reason", ""))}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>\n"


def environment_table(view: StudyView) -> str:
    """Return the versions that the study ran with, where it is and what it ran on."""
    resources = view.config.resources
    nodes = sorted({str(r.worker.get("node", "?")) for r in view.records if r.worker})
    pairs = {
        **view.versions,
        **_last_session(view),
        "study directory": str(view.directory),
        "storage": "journal file in the study's directory"
        if view.config.storage is None
        else mask_url(view.config.storage),
        "nodes": ", ".join(nodes) or "none yet",
        "slots": str(_n_slots(view)),
        "cluster": _cluster(view),
        "workers of a trial": f"{resources.n_workers}"
        + (f", {resources.sharding}" if resources.sharding is not None else ""),
        "CPUs of a trial, threads of a worker": f"{resources.cpus_per_trial}, {resources.threads_per_worker}",
        "GPUs of a trial": "1 where there are any, else none"
        if resources.gpus_per_trial is None
        else short(resources.gpus_per_trial),
        "seed": str(view.config.seed),
    }
    return plain_table(["", ""], [[name, value] for name, value in pairs.items()], "What the study ran with")


def _cluster(view: StudyView) -> str:
    """Return where the last driver had its trials run."""
    session = view.environments[-1] if view.environments else {}
    if session.get("executor") == "in-process":
        return "none: trials ran in their driver's process"
    return view.config.resources.address or "started by sweeper"


def _n_slots(view: StudyView) -> int:
    """Return how many slots there were: of the driver that had the most, since the next one's may be the same."""
    of_session: dict[int, set[str]] = {}
    for use in slot_uses(view):
        of_session.setdefault(use.session, set()).add(use.slot)
    return max(map(len, of_session.values()), default=0)


def _last_session(view: StudyView) -> dict[str, str]:
    """Return what the last driver ran on, as far as it was recorded."""
    session = view.environments[-1] if view.environments else {}
    machine, code = session.get("machine") or {}, session.get("code")
    found = {"GPUs": ", ".join(machine.get("gpus") or []), "GPU driver": machine.get("driver") or ""}
    if code:
        changed = f", with changes {code['changes']}" if code.get("changes") else ""
        found["code"] = f"{code.get('repository')} at {str(code.get('commit'))[:12]}{changed}"
    return {name: text for name, text in found.items() if text}


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table of texts, which it escapes. The first cell of a row is its heading."""
    head = ""
    if any(header):
        head = "".join(f'<th scope="col">{esc(name)}</th>' if name else "<td></td>" for name in header)
        head = f"<thead><tr>{head}</tr></thead>"
    body = "".join(
        f'<tr><th scope="row">{prose(first)}</th>{"".join(f"<td>{prose(text)}</td>" for text in rest)}</tr>'
        for first, *rest in rows
    )
    table = f"<table><caption><span>{esc(caption)}</span></caption>{head}<tbody>{body}</tbody></table>"
    return _scroll(table, caption)


def _sortable(header: Sequence[tuple[str, bool]], rows: str, caption: str) -> str:
    """Return a table whose headings sort it. `header` says of each column whether it holds numbers."""
    head = "".join(
        f'<th scope="col"{" class=number" if is_numeric else ""}>'
        f'<button type="button">{_breakable(name)}</button></th>'
        for name, is_numeric in header
    )
    table = (
        f"<caption><span>{esc(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody>"
    )
    return _scroll(f"<table>{table}</table>", caption)


def _breakable(name: str) -> str:
    """Return a name that may be broken after an underscore: long headings make wide tables."""
    return esc(name).replace("_", "_<wbr>")


def _scroll(table: str, label: str, *, kind: str = "scroll") -> str:
    """Return a table that scrolls by itself, so that the page never does sideways; keys reach it."""
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{esc(label)}">{table}</div>'


def _cell(value: Any, *, blank: bool = False) -> str:
    """Return a value's cell with what it sorts by. None is blank, or the word where None is a value."""
    if value is None and blank:
        return '<td class="number" data-v=""></td>'
    if not is_number(value):
        return f"<td>{esc(short(value))}</td>"
    key = repr(value) if math.isfinite(value) else ""
    text = count(value) if isinstance(value, int) and value >= 10_000 else short(value)
    return f'<td class="number" data-v="{key}">{esc(text)}</td>'


def _is_numeric(view: StudyView, name: str) -> bool:
    return all(is_number(record.params.get(name)) for record in view.records)
