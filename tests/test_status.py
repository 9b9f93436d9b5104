"""What `sweeper status` says."""

import io
import itertools
import json
import math

import pytest
import sweeps
from cli_fixtures import another_user, cli, fingerprint, only_root
from report_fixtures import make_config, make_record, make_view, view_of_5, view_of_16, view_of_many
from rich.console import Console
from sweeps import make_study

from sweeper.api import load_study
from sweeper.records import Origin, TrialState
from sweeper.reporting.grid import trial_grid
from sweeper.reporting.markdown import report_markdown
from sweeper.reporting.page_tables import trials_table
from sweeper.reporting.status import MAX_ROWS, rows_shown, status_json, status_text
from sweeper.study.view import StudyState, StudyView

GOLDEN_80 = """\
tiny-batch-rate: running; 1 complete, 1 pruned, 1 failed, 1 running, 1 waiting
best: trial 2, accuracy = 0.8217 (learning_rate=1e-4)
trained: 4,320 of 10,240 samples (42 %); saved by pruning: 1,824 (18 %)

                 learning
trial  state         rate  accuracy      samples  reason
────────────────────────────────────────────────────────────────────────────────
    0  PRUNED        1e-6              224/2,048  loss 2.31 and gradient norm…
    1  FAIL          1e-5            1,024/2,048  RuntimeError: the data load…
    2  COMPLETE      1e-4    0.8217        2,048
    3  RUNNING       3e-4            1,024/2,048
    4  WAITING       1e-3
"""

TRIAL_KEYS = [
    "number",
    "state",
    "is_set_aside",
    "point_id",
    "params",
    "value",
    "steps",
    "samples",
    "reason",
    "attempts",
    "worker",
    "started",
    "ended",
]


