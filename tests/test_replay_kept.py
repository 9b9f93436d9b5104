"""What a replay leaves for the report: the last one of a study, as a Pareto plot."""

import dataclasses
import json

import pytest
from recorded_sweeps import make_recorded
from report_fixtures import view_of_5

from sweeper.errors import SweeperError
from sweeper.reporting import write_report
from sweeper.reporting.kept import REPLAY_FILE, keep_replay, kept_replay
from sweeper.reporting.plot_replay import pareto_front, replay_figure, replay_rows
from sweeper.study.recorded_files import write_recorded


def result(pruner, cost, hit, regret=0.1):
    return {"pruner": pruner, "cost": cost, "hit": hit, "regret": regret, "orders": 3, "tolerance": 0.02}


DOCUMENT = {
    "metric": "accuracy",
    "direction": "maximize",
    "points": 5,
    "slots": 4,
    "results": [
        result("nop", 1.0, 1.0),
        result("median", 0.9, 0.8),
        result("learned <b>", 0.4, 1.0),
        result("halving", 0.2, 0.5),
    ],
}


def test_the_front_holds_those_that_no_other_beats_in_both():
    assert pareto_front(DOCUMENT["results"]) == [3, 2]
    assert [row[-1] for row in replay_rows(DOCUMENT)] == ["", "", "yes", "yes"]


def test_the_plot_is_valid_and_marks_the_front():
    import plotly.graph_objects as go

    figure = replay_figure(DOCUMENT)

    go.Figure(figure.data, figure.layout)
    assert figure.data[0]["x"] == [0.2, 0.4]
    assert {trace["name"]: trace["marker"]["symbol"] for trace in figure.data[1:]} == {
        "nop": "circle-open",
        "median": "circle-open",
        "learned &lt;b&gt;": "circle",
        "halving": "circle",
    }


def test_the_report_shows_the_last_replay(tmp_path):
    view = dataclasses.replace(view_of_5(), directory=tmp_path)
    before = write_report(view, tmp_path / "report").read_text()
    (tmp_path / REPLAY_FILE).write_text(json.dumps(DOCUMENT))

    after = write_report(view, tmp_path / "report").read_text()

    assert "sweeper replay" in before[: before.index("<script")]
    assert "5 recorded trials in 3 random orders on 4 slots, judged by accuracy (maximize). A hit: " in after
    assert "within 0.02 of the best" in after
    assert "learned &lt;b&gt;" in after


def test_a_replay_by_another_metric_says_so(tmp_path):
    view = dataclasses.replace(view_of_5(), directory=tmp_path)
    (tmp_path / REPLAY_FILE).write_text(json.dumps(DOCUMENT | {"metric": "loss", "direction": "minimize"}))

    page = write_report(view, tmp_path / "report").read_text()

    assert "judged by loss (minimize), not by the study&#x27;s own metric accuracy (maximize)." in page


def test_a_damaged_replay_is_told(tmp_path):
    (tmp_path / REPLAY_FILE).write_text('{"results": [{}]}')

    with pytest.raises(SweeperError, match=r"Remove it, or run `sweeper replay` again"):
        kept_replay(tmp_path)


def test_the_replay_of_a_file_is_kept_nowhere(tmp_path):
    path = tmp_path / "sweep.parquet"
    write_recorded(make_recorded([0.1, 0.9]), path)

    assert keep_replay(str(path), DOCUMENT) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sweep.parquet"]
