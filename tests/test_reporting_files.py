"""The report's files for people and programs, beside the page."""

import dataclasses
import errno
import io
import itertools
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from report_fixtures import BUDGET, make_config, make_record, make_view, view_of_5, view_of_16, view_of_many
from sweep_files import FUNCTION
from sweeps import make_config as make_sweep_config

from sweeper import cli
from sweeper.config import load_config, parse_config
from sweeper.config.trial_models import Budget
from sweeper.errors import ConfigError
from sweeper.records import Origin, TrialState
from sweeper.reporting import write_report
from sweeper.reporting.figures import axis_place
from sweeper.reporting.formats import duration, labels_apart, percent, short
from sweeper.reporting.grid import Axis, trial_grid
from sweeper.reporting.importance import importance_of
from sweeper.reporting.markdown import report_markdown
from sweeper.reporting.page_tables import decisions_table
from sweeper.reporting.slots import slot_uses
from sweeper.reporting.summary import answer_sentences, savings_of
from sweeper.reporting.uncertainty import uncertainty_of
from sweeper.reporting.watch import decision_lines
from sweeper.study.view import StudyView

FILES = ["best.yaml", "index.html", "report.json", "report.md", "trials.csv", "trials.parquet"]

GOLDEN_MARKDOWN = """\
# Study tiny-batch-rate

Trial 2 is best so far: accuracy = 0.8217 (maximize), from 5 trials: 1 complete, 1 pruned, 1 failed, 1 running, 1 waiting.

Its params were trained once, with one seed, so how far chance moves the value is not known.

4,320 of the 10,240 training samples that the full grid takes were trained (42 %); stopping 1 trial early saved 1,824 (18 %); the other 4,096 are of trials that wait, run or failed.

| best params | value |
| --- | ---: |
| learning_rate | 1e-4 |

## accuracy by learning_rate

| learning_rate | 1e-6 | 1e-5 | 1e-4 | 3e-4 | 1e-3 |
| --- | ---: | ---: | ---: | ---: | ---: |
| all trials | pruned at rung 0 | failed | 0.8217 (best) | running | waiting |

## Trials, best first

| trial | state | learning_rate | accuracy | samples | reason |
| ---: | --- | ---: | ---: | ---: | --- |
| 2 | COMPLETE | 1e-4 | 0.8217 | 2,048 |  |
| 1 | FAIL | 1e-5 |  | 1,024 | RuntimeError: the data loader lost its worker |
| 3 | RUNNING | 3e-4 |  | 1,024 |  |
| 0 | PRUNED | 1e-6 |  | 224 | loss 2.31 and gradient norm 1.4 rank 5 of 6 at rung 0; the best 3 go on |
| 4 | WAITING | 1e-3 |  | 0 |  |

## Decisions

| rule | stopped a trial | set it aside | let it go on |
| --- | ---: | ---: | ---: |
| early_dynamics | 1 | 0 | 6 |

## Training spent

|  | samples | share |
| --- | ---: | ---: |
| trained | 4,320 | 42 % |
| saved by stopping early | 1,824 | 18 % |
| of trials that wait, run or failed | 4,096 | 40 % |
| every trial in full | 10,240 | 100 % |

Training took 7 s and evaluation 6 s, all slots together.

the study is running; study of 2026-11-03 12:00:00 UTC; sweeper 0.1.0, optuna 5.0.0, ray 2.60.0, python 3.11.2
"""  # noqa: E501


