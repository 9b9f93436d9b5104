"""The report's page, read as HTML; `test_reporting_browser.py` looks at it in a browser."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from report_fixtures import make_config, make_record, make_view, view_of_5, view_of_16, view_of_many

from sweeper.records import Origin, TrialState
from sweeper.reporting import write_report
from sweeper.reporting.curve_lines import MAX_CURVES, thinned, trials_drawn
from sweeper.reporting.figures import NEUTRAL_LINE, Figure, colour_range
from sweeper.reporting.findings import findings_of
from sweeper.reporting.grid import trial_grid
from sweeper.reporting.page import SECTIONS
from sweeper.reporting.page_findings import evidence_section, replay_section
from sweeper.reporting.page_tables import decisions_table, trials_table
from sweeper.reporting.plot_curves import curve_figures
from sweeper.reporting.plot_evidence import evidence_figure
from sweeper.reporting.plot_grid import grid_figure
from sweeper.reporting.plot_params import importance_figure, parallel_figure
from sweeper.reporting.plot_points import points_figure
from sweeper.reporting.plot_spent import spent_figure
from sweeper.reporting.plot_timeline import timeline_figure
from sweeper.study.view import StudyView

EVIL = "<script>alert('x')</script>{{figures}}%{x}</td>"
VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Document(HTMLParser):
    """Elements, addresses, scripts and texts of a page; complains about elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        if where == "script":
            self.scripts.append(data)
        elif where != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def addresses(self) -> list[str]:
        return [value or "" for _, a in self.elements for name, value in a.items() if name in ("src", "href")]


def page_of(view: StudyView, folder: Path) -> Document:
    return Document(write_report(view, folder).read_text())


def evil_view() -> StudyView:
    config = make_config({EVIL: {"choice": [EVIL, "b"]}, "learning_rate": {"grid": [1e-4, 3e-4]}})
    config = config.model_copy(update={"metric": f"m{EVIL}"})
    records = [
        make_record(0, TrialState.COMPLETE, {EVIL: EVIL, "learning_rate": 1e-4}),
        make_record(1, TrialState.PRUNED, {EVIL: "b", "learning_rate": 1e-4}, stopped_at=0, reason=EVIL),
        make_record(2, TrialState.FAIL, {EVIL: EVIL, "learning_rate": 3e-4}, reason=EVIL),
        make_record(3, TrialState.RUNNING, {EVIL: "b", "learning_rate": 3e-4}),
    ]
    records[1].decisions[-1] |= {"rule": EVIL, "reason": EVIL}
    for record in records:
        record.worker = {"node": EVIL, "pid": EVIL}
    return make_view(records, config)


def figures_of(view: StudyView) -> list[Figure]:
    findings = findings_of(view)
    figures = [
        grid_figure(view),
        *curve_figures(view)[0],
        evidence_figure(findings.evidence, view.config.metric),
        timeline_figure(view),
        spent_figure(view),
        importance_figure(findings.importance),
        parallel_figure(view),
    ]
    return [figure for figure in figures if figure is not None]


def test_the_page_holds_plotly_once_and_asks_for_nothing_else(tmp_path: Path) -> None:
    document = page_of(view_of_16(), tmp_path)

    assert sum(script.count("plotly.js v") > 0 for script in document.scripts) == 1
    assert all(address.startswith("#") or address == "data:," for address in document.addresses())


def test_sections_come_in_order_and_the_answer_first(tmp_path: Path) -> None:
    document = page_of(view_of_16(), tmp_path)

    headings = [attributes["id"] for tag, attributes in document.elements if tag == "h2"]
    assert headings == [key for key in SECTIONS if key != "benchmarks"], "of which this study has none"
    assert "Trial 10 is best: accuracy = 0.9 (maximize), from 16 trials" in document.text


def test_the_page_says_why_there_is_no_best_trial(tmp_path: Path) -> None:
    config = make_config({"learning_rate": {"grid": [1e-4]}})
    record = make_record(0, TrialState.FAIL, {"learning_rate": 1e-4})

    document = page_of(make_view([record], config), tmp_path)

    assert "No trial of study tiny-batch-rate is complete" in document.text
    assert "FAIL (1 trial): RuntimeError: the data loader lost its worker" in document.text


def test_nothing_that_a_study_says_becomes_markup(tmp_path: Path) -> None:
    document = page_of(evil_view(), tmp_path)

    n_scripts = sum(tag == "script" for tag, _ in document.elements)
    assert n_scripts == sum(tag == "script" for tag, _ in page_of(view_of_16(), tmp_path).elements)
    assert EVIL in document.text