def rendered(view: StudyView, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(status_text(view))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_status_text_at_80_columns() -> None:
    lines = rendered(view_of_5(), 80)

    rule = GOLDEN_80.splitlines()[6]
    assert [line if set(line) != {"─"} else rule for line in lines] == GOLDEN_80.splitlines()


def test_values_that_begin_alike_are_told_apart_in_the_table() -> None:
    paths = [f"/mnt/shared/models/meta-llama/checkpoint-000{number}" for number in (123, 456)]
    records = [make_record(n, TrialState.COMPLETE, {"model": path}) for n, path in enumerate(paths)]

    table = "\n".join(rendered(make_view(records, make_config({"model": {"choice": paths}})), 80))

    assert "…llama/checkpoint-000123 " in table
    assert "…llama/checkpoint-000456 " in table


@pytest.mark.parametrize("width", [30, 60, 80, 110, 200])
@pytest.mark.parametrize("view", [view_of_5(), view_of_16(), view_of_many()], ids=["5", "16", "300"])
def test_status_text_fits_any_width(view: StudyView, width: int) -> None:
    assert max(len(line) for line in rendered(view, width)) <= width


def test_wider_terminals_show_steps_attempts_and_worker() -> None:
    text = "\n".join(rendered(view_of_16(), 140))

    assert "steps  attempts  worker" in text
    assert "node-a:4000" in text


def test_status_json_has_the_documented_keys() -> None:
    status = status_json(view_of_16())

    keys = [
        "study",
        "state",
        "driver",
        "metric",
        "direction",
        "trials",
        "best",
        "controls",
        "paused_by",
        "max_concurrent",
    ]
    assert list(status) == keys
    assert all(list(trial) == TRIAL_KEYS for trial in status["trials"])
    assert status["best"]["number"] == 10


def test_status_json_is_strict_json_when_params_and_values_are_not_finite() -> None:
    config = make_config({"dropout": {"choice": [0.1, 0.2]}})
    record = make_record(0, TrialState.COMPLETE, {"dropout": math.nan}, value=0.5)

    text = json.dumps(status_json(make_view([record], config)), allow_nan=False)

    assert json.loads(text)["trials"][0]["params"] == {"dropout": None}


def test_a_long_value_of_a_param_leaves_room_for_the_results() -> None:
    mixes = [[f"data/mix-{number}-{part}.jsonl" for part in range(8)] for number in range(2)]
    config = make_config({"train_data": {"grid": mixes}})
    records = [make_record(n, TrialState.COMPLETE, {"train_data": mix}) for n, mix in enumerate(mixes)]

    *_, header, _, first, _ = rendered(make_view(records, config), 80)

    assert header.split() == ["trial", "state", "data", "accuracy", "samples"]
    assert first == '    0  COMPLETE  ["data/mix-0-0.jsonl", …       0.9    2,048'


def view_of_five_params() -> StudyView:
    """A grid of 24 points over five params, of two of which every value begins alike."""
    models = [f"/mnt/shared/models/checkpoint-{number:06}" for number in (123, 456, 789)]
    space = {
        "effective_batch_size": {"grid": [16, 32]},
        "learning_rate": {"grid": [1e-4, 1e-3]},
        "model": {"choice": models},
        "lora_rank": {"grid": [8, 256]},
        "lr_scheduler_type": {"choice": ["constant", "constant_with_warmup"]},
    }
    points = [
        dict(zip(space, values, strict=True))
        for values in itertools.product([16, 32], [1e-4, 1e-3], models, [8, 256], ["constant"])
    ]
    points[-1]["lr_scheduler_type"] = "constant_with_warmup"
    records = [make_record(n, TrialState.PRUNED, point, stopped_at=0) for n, point in enumerate(points)]
    return make_view(records, make_config(space))


def test_more_params_than_columns_stand_side_by_side_under_their_names() -> None:
    lines = rendered(view_of_five_params(), 80)

    assert lines[4:9] == [
        "               effective_batch_size",
        "                  learning_rate",
        "                       model",
        "                              lora_rank",
        "trial  state            lr_scheduler_type  accuracy    samples  reason",
    ]
    assert lines[10:12] == [
        "    0  PRUNED  16 1e-4 …00123 8   …nstant            208/2,048  loss 2.31 and…",
        "    1  PRUNED  16 1e-4 …00123 256 …nstant            208/2,048  loss 2.31 and…",
    ]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_no_two_of_many_trials_look_alike_whatever_the_width(width: int) -> None:
    view = view_of_five_params()
    rows = [line.split("PRUNED")[1].split("loss")[0] for line in rendered(view, width) if "PRUNED" in line]

    assert len(set(rows)) == len(view.records) == 24


@pytest.mark.parametrize("width", [30, 40, 60, 80, 110, 140, 200])
def test_a_table_of_many_params_fits_any_width(width: int) -> None:
    assert max(len(line) for line in rendered(view_of_five_params(), width)) <= width


def test_a_trial_that_is_not_compared_says_so_beside_its_value() -> None:
    rates = [1e-5, 1e-4, 3e-4, 1e-3]
    config = make_config({"learning_rate": {"grid": rates}})
    records = [
        make_record(number, TrialState.COMPLETE, {"learning_rate": x}) for number, x in enumerate(rates)
    ]
    records[1].origin = Origin(by="me", continues=2, from_step=64, from_samples=2048)
    records[2].origin = Origin(by="me", cloned_from=0, warm_start=True, from_step=64, from_samples=2048)
    records[3].origin = Origin(by="me", cloned_from=0)

    rows = rendered(make_view(records, config), 130)[-4:]

    assert [row.partition("node-a:")[2][4:].strip() for row in rows] == [
        "",
        "not compared: trains trial 2 on from step 64",
        "clone of trial 0 with its weights of step 64",
        "",
    ]


def test_what_was_trained_is_told_from_a_param_of_the_same_name() -> None:
    config = make_config({"samples": {"grid": [512, 2048]}})
    records = [
        make_record(n, TrialState.COMPLETE, {"samples": budget}) for n, budget in enumerate((512, 2048))
    ]
    view = make_view(records, config)

    lines = rendered(view, 80)

    assert [line.split() for line in lines[4:6]] == [
        ["samples"],
        ["trial", "state", "samples", "accuracy", "trained"],
    ]
    assert ">samples trained</button>" in trials_table(view)
    assert "| samples | accuracy | samples trained |" in report_markdown(view)


def view_of_drawn(state: StudyState) -> StudyView:
    """Four of the fifty points of a sampler: three complete, one running."""
    space = {"learning_rate": {"log_uniform": (1e-6, 1e-2)}}
    config = make_config(space, sampler={"name": "tpe", "n_trials": 50})
    states = [TrialState.COMPLETE] * 3 + [TrialState.RUNNING]
    records = [make_record(n, kind, {"learning_rate": 10**-n}) for n, kind in enumerate(states)]
    return make_view(records, config, state=state)


def test_points_that_are_not_drawn_yet_are_part_of_the_whole() -> None:
    first, _, trained = rendered(view_of_drawn("interrupted"), 120)[:3]

    assert first == "tiny-batch-rate: interrupted; 3 complete, 1 to go on at resume, 46 not drawn yet"
    assert trained.startswith("trained: 7,168 of 102,400 samples (7 %)")


def test_a_trial_of_an_interrupted_study_is_told_to_go_on_and_not_to_run() -> None:
    interrupted = view_of_5(state="interrupted")
    grid = trial_grid(interrupted)

    assert rendered(interrupted, 120)[-2].split()[1:4] == ["to", "go", "on"]
    assert rendered(view_of_5(), 120)[-2].split()[1] == "RUNNING"
    assert '<td class="state RUNNING">to go on</td>' in trials_table(interrupted)
    assert "| to go on |" in report_markdown(interrupted)
    assert grid is not None
    assert [cell.text for cell in grid.cells][3:] == ["to go on", ""]
    assert status_json(interrupted)["trials"][3]["state"] == "RUNNING"


def test_a_finished_study_waits_for_no_further_point() -> None:
    first, _, trained = rendered(view_of_drawn("finished"), 120)[:3]

    assert "not drawn yet" not in first
    assert trained.startswith("trained: 7,168 of 8,192 samples")


def test_an_early_value_of_a_pruned_trial_is_never_its_value() -> None:
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}})
    pruned = make_record(0, TrialState.PRUNED, {"learning_rate": 1e-4}, stopped_at=1, value=0.98765)
    view = make_view([pruned], config)

    assert status_json(view)["trials"][0]["value"] is None
    assert status_json(view)["best"] is None
    assert "0.9877" not in "\n".join(rendered(view, 200))