def nothing_complete() -> StudyView:
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4, 1e-3]}})
    states = [TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
    rates = [1e-4, 3e-4, 1e-3]
    records = [
        make_record(number, state, {"learning_rate": rate}, stopped_at=0)
        for number, (state, rate) in enumerate(zip(states, rates, strict=True))
    ]
    return make_view(records, config)


def test_write_report_writes_its_files_and_returns_the_page(tmp_path: Path) -> None:
    index = write_report(view_of_16(), tmp_path / "report")

    assert index == tmp_path / "report" / "index.html"
    assert sorted(path.name for path in index.parent.iterdir()) == FILES


class GoneTerminal(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_sweeps_report_is_written_where_nobody_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, GoneTerminal())

    cli._finish(dataclasses.replace(view_of_5(), directory=tmp_path), as_json=False)

    assert (tmp_path / "report" / "report.md").exists()


def test_without_a_complete_trial_a_stale_best_yaml_goes_and_the_report_says_why(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("study: old\n")

    write_report(nothing_complete(), tmp_path)

    assert not (tmp_path / "best.yaml").exists()
    text = (tmp_path / "report.md").read_text()
    counts = "2 pruned, 1 failed"
    assert f"No trial of study tiny-batch-rate is complete, so there is no best trial: {counts}." in text
    assert "PRUNED (2 trials): loss 2.31 and gradient norm 1.4 rank 5 of 6 at rung 0" in text
    assert "FAIL (1 trial): RuntimeError: the data loader lost its worker" in text


def test_report_markdown_of_a_running_study() -> None:
    view = view_of_5()
    view.records[4].evaluation_s = 0.0

    assert report_markdown(view) == GOLDEN_MARKDOWN


def test_a_trial_that_was_set_aside_is_said_to_be_so_everywhere() -> None:
    view = view_of_5()
    view.records[3].decisions[-1] |= {"aside": True, "at": "2026-11-03T12:01:00+00:00"}

    assert "| early_dynamics | 1 | 1 | 5 |" in report_markdown(view)
    assert decisions_table(view).count("<td>set aside</td>") == 1
    assert decision_lines(view, 80)[-1].plain.startswith("trial 3 set aside at rung 1: loss 2.31")


def test_report_markdown_lists_the_best_20_of_a_large_study() -> None:
    view = view_of_many()
    text = report_markdown(view)

    assert "## Trials, best first (20 of 300)" in text
    rows = [line for line in text.splitlines() if "| COMPLETE |" in line]
    assert len(rows) == 20
    assert view.best is not None
    assert rows[0].startswith(f"| {view.best.number} |")


def test_markdown_shows_what_a_study_says_as_it_is() -> None:
    config = make_config({"a|b": {"grid": ["<script>alert(1)</script>", "[x](http://e.org)"]}})
    records = [
        make_record(0, TrialState.FAIL, {"a|b": "<script>alert(1)</script>"}, reason="*a*\n# b | c"),
        make_record(1, TrialState.COMPLETE, {"a|b": "[x](http://e.org)"}),
    ]

    text = report_markdown(make_view(records, config))

    assert "<script>" not in text
    assert r"\[x\](http://e.org)" in text
    assert r"\*a\* # b \| c" in text


def test_trials_csv_has_no_value_and_no_metrics_for_a_pruned_trial(tmp_path: Path) -> None:
    view = nothing_complete()
    view.records[0].value = 0.98765
    view.records[0].metrics = {"accuracy": 0.98765}

    write_report(view, tmp_path)

    assert pd.read_csv(tmp_path / "trials.csv")["value"].isna().all()
    for name in ("trials.csv", "report.md", "report.json", "index.html"):
        assert "0.98765" not in (tmp_path / name).read_text()


def test_report_json_is_strict_and_has_rungs_savings_and_versions(tmp_path: Path) -> None:
    view = view_of_16()
    signals = dict(view.records[3].rungs[0].signals) | {"loss": float("nan")}
    object.__setattr__(view.records[3].rungs[0], "signals", signals)

    write_report(view, tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert report["trials"][3]["rungs"][0]["signals"]["loss"] is None
    assert report["trials"][10]["metrics"] == {"accuracy": 0.9, "held_out/loss": 0.3}
    assert report["savings"]["saved"] == 12_000
    assert report["versions"]["ray"] == "2.60.0"
    assert report["counts"] == {"WAITING": 0, "RUNNING": 0, "COMPLETE": 8, "PRUNED": 7, "FAIL": 1}


def test_best_yaml_is_a_sweep_of_the_best_point_alone(tmp_path: Path) -> None:
    config = parse_config(FUNCTION, file="sweep.yaml", base_dir=tmp_path)
    trials = [
        make_record(number, TrialState.COMPLETE, {"rate": rate}, value=rate)
        for number, rate in enumerate((0.2, 0.3123456789))
    ]
    write_report(make_view(trials, config), tmp_path)

    best = load_config(tmp_path / "best.yaml")

    assert best.study == "demo-best"
    assert best.search_space["rate"].grid == [0.3123456789]
    assert (best.sampler.name, best.sampler.n_trials, best.pruner.name) == ("grid", None, "nop")
    assert best.trial.budget == Budget(samples=BUDGET)  # what the trial had, not what the file says
    assert best.trial.model_copy(update={"budget": config.trial.budget}) == config.trial
    header = (tmp_path / "best.yaml").read_text().splitlines()[:2]
    assert header == ["# The best point of study demo: trial 1 of 2.", "# score = 0.3123456789 (maximize)"]


def test_best_yaml_keeps_the_model_and_says_so_and_where_it_goes(tmp_path: Path) -> None:
    write_report(view_of_16(), tmp_path)

    text = (tmp_path / "best.yaml").read_text()

    assert "    save_model: true\n" in text
    assert text.splitlines()[3:5] == [
        "# Train it in full and keep its model:  sweeper launch best.yaml",
        "# The study tiny-batch-rate-best lies in studies/ of where that is launched, unless `--dir DIR` is given.",
    ]


def test_only_pruned_trials_save_training() -> None:
    savings = savings_of(view_of_5())

    assert (savings.spent, savings.saved, savings.not_trained) == (4320, 1824, 4096)
    assert savings.spent + savings.saved + savings.not_trained == savings.full


def test_a_best_value_at_the_edge_of_the_space_is_pointed_out() -> None:
    config = make_config({"learning_rate": {"grid": [1e-5, 1e-4, 3e-4]}})
    records = [
        make_record(number, TrialState.COMPLETE, {"learning_rate": rate})
        for number, rate in enumerate([1e-5, 1e-4, 3e-4])
    ]

    assert answer_sentences(make_view(records, config))[-2:] == [
        "learning_rate = 3e-4 is the largest value that was tried; a better one may lie beyond it.",
        "`sweeper add STUDY --suggest` adds what lies beyond: learning_rate=9e-4.",
    ]


def test_results_at_unequal_data_are_flagged() -> None:
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}, "samples": {"grid": [1024, BUDGET]}})
    records = [
        make_record(
            number, TrialState.COMPLETE, {"learning_rate": 3e-4, "samples": budget}, budget_samples=budget,
            value=budget / 4096,
        )
        for number, budget in enumerate([1024, BUDGET])
    ]  # fmt: skip

    flagged = answer_sentences(make_view(records, config))[2]

    assert flagged == (
        "The complete trials were not given equal data: 1,024 to 2,048 samples each, the best one 2,048. A longer one "
        "may win by its length alone, and what is said of params is said of lengths too."
    )
    assert not [text for text in answer_sentences(view_of_16()) if "equal data" in text]