def test_nothing_that_a_study_says_becomes_markup_in_a_plot() -> None:
    view = evil_view()
    figures = figures_of(view)

    text = json.dumps([(figure.data, figure.layout) for figure in figures])

    assert "<script" not in text
    assert "&lt;script" in text


@pytest.mark.parametrize("view", [view_of_5(), view_of_16(), view_of_many(), evil_view()])
def test_plotly_accepts_every_figure(view: StudyView) -> None:
    for figure in figures_of(view):
        assert go.Figure(data=figure.data, layout=figure.layout).data


def cells_of(view: StudyView) -> list[list[Any]]:
    figure = grid_figure(view)
    assert figure is not None
    return list(figure.data[1]["z"])


def test_only_complete_trials_colour_a_cell() -> None:
    view = view_of_16()
    batches, rates = [8, 16, 32, 64], [1e-5, 1e-4, 3e-4, 1e-3]

    cells = cells_of(view)

    for record in view.records:
        row = batches.index(record.params["effective_batch_size"])
        column = rates.index(record.params["learning_rate"])
        assert cells[row][column] == (record.value if record.state is TrialState.COMPLETE else None)


def test_a_pruned_cell_says_at_which_rung() -> None:
    figure = grid_figure(view_of_16())

    assert figure is not None
    texts = [text for trace in figure.data for text in trace.get("text", [])]
    assert "pruned<br>at rung 0" in texts
    assert "pruned<br>after rung 1" in texts


def test_a_cell_shows_the_best_over_the_other_params() -> None:
    space = {
        "effective_batch_size": {"grid": [8, 16]},
        "learning_rate": {"grid": [1e-4, 3e-4]},
        "seed": {"grid": [0, 1]},
    }
    points = [
        {"effective_batch_size": b, "learning_rate": r, "seed": s}
        for b in (8, 16)
        for r in (1e-4, 3e-4)
        for s in (0, 1)
    ]
    records = [make_record(n, TrialState.COMPLETE, p, value=n / 10) for n, p in enumerate(points)]
    view = make_view(records, make_config(space))

    assert cells_of(view) == [[0.1, 0.3], [0.5, 0.7]]
    figure = grid_figure(view)
    assert figure is not None
    assert "seed vary too: each place shows the best trial over them" in figure.caption