def test_a_large_study_lists_the_running_and_the_best_trials() -> None:
    view = view_of_many()
    records = list(view.records)
    records[7] = make_record(7, TrialState.RUNNING, records[7].params)
    shown = {record.number for record in rows_shown(make_view(records, view.config))}

    assert len(shown) == MAX_ROWS
    assert view.best is not None
    assert {7, view.best.number} <= shown


def test_a_terminal_s_escape_codes_in_a_reason_are_not_printed() -> None:
    config = make_config({"learning_rate": {"grid": [1e-4]}})
    failed = make_record(0, TrialState.FAIL, {"learning_rate": 1e-4}, reason="bad\x1b[2J\nthing [bold]x")

    text = "\n".join(rendered(make_view([failed], config), 120))

    assert "\x1b" not in text
    assert "bad [2J thing [bold]x" in text


@only_root
def test_a_study_is_read_by_whoever_may_not_write_it(tmp_path):
    study = make_study(tmp_path / "study", sweeps.make_config())
    before = fingerprint(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(path.stat().st_mode | 0o055)
    with another_user(tmp_path):
        with pytest.raises(PermissionError, match="Permission denied"):
            (study.directory / "x").touch()
        found = status_json(load_study(str(study.directory)))

    assert [trial["state"] for trial in found["trials"]] == ["WAITING"] * 4
    assert fingerprint(tmp_path) == before


@only_root
def test_a_study_that_may_not_be_read_is_named_with_a_remedy(tmp_path):
    study = make_study(tmp_path / "study", sweeps.make_config())
    study.directory.chmod(0o700)

    with another_user(tmp_path):
        run = cli("status", study.directory)

    assert run.code == 6
    assert f"error: The study `{study.directory}` cannot be read: [Errno 13] Permission denied" in run.err
    assert "ask its owner" in run.err