def test_a_longer_trial_that_is_held_against_none_makes_no_data_unequal() -> None:
    view = view_of_16()
    origin = Origin(by="me", continues=10, from_step=64, from_samples=BUDGET)
    longer = dataclasses.replace(view.records[10], number=16, budget_samples=2 * BUDGET, origin=origin)

    told = answer_sentences(make_view([*view.records, longer], view.config))

    assert not [text for text in told if "equal data" in text]


def test_trials_that_are_not_drawn_yet_count_among_those_that_it_is_the_best_of() -> None:
    config = make_config(
        {"learning_rate": {"uniform": (0.0, 1.0)}}, sampler={"name": "random", "n_trials": 20}
    )
    records = [make_record(n, TrialState.COMPLETE, {"learning_rate": 1e-4 * (n + 1)}) for n in range(4)]

    told = answer_sentences(make_view(records, config, state="running"))[0]

    assert told.endswith("from 20 trials: 4 complete, 16 not drawn yet.")


def test_whole_numbers_stay_whole_in_the_table_where_a_trial_has_none(tmp_path: Path) -> None:
    write_report(view_of_5(), tmp_path)

    table = pd.read_csv(tmp_path / "trials.csv", dtype=str, keep_default_na=False)
    assert table["pid"].tolist() == ["4000", "4001", "4000", "4001", ""]
    assert pd.read_parquet(tmp_path / "trials.parquet")["pid"].dropna().tolist() == [4000, 4001, 4000, 4001]