def view_of_checkpoints() -> StudyView:
    """Three base models whose paths begin alike, each at two rates: 3 complete trials and 3 pruned ones."""
    paths = [f"/mnt/shared/models/meta-llama/checkpoint-000{number}" for number in (123, 456, 789)]
    config = make_config({"model": {"choice": paths}, "learning_rate": {"grid": [1e-4, 3e-4]}})
    points = [{"model": path, "learning_rate": rate} for path in paths for rate in (1e-4, 3e-4)]
    records = [
        make_record(n, TrialState.PRUNED, point, stopped_at=n // 2 % 2)
        if n % 2
        else make_record(n, TrialState.COMPLETE, point, value=n / 10)
        for n, point in enumerate(points)
    ]
    return make_view(records, config)


def test_values_that_begin_alike_are_told_apart_in_every_plot() -> None:
    view = view_of_checkpoints()

    heat_map, parallel = grid_figure(view), parallel_figure(view)
    legend = [trace["name"] for trace in curve_figures(view)[0][0].data if trace["x"] == [None]]

    assert heat_map is not None
    assert parallel is not None
    assert heat_map.layout["yaxis"]["ticktext"] == [f"…checkpoint-000{n}" for n in (123, 456, 789)]
    assert legend[:3] == [f"…llama/checkpoint-000{n}" for n in (123, 456, 789)]
    ticks = [note["text"] for note in parallel.layout["annotations"] if note["x"] == 0]
    assert ticks == [f"…oint-000{n}" for n in (123, 456, 789)]


def test_no_mark_of_a_stopped_trial_has_a_colour_of_the_scale() -> None:
    view = view_of_checkpoints()

    grid = trial_grid(view)
    assert grid is not None
    assert grid.rows is not None
    for figure in (grid_figure(view), points_figure(view, grid, grid.rows)):
        assert figure is not None
        crosses = [trace["marker"] for trace in figure.data if trace.get("marker", {}).get("symbol") == "x"]
        assert [marker["color"] for marker in crosses] == [NEUTRAL_LINE]
        assert "✕ marks a trial that was stopped early, which has no result." in figure.caption


def view_of_a_continued_trial() -> StudyView:
    """Two trials, of which the first was trained on beyond the others' budget and is better there."""
    points = [
        {"effective_batch_size": 8, "learning_rate": 1e-4},
        {"effective_batch_size": 16, "learning_rate": 3e-4},
    ]
    origin = Origin(by="me", continues=0, from_step=256, from_samples=2048)
    records = [
        make_record(0, TrialState.COMPLETE, points[0], value=0.7),
        make_record(1, TrialState.COMPLETE, points[1], value=0.8),
        make_record(2, TrialState.COMPLETE, points[0], value=0.9, origin=origin),
    ]
    space = {"effective_batch_size": {"grid": [8, 16]}, "learning_rate": {"grid": [1e-4, 3e-4]}}
    return make_view(records, make_config(space))


def test_a_trial_that_trains_another_one_on_is_neither_a_line_nor_on_the_colour_scale() -> None:
    view = view_of_a_continued_trial()

    heat_map, parallel = grid_figure(view), parallel_figure(view)

    assert heat_map is not None
    assert parallel is not None
    assert (heat_map.layout["coloraxis"]["cmin"], heat_map.layout["coloraxis"]["cmax"]) == (0.7, 0.8)
    assert not [text for trace in parallel.data for text in trace["hovertext"] if text.startswith("trial 2")]
    assert parallel.caption.endswith("Not compared, so not drawn: 1 trial that trained another one on.")


def test_without_a_result_there_is_no_colour_scale() -> None:
    config = make_config({"effective_batch_size": {"grid": [8, 16]}, "learning_rate": {"grid": [1e-4, 3e-4]}})
    records = [
        make_record(n, TrialState.PRUNED, {"effective_batch_size": b, "learning_rate": r}, stopped_at=0)
        for n, (b, r) in enumerate([(8, 1e-4), (16, 3e-4)])
    ]

    figure = grid_figure(make_view(records, config))

    assert figure is not None
    assert figure.layout["coloraxis"]["showscale"] is False


def test_an_outlier_does_not_take_the_whole_colour_scale() -> None:
    low, high = colour_range([1.0, 1.1, 1.2, 1.3, 1.4, 9e9])

    assert low == 1.0
    assert high < 3


def test_curves_of_a_large_study_are_a_named_part(tmp_path: Path) -> None:
    view = view_of_many()
    drawn = trials_drawn(view)

    assert len(drawn) == MAX_CURVES
    assert view.best in drawn
    assert "150 of 300 trials are drawn" in page_of(view, tmp_path).text


def view_of_rates(n_rates: int) -> StudyView:
    """A complete trial for each of many rates from 1e-5 on."""
    rates = [1e-5 * 1.5**place for place in range(n_rates)]
    config = make_config({"learning_rate": {"grid": rates}})
    records = [make_record(n, TrialState.COMPLETE, {"learning_rate": rate}) for n, rate in enumerate(rates)]
    return make_view(records, config)


def test_a_legend_that_lists_a_part_of_the_values_says_so() -> None:
    few, many = (curve_figures(view_of_rates(n))[0][0] for n in (12, 20))

    assert few.caption == "training loss"
    assert many.caption == "training loss; the legend lists one in 2 of 20 values of learning_rate"
    assert len([trace for trace in many.data if trace["x"] == [None]]) == 10


def test_what_is_drawn_evenly_stands_on_an_even_axis_though_one_draw_is_small() -> None:
    config = make_config(
        {"learning_rate": {"log_uniform": (1e-5, 1e-2)}, "weight_decay": {"uniform": (0.0, 0.3)}},
        sampler={"name": "random", "n_trials": 30},
    )
    points = [{"learning_rate": 1e-5 * 1.2**n, "weight_decay": 0.001 + 0.01 * n} for n in range(30)]
    view = make_view([make_record(n, TrialState.COMPLETE, point) for n, point in enumerate(points)], config)

    scatter, parallel = grid_figure(view), parallel_figure(view)

    assert scatter is not None
    assert parallel is not None
    axes = {
        axis["title"]["text"]: axis["type"] for axis in (scatter.layout["xaxis"], scatter.layout["yaxis"])
    }
    assert axes == {"learning_rate": "log", "weight_decay": "linear"}
    marks = [note["y"] for note in parallel.layout["annotations"] if note["x"] == 1]
    assert marks == pytest.approx([0, 6 / 29, 12 / 29, 18 / 29, 24 / 29, 1], abs=1e-4)


def test_a_finished_study_without_a_result_is_not_told_to_be_replayed() -> None:
    records = [
        dataclasses.replace(record, state=TrialState.FAIL, value=None) for record in view_of_16().records
    ]
    failed = make_view(records, view_of_16().config)

    assert replay_section(failed, str) == "<p>Nothing to replay: no trial was trained to its end.</p>"
    assert "sweeper replay" in replay_section(view_of_16(), str)


def test_where_nothing_was_pruned_the_evidence_says_nothing_of_pruning() -> None:
    point = {"effective_batch_size": 32}
    rates = [1e-5 * 2**n for n in range(8)]
    config = make_config({"learning_rate": {"grid": rates}})
    complete = [
        make_record(n, TrialState.COMPLETE, {"learning_rate": r} | point) for n, r in enumerate(rates)
    ]
    pruned = make_record(8, TrialState.PRUNED, {"learning_rate": 1.0} | point, stopped_at=0)
    views = [make_view(records, config) for records in (complete, [*complete, pruned])]

    pages = [evidence_section(view, findings_of(view), lambda figure: figure.label) for view in views]

    assert ["after much pruning" in page for page in pages] == [False, True]


def test_no_line_of_the_page_ends_between_a_number_and_its_percent_sign(tmp_path: Path) -> None:
    page = write_report(view_of_16(), tmp_path).read_text()
    read, _, _ = page.partition("<script")

    assert "&nbsp;%" in read
    assert " %<" not in read
    assert " %;" not in read
    assert "created 2026-11-03 12:00:00 UTC;" in read


def test_powers_of_ten_on_an_axis_are_spelled_as_in_a_sweep_file() -> None:
    figure = grid_figure(view_of_rates(20))

    assert figure is not None
    assert figure.layout["xaxis"]["ticktext"] == ["1e-5", "1e-4", "1e-3", "0.01", "0.1"]
    assert figure.layout["yaxis"]["exponentformat"] == "e"


def test_thinning_keeps_the_last_step_and_the_highest_loss() -> None:
    view = view_of_16()
    table = view.curve(5).copy()
    table.loc[61, "loss"] = 99.0

    rows = thinned(table, 20)

    assert len(rows) <= 20
    assert rows["loss"].max() == 99.0
    assert rows["step"].iloc[-1] == table["step"].iloc[-1]


def test_curves_can_be_switched_to_steps() -> None:
    view = view_of_16()
    figures, _ = curve_figures(view)

    assert len(figures) == 3
    for figure in figures:
        drawn = [
            (trace, steps)
            for trace, steps in zip(figure.data, figure.extra["steps"], strict=True)
            if trace["x"] != [None]  # an entry of the legend
        ]
        assert len(drawn) >= 16
        assert all(steps and len(steps) == len(trace["x"]) for trace, steps in drawn)
    losses = figures[0]
    at = [trace.get("name") for trace in losses.data].index("trial 5")
    assert losses.extra["steps"][at] == view.curve(5)["step"].tolist()
    assert losses.data[at]["x"] == view.curve(5)["samples"].tolist()


def test_the_command_that_launches_the_best_config_is_on_the_page(tmp_path: Path) -> None:
    document = page_of(view_of_16(), tmp_path / "a report")

    assert f"sweeper launch '{tmp_path}/a report/best.yaml'" in document.text


def test_a_study_of_one_trial_is_told_in_the_singular() -> None:
    config = make_config({"learning_rate": {"grid": [1e-4]}})
    view = make_view([make_record(0, TrialState.COMPLETE, {"learning_rate": 1e-4})], config)
    (decision,) = view.records[0].decisions[:1]
    view.records[0].decisions[:] = [decision]

    assert "<span>The only trial. Click a heading" in trials_table(view)
    assert "<span>The only decision with its reason. Click a heading" in decisions_table(view)


def test_every_table_has_a_caption_and_every_plot_a_label(tmp_path: Path) -> None:
    document = page_of(view_of_16(), tmp_path)

    tags = [tag for tag, _ in document.elements]
    plots = [attributes for _, attributes in document.elements if attributes.get("class") == "plot"]
    assert tags.count("caption") == tags.count("table")
    assert len(plots) == 9
    assert all(plot["aria-label"] for plot in plots)


@pytest.mark.slow
def test_the_page_of_2000_trials_is_below_10_mb(tmp_path: Path) -> None:
    assert write_report(view_of_many(2000), tmp_path).stat().st_size < 10_000_000
