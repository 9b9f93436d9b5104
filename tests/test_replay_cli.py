"""`sweeper replay`: words and numbers."""

import json

import pytest
from recorded_sweeps import make_recorded
from typer.testing import CliRunner

from sweeper.cli import app
from sweeper.errors import ConfigError
from sweeper.replay import ReplayOptions
from sweeper.replay.request import replay_all
from sweeper.study.recorded_files import write_recorded
from sweeper.study.recorded_open import open_recorded


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "sweep.parquet"
    write_recorded(make_recorded([0.1, 0.9, 0.3, 0.5], seed_sd=0.05), path)
    return str(path)


def run(*words):
    return CliRunner().invoke(app, ["replay", *words], catch_exceptions=False, env={"COLUMNS": "140"})


def test_each_pruner_has_its_row(recorded):
    result = run(
        recorded, "--pruner", "nop", "--pruner", "median options.n_startup_trials=1", "--orders", "3"
    )

    assert result.exit_code == 0
    assert "made-up: 4 points, best score = 0.9" in result.stdout
    assert (
        "3 random orders on 4 slots; a hit is a final choice within 0.05 (the noise between seeds)"
        in result.stdout
    )
    rows = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(("nop", "median"))]
    assert [row[0] for row in rows] == ["nop", "median"]
    assert rows[0][1:3] == ["100%", "100%"]
    assert int(rows[0][3].removesuffix("%")) >= 100  # four points of different lengths on four slots
    assert rows[0][4:6] == ["100%", "0"]


def test_json_holds_what_the_table_shows(recorded):
    result = run(recorded, "--pruner", "nop", "--orders", "2", "--slots", "1", "--json")

    found = json.loads(result.stdout)
    assert (found["points"], found["best"], found["slots"], found["left_out"]) == (4, 0.9, 1, 0)
    assert found["results"][0]["cost"] == 1.0
    assert found["results"][0]["hit"] == 1.0


def test_rungs_are_told_in_their_unit(recorded):
    words = [recorded, "--pruner", "nop", "--pruner", "nop rungs.steps=[2,5]", "--orders", "1"]

    table, found = run(*words), json.loads(run(*words, "--json").stdout)

    assert "rungs of nop: 20 samples" in table.stdout
    assert "rungs of nop rungs.steps=[2,5]: 2, 5 steps" in table.stdout
    assert [(one["rungs"], one["rung_unit"]) for one in found["results"]] == [
        ([20], "samples"),
        ([2, 5], "steps"),
    ]


def test_settings_after_the_study_hold_for_every_pruner_and_may_set_the_rungs(recorded):
    sweep = open_recorded(recorded)

    asked = ["early_dynamics keep_frac=0.3", "early_dynamics keep_frac=0.9"]
    low, high = replay_all(
        sweep, asked, ["signals={loss: {direction: minimize}}", "min_peers=2", "rungs.samples=[50]"],
        ReplayOptions(orders=5),
    )  # fmt: skip

    assert low.rung_marks == high.rung_marks == (50,)
    assert low.cost < high.cost
    assert low.pruner == "early_dynamics keep_frac=0.3"


def test_a_pruner_without_a_name_is_refused(recorded):
    with pytest.raises(ConfigError, match="must be a pruner's name"):
        replay_all(open_recorded(recorded), ["keep_frac=0.3"])


def test_another_recorded_metric_can_be_the_judge(recorded):
    assert open_recorded(recorded, metric="other").best == -0.1