def test_trials_that_run_at_a_time_are_on_different_slots() -> None:
    uses = slot_uses(view_of_16())

    for slot in {use.slot for use in uses}:
        own = sorted((use for use in uses if use.slot == slot), key=lambda use: use.start_s)
        assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(own))
    assert {use.slot for use in uses} == {"node-a, slot 1", "node-a, slot 2"}


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["sgd", "adamw_torch"], ["sgd", "adamw_t…"]),
        (["runs/model-123", "runs/model-456"], ["…del-123", "…del-456"]),
        (["runs/of/a1/last-one", "runs/of/b2/last-one"], ["…f/a1/l…", "…f/b2/l…"]),
        (["a-long/first", "a-long/second", "b-long/first"], ["a-l…irst", "a-l…cond", "b-l…irst"]),
    ],
    ids=["the beginning", "the end", "from where they differ", "beginning and end"],
)  # fmt: skip
def test_long_values_are_cut_so_that_they_can_be_told_apart(texts: list[str], labels: list[str]) -> None:
    assert list(labels_apart(texts, 8).values()) == labels


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (2.5e-5, "2.5e-5"),
        (0.8125, "0.8125"),
        (0.05, "0.05"),
        (1e-2, "0.01"),
        (1234.5678, "1235"),
        (2.5e7, "2.5e7"),
        (0.0, "0"),
        (-1e-5, "-1e-5"),
        (float("inf"), "inf"),
        (128, "128"),
        (False, "false"),
        ([1, "a"], '[1, "a"]'),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert short(value) == text


def test_shares_and_times_read_well() -> None:
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %",
        "<1 %",
        "50 %",
        ">99 %",
        "100 %",
    ]
    assert [duration(s) for s in (0.4, 61, 3600, 90000)] == ["0 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]


def test_params_that_are_mappings_or_huge_are_text_in_the_table(tmp_path: Path) -> None:
    params = [{"rate": 0.1, "kwargs": {}, "big": 1}, {"rate": 0.2, "kwargs": {}, "big": 2**70}]
    trials = [make_record(n, TrialState.COMPLETE, given, value=0.5) for n, given in enumerate(params)]

    write_report(make_view(trials, make_sweep_config()), tmp_path)

    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(table["params.kwargs"]) == ["{}", "{}"]
    assert list(table["params.big"]) == ["1", str(2**70)]


def test_a_report_is_not_written_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(ConfigError, match="is a file, but a report is a directory"):
        write_report(view_of_5(), tmp_path / "out")

    assert (tmp_path / "out").read_text() == "mine"


def test_a_trial_that_trains_another_on_is_held_against_none(tmp_path: Path) -> None:
    rates = (0.1, 0.2, 0.1)
    trials = [
        make_record(number, TrialState.COMPLETE, {"rate": rate}, value=value)
        for number, (rate, value) in enumerate(zip(rates, (0.5, 0.4, 0.9), strict=True))
    ]
    trials[2].origin = Origin(by="me", continues=0, from_samples=BUDGET)
    view = make_view(trials, make_sweep_config())

    found = uncertainty_of(view)

    assert view.best is trials[0]
    assert found is not None
    assert (found.n_seeds, found.mean, found.runner_up) == (1, 0.5, 1)
    assert found.margin == pytest.approx(0.1)
    grid = trial_grid(view)
    assert grid is not None
    assert [cell.record.number for cell in grid.cells] == [0, 1]


def test_points_from_outside_the_grid_leave_the_importances(tmp_path: Path) -> None:
    rates = [1e-5, 1e-4, 1e-3, 1e-2]
    config = make_sweep_config(
        search_space={"learning_rate": {"choice": rates}, "other": {"uniform": [0.0, 1.0]}},
        sampler={"name": "random", "n_trials": 15},
    )
    trials = [
        make_record(n, TrialState.COMPLETE, {"learning_rate": rate, "other": other}, value=rate + other)
        for n, (rate, other) in enumerate(itertools.product([*rates, 8e-4], [0.1, 0.5, 1.5]))
    ]

    found = importance_of(make_view(trials, config))

    assert set(found.shares) == {"learning_rate", "other"}


def test_an_axis_of_many_values_is_looked_through_once():
    class Values(tuple):
        n_read = 0

        def __iter__(self):
            self.n_read += 1
            return super().__iter__()

    axis = Axis(name="learning_rate", values=Values([1e-4, 2e-4, 3e-4]))

    assert [axis_place(axis, index, as_categories=False) for index in range(3)] == [1e-4, 2e-4, 3e-4]
    assert axis.values.n_read == 1
